"""What every step of a restore needs: the database, the questions it asks, and the few commands it sends."""

import contextvars
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS, RawBSONDocument
from pymongo.collection import Collection
from pymongo.errors import OperationFailure
from pymongo.write_concern import WriteConcern

from tasks.database.archive.metadata import EXACT, CollectionMetadata
from tasks.database.connection import Client
from tasks.database.fingerprint import Fingerprint, read_content
from tasks.database.restore.definition import (
    index_differences,
    indexes_for_create,
    mending,
    option_differences,
    options_for_create,
)
from tasks.database.restore.look import kind_of, listed
from tasks.database.restore.names import run_of, state_name
from tasks.database.restore.patience import Patience
from tasks.database.restore.state import State, write_state
from tasks.database.writing import verbatim
from tasks.domain.errors import StoppedError, UnprovenError, UpgradeError

_T = TypeVar("_T")

BUCKETS = "system.buckets."
"""Before the name of a time series: the collection that holds its documents."""

_MAJORITY = {"w": "majority"}
UNAUTHORIZED = 13
_NAMESPACE_NOT_FOUND = 26
_ASKED_EVERY = 0.5  # Seconds.
_LOOKS_AGAIN = (0.1, 0.4, 1.5)  # Seconds.


class Work:
    """One database being restored.

    `guard` is asked before every command that changes something, by one thread at a time; `stop` at boundaries
    that are safe.  `own` is told which live collections are changed.  `notes` gathers what came back otherwise than it was, `problems` what to
    end with when all else is done.
    """

    def __init__(
        self,
        client: Client,
        database: str,
        *,
        guard: Callable[[], None],
        stop: Callable[[], bool],
        patience: Patience,
        own: Callable[..., None] = lambda *_collections, **_: None,
    ) -> None:
        self.client, self.database = client, database
        self.stop, self.patience = stop, patience
        self.own = own
        self.notes: list[str] = []
        self.problems: list[UpgradeError] = []
        self._guard, self._one_at_a_time = guard, threading.Lock()

    def guard(self) -> None:
        """Raises UpgradeError when the run may not go on."""
        with self._one_at_a_time:
            self._guard()

    def stop_if_asked(self) -> None:
        """Raises StoppedError when the run is told to stop."""
        if self.stop():
            raise StoppedError("The restore was stopped.")

    def info(self, name: str) -> dict[str, Any] | None:
        """The server's description of a collection, None where there is none."""
        return self.patience(lambda: next(listed(self.client, self.database, name), None))

    def raw(self, name: str) -> Collection[Any]:
        """A collection whose documents stay bytes, written with the confirmation of a majority."""
        return self.client[self.database].get_collection(
            name, codec_options=DEFAULT_RAW_BSON_OPTIONS, write_concern=WriteConcern("majority")
        )

    def insert(self, name: str, documents: list[RawBSONDocument], *, ordered: bool, bypass: bool) -> dict[str, Any]:
        """The server's reply to one `insert`, its `writeErrors` in it; the guard is not asked."""
        command: dict[str, Any] = {
            "insert": name,
            "documents": documents,
            "ordered": ordered,
            "writeConcern": _MAJORITY,
            **verbatim(self.client, f"{self.database}.{name}", (bytes(document.raw) for document in documents)),
        }
        if bypass:
            command["bypassDocumentValidation"] = True
        return self.client[self.database].command(command)

    def replace(self, name: str, query: Mapping[str, Any], document: RawBSONDocument) -> None:
        """Put `document` in the place of the one that `query` finds; the guard is not asked."""
        # As a command: the driver's own way cannot say that an empty timestamp is to stay one.
        told = verbatim(self.client, f"{self.database}.{name}", [bytes(document.raw)])
        command = {"update": name, "updates": [{"q": query, "u": document}], "writeConcern": _MAJORITY, **told}
        reply = self.client[self.database].command(command)
        if errors := reply.get("writeErrors"):
            raise OperationFailure(str(errors[0].get("errmsg", "")), errors[0].get("code"))

    def command(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Send a command that changes something.  It must bear being sent twice."""
        return self.write(
            lambda: self.client[self.database].command({**command, "writeConcern": _MAJORITY}, codec_options=EXACT)
        )

    def write(self, act: Callable[[], _T]) -> _T:
        """Do what changes something, the guard being asked before each try: waiting for a server takes its time."""

        def guarded() -> _T:
            self.guard()
            return act()

        return self.patience(guarded)

    def drop(self, name: str) -> None:
        """Drop a collection or view, if it is there."""
        try:
            self.command({"drop": name})
        except OperationFailure as problem:
            if problem.code != _NAMESPACE_NOT_FOUND:
                raise

    def create(self, name: str, options: Mapping[str, Any], *, with_expiry: bool = True) -> None:
        """Make a collection or view anew; one that is there goes."""

        def once() -> None:
            if next(listed(self.client, self.database, name), None):
                self.client[self.database].command({"drop": name, "writeConcern": _MAJORITY})
            self.client[self.database].command(
                {"create": name, **options_for_create(options, with_expiry=with_expiry), "writeConcern": _MAJORITY},
            )

        self.write(once)

    def uuid(self, name: str) -> str:
        """What the server calls a collection whatever its name is; empty where it does not say or has none."""
        return uuid_of(self.info(name))

    def content(self, name: str) -> Fingerprint:
        """The fingerprint of all that a collection holds now."""
        return self.patience(lambda: read_content(self.client, self.database, name, stop=self.stop))

    def rename(self, old: str, new: str, *, over: bool = True) -> bool:
        """Give `old` the name `new`, with `over` in whose place it comes in one step.  False where `old` is gone."""

        def once() -> bool:
            command = {"renameCollection": f"{self.database}.{old}", "to": f"{self.database}.{new}", "dropTarget": over}
            try:
                self.client.admin.command({**command, "writeConcern": _MAJORITY})
            except OperationFailure as problem:
                if problem.code != _NAMESPACE_NOT_FOUND:
                    raise
                return False  # It was renamed: the answer was lost, or a run that died had asked for it.
            return True

        return self.write(once)

    def build_indexes(self, name: str, definition: CollectionMetadata) -> None:
        """Build the indexes of `definition`, however long the server takes."""
        wanted = indexes_for_create(definition.indexes)
        if not wanted:
            return
        command = {"createIndexes": name, "indexes": wanted, "writeConcern": _MAJORITY}

        def once() -> None:
            self.stop_if_asked()
            self.guard()
            self._awaited(lambda: self.client[self.database].command(command, codec_options=EXACT))

        # A build goes on when its client has left; the same question joins it.
        self.patience.until_done(once)

    def _awaited(self, act: Callable[[], object]) -> None:
        """Do what may take a server hours in a thread of its own, so that a stop is heard meanwhile."""
        outcome: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

        def acted() -> None:
            try:
                act()
            except BaseException as problem:  # noqa: BLE001 - raised by the thread that waits
                outcome.put(problem)
            else:
                outcome.put(None)

        threading.Thread(target=contextvars.copy_context().run, args=(acted,), daemon=True).start()
        while True:
            try:
                problem = outcome.get(timeout=_ASKED_EVERY)
            except queue.Empty:
                self.stop_if_asked()
                continue
            if problem is not None:
                raise problem
            return

    def indexes(self, name: str) -> list[dict[str, Any]]:
        """The definitions of a collection's indexes, as the server has them."""
        collection = self.client[self.database].get_collection(name, codec_options=EXACT)
        return self.patience(lambda: [dict(index) for index in collection.list_indexes()])

    def keep(self, state: State) -> None:
        """Keep how far the restore is."""
        self.write(lambda: write_state(self.client, self.database, state))

    def state_of(self, state: State) -> str:
        """The collection that says how far the restore is."""
        return state_name(run_of(state.sha256))

    def settle(self, name: str, definition: CollectionMetadata) -> None:
        """See that options and indexes are the archive's; set options that can be set.

        Raises UnprovenError naming what differs.
        """
        info = self.info(name)
        if info is not None and (fields := mending(definition.options, info.get("options", {}))):
            self.command({"collMod": name, **fields})
            info = self.info(name)
        for wait in _LOOKS_AGAIN:
            if not self.differences(name, definition, info):
                return
            time.sleep(wait)  # What a run that died had asked for last may still be at work in the server.
            info = self.info(name)
        if odd := self.differences(name, definition, info):
            raise UnprovenError(
                f"{definition.name} is not as the archive has it.",
                observed=f"{self.database}.{name}:\n" + "\n".join(odd),
                next="Compare the versions of the database server then and now; restore with mongorestore.",
            )

    def differences(self, name: str, definition: CollectionMetadata, info: dict[str, Any] | None) -> list[str]:
        """What of a collection's definition is not the archive's, in sentences."""
        if info is None:
            return ["It is not there."]
        odd = [f"The option {o} differs." for o in option_differences(definition.options, info.get("options", {}))]
        if kind_of(info) != "view":
            odd += index_differences(definition.indexes, self.indexes(name))
        return odd


def uuid_of(info: Mapping[str, Any] | None) -> str:
    """The UUID in a server's description of a collection, hexadecimal; empty where there is none."""
    value = (info or {}).get("info", {}).get("uuid")
    return bytes(value).hex() if isinstance(value, bytes) else ""


def data_name(collection: str, kind: str) -> str:
    """Where a server has the documents of a collection."""
    return f"{BUCKETS}{collection}" if kind == "timeseries" else collection
