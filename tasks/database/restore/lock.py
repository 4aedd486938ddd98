"""One restore at a time: a document in the database that is restored says who is at work.

Whoever holds it counts its `beat` up again and again.  A holder whose process is gone is seen at once from where it
ran, from elsewhere when the beat stood still for a whole lease by the looker's own clock.  A holder that was frozen
that long finds the document to be another's before it writes again.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.errors import InvalidName, PyMongoError
from pymongo.write_concern import WriteConcern

from tasks.database.connection import Client
from tasks.database.restore.names import LOCK
from tasks.domain.errors import BlockedError, StoppedError
from tasks.record import whereabouts

LEASE = 20.0
"""Seconds that the beat stands still before the holder counts as dead."""

_ID = "restore"
_BEATS_IN_A_LEASE = 10
_SURE_FOR = 1.0
"""Seconds that an answer of the server is good for: so long a frozen holder could go on with what it was at."""
_LOOKS_EVERY = 0.25

Document = dict[str, Any]


class Lock:
    """The right to restore a database; made by `hold`."""

    def __init__(self, client: Client, database: str, archive: str) -> None:
        self._database = database
        self._documents = _collection(client, database)
        self._mine: Document = {"holder": uuid4().hex, **_here(), "since": datetime.now(UTC), "archive": archive}
        self._asking = threading.Lock()
        self._sure = 0.0
        self._lost = False
        self._ended = threading.Event()

    def check(self) -> None:
        """Raise BlockedError when the right is lost.  Asks the server where its last answer is older than a second;
        raises the driver's errors."""
        with self._asking:
            if not self._lost and time.monotonic() - self._sure > _SURE_FOR:
                self._renew()
            lost = self._lost
        if lost:
            raise self._taken(self._documents.find_one({"_id": _ID}))

    def lost_to(self) -> BlockedError | None:
        """The error that another restore took over, whatever else that made this one fail of; None where none did."""
        with self._asking, suppress(PyMongoError):
            if not self._lost:
                self._renew()
            if self._lost:
                return self._taken(self._documents.find_one({"_id": _ID}))
        return None

    def take(self, stop: Callable[[], bool]) -> None:
        """Take the right.  Raises BlockedError where a restore that lives has it, StoppedError, the driver's errors."""
        while True:
            asked = time.monotonic()
            # One question: whoever comes first has it, and everybody hears who.
            found = self._documents.find_one_and_update(
                {"_id": _ID}, {"$setOnInsert": {**self._mine, "beat": 0}}, upsert=True, return_document=ReturnDocument.AFTER
            )  # fmt: skip
            if found is None:  # The driver's type says so; an upsert always finds.
                continue
            if found["holder"] == self._mine["holder"]:
                self._sure = asked
                return
            if not _is_dead(self._documents, found, stop):
                raise _held(self._database, found)
            self._documents.find_one_and_replace(_as_seen(found), {**self._mine, "beat": 0})

    def beat(self) -> None:
        """Renew the right until it is lost or given back: the work of a thread."""
        while not self._ended.wait(LEASE / _BEATS_IN_A_LEASE):
            with self._asking:
                # A server that is away is asked again; who writes meanwhile asks for itself.
                with suppress(PyMongoError):
                    self._renew()
                if self._lost:
                    return

    def give_back(self) -> None:
        """Remove the collection, if the right is still ours."""
        self._ended.set()
        with self._asking, suppress(PyMongoError):
            if not self._lost:
                self._renew()
            if not self._lost:
                # The document goes with it: nobody can take the right in between.
                self._documents.drop()

    def _renew(self) -> None:
        asked = time.monotonic()
        mine = {"_id": _ID, "holder": self._mine["holder"]}
        if self._documents.find_one_and_update(mine, {"$inc": {"beat": 1}}) is None:
            self._lost = True
        else:
            self._sure = asked

    def _taken(self, found: Document | None) -> BlockedError:
        return BlockedError(
            f"This restore of {self._database} lost the right to write.",
            observed=f"It was not heard of for {LEASE:.0f} seconds, and another took over: {_told(found)}"
            if found
            else f"Its document in the collection {LOCK} is gone: another took over, for this one was not heard of for "
            f"{LEASE:.0f} seconds, and has ended; or somebody removed it.",
            safe="This restore writes nothing more; what became of the database the other one tells.",
            next="Let the other one end, then look at the database; restore again where that is needed.",
        )


@contextmanager
def hold(client: Client, database: str, archive: str, *, stop: Callable[[], bool] = lambda: False) -> Iterator[Lock]:
    """The only right to restore `database`, until the context ends.  `archive` is told to whoever else wants it.

    Raises BlockedError naming who has it, StoppedError, and the driver's errors.
    """
    lock = Lock(client, database, archive)
    lock.take(stop)
    thread = threading.Thread(target=lock.beat, name="restore-lock", daemon=True)
    thread.start()
    try:
        yield lock
    finally:
        lock.give_back()


def require_none_at_work(client: Client, database: str, *, stop: Callable[[], bool] = lambda: False) -> None:
    """Raise BlockedError where a restore of `database` is at work; reads only, up to a lease long."""
    try:
        documents = _collection(client, database)
    except InvalidName:
        return  # The plan says so.
    found = documents.find_one({"_id": _ID})
    if found is not None and not _is_dead(documents, found, stop):
        raise _held(database, found)


def _collection(client: Client, database: str) -> Collection[Document]:
    return client[database].get_collection(LOCK, write_concern=WriteConcern("majority"))


def _is_dead(documents: Collection[Document], found: Document, stop: Callable[[], bool]) -> bool:
    """Whether nobody renews `found` any more, or it was given back."""
    if _process_is_gone(found):
        return True
    until = time.monotonic() + LEASE
    while time.monotonic() < until:
        time.sleep(_LOOKS_EVERY)
        if stop():
            raise StoppedError("The restore was stopped.", observed="It waited for another one's sign of life.")
        now = documents.find_one({"_id": _ID})
        if now is None:
            return True
        if _as_seen(now) != _as_seen(found):
            return False
    return True


def _as_seen(found: Document) -> Document:
    return {"_id": _ID, "holder": found.get("holder"), "beat": found.get("beat")}


def _here() -> Document:
    """Who this process is."""
    here = whereabouts.here()
    return {"host": socket.gethostname(), **here, "pid": int(here["pid"])}


def _process_is_gone(found: Document) -> bool:
    """Whether the holder ran where this process runs, and does not any more."""
    return whereabouts.is_gone({key: str(found.get(key) or "") for key in ("place", "pid", "started")})


def _held(database: str, found: Document) -> BlockedError:
    return BlockedError(
        f"Another restore of {database} is at work.",
        observed=_told(found),
        next="Wait until it has ended. One that is dead is taken over from "
        f"{LEASE:.0f} seconds after its last sign of life, where it ran at once.",
    )


def _told(found: Document) -> str:
    since = found.get("since")
    when = f"{since:%Y-%m-%d %H:%M:%S} UTC" if isinstance(since, datetime) else "an unknown time"
    return f"Archive {found.get('archive')}, since {when}, process {found.get('pid')} on {found.get('host')}."
