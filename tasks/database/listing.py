"""What a database holds: collections, views, their options and indexes, asked with plain commands."""

from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

import bson
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.client_session import ClientSession
from pymongo.errors import OperationFailure, PyMongoError

from tasks.database.archive.format import CollectionEntry, Namespace, split
from tasks.database.archive.metadata import EXACT, CollectionMetadata
from tasks.database.batch import Batch, cut
from tasks.database.connection import Client
from tasks.database.scope import skipped_as_system
from tasks.database.server_version import VIEWLESS_TIME_SERIES

Session = ClientSession

BATCH_BYTES = 4 * 1024 * 1024
"""What a batch is asked to hold: enough that asking costs nothing, and small, for several are in memory."""

_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
_NAMESPACE_NOT_FOUND = 26
_FIRST = 101  # Documents that a server gives when it is not told.
_EMPTY = 5  # Bytes of an array without members.


class Collection(NamedTuple):
    """A collection or view to be archived, and where its documents are read (None for a view)."""

    entry: CollectionEntry
    metadata: CollectionMetadata
    data: Namespace | None

    @property
    def namespace(self) -> Namespace:
        """Where the archive's blocks for it are: the data's place, a view's own name."""
        return self.data or self.entry.namespace


def batches(
    client: Client, session: Session, database: str, command: dict[str, Any], *, size: int = BATCH_BYTES
) -> Generator[Batch, None, None]:
    """Run a command that opens a cursor and give its batches raw, about `size` bytes each, never over 16 MiB.

    A server takes no size: as many documents are asked for as made that size in the batch before, in steps
    of a power of two.  Close the generator early (`contextlib.closing`) and the cursor is closed on the server.
    """
    batch = _ask(client, session, database, command)
    asked = _FIRST
    try:
        while True:
            yield batch
            if not batch.cursor:
                return
            # A server gives what is asked for, but never over 16 MiB: then the next is asked for less.
            asked = 1 << max(0, (size * asked // batch.size).bit_length() - 1) if batch.size > _EMPTY else asked
            collection = batch.namespace.removeprefix(f"{database}.")
            more = {"getMore": bson.Int64(batch.cursor), "collection": collection, "batchSize": asked}
            batch = _ask(client, session, database, more)
    except GeneratorExit:
        # Not after an error of the server's: it may be gone, and asking it would only wait.
        if batch.cursor:
            _kill(client, session, database, batch)
        raise


def collections(client: Client, session: Session, database: str, server: tuple[int, ...]) -> list[Collection]:
    """All that mongodump would archive of `database`, in the order of their names (`scope.skipped_as_system`)."""
    found = []
    for raw in _documents(client, session, database, {"listCollections": 1, "cursor": {}}):
        info = bson.decode(raw, EXACT)
        if not skipped_as_system(Namespace(database, info["name"])):
            described = _described(client, session, database, info, server)
            found += [described] if described else []
    return sorted(found, key=lambda collection: collection.entry.namespace)


def identities(client: Client, session: Session, database: str) -> dict[str, tuple[str, bytes]]:
    """UUID and options of each collection by its name: what changes when one is dropped or made anew."""
    return {
        info["name"]: (_uuid(info), bson.encode(info.get("options", {})))
        for raw in _documents(client, session, database, {"listCollections": 1, "cursor": {}})
        for info in (bson.decode(raw, EXACT),)
    }


def _described(
    client: Client, session: Session, database: str, info: dict[str, Any], server: tuple[int, ...]
) -> Collection | None:
    """None for a collection that was dropped since it was listed."""
    name, kind = info["name"], info.get("type", "collection")
    indexes: tuple[dict[str, Any], ...] = ()
    if kind != "view":
        listed = _documents(client, session, database, {"listIndexes": name, "cursor": {}})
        try:
            indexes = tuple(bson.decode(raw, EXACT) for raw in listed)
        except OperationFailure as problem:
            if problem.code != _NAMESPACE_NOT_FOUND:
                raise
            return None
    metadata = CollectionMetadata(name, kind, _uuid(info), info.get("options", {}), indexes)
    namespace = Namespace(database, name)
    data: Namespace | None = namespace
    if kind == "view":
        data = None
    elif kind == "timeseries" and server < VIEWLESS_TIME_SERIES:
        data = Namespace(database, f"system.buckets.{name}")
    return Collection(CollectionEntry(namespace, metadata.encode(), kind), metadata, data)


def _documents(client: Client, session: Session, database: str, command: dict[str, Any]) -> Iterator[bytes]:
    for batch in batches(client, session, database, command):
        yield from split(batch.documents)


def _uuid(info: dict[str, Any]) -> str:
    value = info.get("info", {}).get("uuid")
    return bytes(value).hex() if isinstance(value, bytes) else ""


def _ask(client: Client, session: Session, database: str, command: dict[str, Any]) -> Batch:
    return cut(bytes(client[database].command(command, codec_options=_RAW, session=session).raw))


def _kill(client: Client, session: Session, database: str, batch: Batch) -> None:
    collection = batch.namespace.removeprefix(f"{database}.")
    try:
        client[database].command({"killCursors": collection, "cursors": [bson.Int64(batch.cursor)]}, session=session)
    except PyMongoError:
        return  # The end of the session closes it too; the first error is the one to tell.
