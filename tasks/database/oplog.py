"""The oplog of an archive applied to collections that were loaded from it, whatever they are called meanwhile.

Apply it before the indexes are built: in between, documents may break a unique index that the end fits again.
What the oplog says of indexes is gathered in the outcome for whoever builds them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import bson
from pymongo.client_session import ClientSession
from pymongo.errors import OperationFailure

from tasks.database.archive.format import Namespace, split
from tasks.database.archive.metadata import EXACT, CollectionMetadata
from tasks.database.connection import Client
from tasks.database.element import Element, filter_of, id_of, key
from tasks.database.listing import batches
from tasks.database.oplog_entry import Command, Kind, Unfolder, Write, refused
from tasks.database.oplog_update import UnknownUpdateError
from tasks.database.writing import Change, Written, delete, replace

__all__ = ["OplogOutcome", "apply_oplog"]

_BATCH_WRITES = 1000
_BATCH_BYTES = 16 * 1024 * 1024
_UNAUTHORIZED = 13
_OF_NO_MATTER = frozenset({"dbCheck", "startIndexBuild", "abortIndexBuild", "create"})
_INDEX_REMOVALS = frozenset({"dropIndexes", "dropIndex", "deleteIndexes", "deleteIndex"})
_ENTRY_ONLY = frozenset({"createIndexes", "ns", "entryFormat"})


@dataclass(slots=True)
class OplogOutcome:
    """What was applied.  Namespaces are the archive's.

    `elsewhere` counts the writes to collections that were not asked for, `passed_over` the updates of documents
    that were not there, because they were removed later in the interval.
    """

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    passed_over: int = 0
    elsewhere: Counter[Namespace] = field(default_factory=Counter)
    indexes: dict[Namespace, dict[str, dict[str, Any] | None]] = field(default_factory=dict)

    def amended(self, namespace: Namespace, metadata: CollectionMetadata) -> CollectionMetadata:
        """The definition with the indexes that were made and dropped in the interval."""
        return with_indexes(metadata, self.indexes.get(namespace, {}))


def with_indexes(metadata: CollectionMetadata, changes: Mapping[str, dict[str, Any] | None]) -> CollectionMetadata:
    """The definition after indexes were made, by name, or dropped (None)."""
    found = {str(index["name"]): index for index in metadata.indexes}
    for name, index in changes.items():
        found.pop(name, None)
        if index is not None:
            found[name] = index
    return CollectionMetadata(metadata.name, metadata.type, metadata.uuid, metadata.options, tuple(found.values()))


def index_changes(command: Command) -> dict[str, dict[str, Any] | None] | None:
    """The indexes that a command makes, by name, or drops (None in the place of one); None for another command."""
    body = bson.decode(command.body, EXACT)
    if command.name in {"createIndexes", "commitIndexBuild"}:
        # One index is the entry itself, several are a list in it.
        return {
            str(index["name"]): {name: value for name, value in index.items() if name not in _ENTRY_ONLY}
            for index in body.get("indexes", [body])
        }
    if command.name in _INDEX_REMOVALS and isinstance(body.get("index"), str) and body["index"] != "*":
        return {body["index"]: None}
    return None


def apply_oplog(
    client: Client,
    entries: Iterable[bytes],
    names: Mapping[Namespace, Namespace],
    *,
    guard: Callable[[], None] = lambda: None,
    progress: Callable[[int], None] = lambda _entries: None,
) -> OplogOutcome:
    """Apply runs of oplog entries to the collections that `names` has: the archive's name to the one it has now.

    Applying it again, or from the start after a break, does no harm.  `guard` is asked before each batch of up to
    1,000 writes, `progress` gets the entries read so far.

    Raises UnprovenError for what cannot be applied natively (a collection dropped or renamed, its options
    changed, a transaction that began before, an unknown form), and the driver's errors.
    """
    run = _Run(client, names, guard)
    unfolder, read = Unfolder(), 0
    for entries_run in entries:
        for entry in split(entries_run):
            for one in unfolder.feed(entry):
                run.take(one)
            read += 1
        progress(read)
    run.flush()
    return run.outcome


class _Run:
    def __init__(self, client: Client, names: Mapping[Namespace, Namespace], guard: Callable[[], None]) -> None:
        self._client, self._names, self._guard = client, names, guard
        self._databases = {namespace.db for namespace in names}
        self._waiting: dict[Namespace, list[Write]] = {}
        self._count = self._bytes = 0
        self._bypass = True
        self.outcome = OplogOutcome()

    def take(self, one: Write | Command) -> None:
        if isinstance(one, Command):
            self._command(one)
        elif one.namespace not in self._names:
            self.outcome.elsewhere[one.namespace] += 1
        else:
            self._waiting.setdefault(one.namespace, []).append(one)
            self._count += 1
            self._bytes += len(one.change)
            if self._count >= _BATCH_WRITES or self._bytes >= _BATCH_BYTES:
                self.flush()

    def flush(self) -> None:
        """Write what waits: of each document only its last state."""
        waiting, self._waiting, self._count, self._bytes = self._waiting, {}, 0, 0
        with self._client.start_session() as session:
            for namespace, writes in waiting.items():
                self._write(session, namespace, writes)

    def _write(self, session: ClientSession, namespace: Namespace, writes: list[Write]) -> None:
        target = self._names[namespace]
        of_each: dict[object, list[Write]] = {}
        for write in writes:
            of_each.setdefault(key(write.id), []).append(write)
        pending: list[Change] = []
        size = 0
        # Applied as they come and not kept: a thousand of them may be 16 GiB.
        for before in self._present(session, target, [found[0].id for found in of_each.values()]):
            own = of_each.pop(key(id_of(before)), None)
            if own is None:
                continue
            after = self._applied(namespace, own, before)
            if after != before:
                pending.append(Change(own[0].id, after))
                size += len(after or b"")
            if size >= _BATCH_BYTES:
                self._send(target, pending)
                pending, size = [], 0
        for own in of_each.values():
            if (after := self._applied(namespace, own, None)) is not None:
                pending.append(Change(own[0].id, after))
        self._send(target, pending)

    def _applied(self, namespace: Namespace, writes: list[Write], document: bytes | None) -> bytes | None:
        """One document after all the writes to it."""
        try:
            for write in writes:
                document = self._counted(write, document)
        except UnknownUpdateError as problem:
            raise refused(f"An update of {namespace} is not of a form that is known here:", f"{problem}.") from None
        return document

    def _send(self, target: Namespace, changes: list[Change]) -> None:
        self._guard()
        gone = [one.id for one in changes if one.document is None]
        kept = [one for one in changes if one.document is not None]
        for written in (self._replace(target, kept) if kept else None, delete(self._client, target, gone) if gone else None):  # fmt: skip
            if written and written.errors:
                raise OperationFailure("", int(written.errors[0].get("code", 0)), written.errors[0])

    def _replace(self, target: Namespace, changes: list[Change]) -> Written:
        # Documents from before a validator may not fit it; not every user may pass it over.
        try:
            return replace(self._client, target, changes, upsert=True, bypass=self._bypass)
        except OperationFailure as problem:
            if problem.code != _UNAUTHORIZED or not self._bypass:
                raise
            self._bypass = False
            return replace(self._client, target, changes, upsert=True)

    def _present(self, session: ClientSession, target: Namespace, ids: list[Element]) -> Iterator[bytes]:
        find = {"find": target.collection, "filter": filter_of(ids), "batchSize": _BATCH_WRITES}
        with closing(batches(self._client, session, target.db, find)) as source:
            for batch in source:
                yield from split(batch.documents)

    def _counted(self, write: Write, before: bytes | None) -> bytes | None:
        after = write.apply(before)
        if write.kind is Kind.INSERT:
            self.outcome.inserted += 1
        elif write.kind is Kind.DELETE:
            self.outcome.deleted += 1
        elif before is None:
            self.outcome.passed_over += 1
        else:
            self.outcome.updated += 1
        return after

    def _command(self, command: Command) -> None:
        if command.name in _OF_NO_MATTER or not self._concerns(command):
            return
        changes = index_changes(command)
        if changes is not None:
            self.outcome.indexes.setdefault(command.namespace, {}).update(changes)
        elif command.name != "collMod" or bson.decode(command.body, EXACT).keys() > {"collMod"}:
            raise refused(f"{command.name} cannot be applied here:", f"it was done to {command.namespace}.")

    def _concerns(self, command: Command) -> bool:
        if command.name == "dropDatabase":
            return command.database in self._databases
        if command.name == "renameCollection":
            to = str(bson.decode(command.body, EXACT).get("to", ""))
            ends = (command.text, to)
            return any(Namespace(*end.split(".", 1)) in self._names for end in ends if "." in end)
        return command.namespace in self._names
