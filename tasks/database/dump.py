"""The native backup: one database, read raw from its primary into a mongodump archive with a manifest."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bson.errors import BSONError
from pydantic import BaseModel, ConfigDict
from pymongo.errors import OperationFailure

from tasks.database.archive.format import Header
from tasks.database.archive.outlet import Outlet
from tasks.database.archive.writer import ArchiveWriter, Written
from tasks.database.batch import ReplyError
from tasks.database.connection import Client, DatabaseFacts, facts
from tasks.database.listing import Collection, Session, batches, collections, identities
from tasks.database.manifest import Manifest, NamespaceRecord, manifest_path, save
from tasks.database.run import DISTRIBUTION, tool_version
from tasks.database.slot import check_room, claim, explain_write
from tasks.domain.errors import NotFoundError, StoppedError, TemporaryError, UnprovenError, UpgradeError, UsageError

# FailedToParse, InvalidOptions, CommandNotSupported, ReadConcernMajorityNotEnabled: a server without it.
_NO_MAJORITY = {9, 72, 115, 148}


@dataclass(frozen=True, slots=True)
class DumpProgress:
    """How far a dump is.  `bytes_expected` is the server's own figure of before the start."""

    collection: str
    collections_done: int
    collections: int
    documents: int
    bytes_read: int
    bytes_expected: int
    bytes_written: int


class BackupEvidence(BaseModel):
    """A backup that is on the disk, not yet proved: its archive, its manifest's file and what it says."""

    model_config = ConfigDict(frozen=True)

    archive: Path
    manifest_file: Path
    manifest: Manifest


def dump(
    client: Client,
    database: str,
    directory: Path,
    *,
    apinizer_version: str,
    progress: Callable[[DumpProgress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    gzip: bool = True,
) -> BackupEvidence:
    """Write a backup of `database` into `directory`.

    Run it inside `open_database`, which turns the driver's errors into this project's.  `stop` is asked
    before each batch (16 MiB at most).  Whatever goes wrong, no file that looks like a backup stays.

    Raises UsageError (not the primary, directory not writable), NotFoundError (no such database),
    BlockedError (no room), TemporaryError (collections were dropped or made anew meanwhile), StoppedError.
    """
    seen = facts(client, database)
    _refuse_unfit(seen, database)
    started = now()
    slot = claim(directory, apinizer_version, started.date())
    try:
        check_room(directory, seen.size, gzip=gzip)
        with client.start_session(causal_consistency=False) as session:
            run = _Run(client, session, database, seen, progress, stop)
            with Outlet(slot.file, gzip=gzip, watch=slot.watch) as outlet:
                run.write(outlet)
                sha256 = outlet.finish()
        ended = now()
        manifest = Manifest(
            archive=slot.archive.name,
            tool_version=tool_version(),
            apinizer_version=apinizer_version,
            server_version=seen.server_version,
            database=database,
            databases=[database],
            started=started,
            ended=ended,
            duration_seconds=round((ended - started).total_seconds(), 3),
            read_concern=run.read_concern,
            gzip=gzip,
            size=outlet.size,
            sha256=sha256,
            namespaces=run.records,
            notes=run.notes,
        )
        # The manifest first: an archive is never seen without it, and a manifest alone is no backup.
        save(slot.archive, manifest)
        slot.publish()
    except OSError as problem:
        slot.discard()
        raise explain_write(problem, directory) from None
    except (ReplyError, BSONError) as problem:
        slot.discard()
        raise UpgradeError(
            f"The server's answer on {database} could not be understood.",
            observed=str(problem),
            safe="Nothing was changed; the unfinished file was removed.",
            next="Take the backup with mongodump.",
        ) from None
    except BaseException:
        slot.discard()
        raise
    return BackupEvidence(archive=slot.archive, manifest_file=manifest_path(slot.archive), manifest=manifest)


class _Run:
    """One pass over the database; afterwards it knows what it wrote and what the server could not give."""

    def __init__(
        self,
        client: Client,
        session: Session,
        database: str,
        seen: DatabaseFacts,
        progress: Callable[[DumpProgress], None],
        stop: Callable[[], bool],
    ) -> None:
        self._client, self._session, self._database = client, session, database
        self._seen, self._progress, self._stop = seen, progress, stop
        self._documents = self._bytes = 0
        self.read_concern = "majority"
        self.records: list[NamespaceRecord] = []
        self.notes: list[str] = []

    def write(self, outlet: Outlet) -> None:
        """Everything into `outlet`, which is left open."""
        server = _numbers(self._seen.server_version)
        before = identities(self._client, self._session, self._database)
        found = collections(self._client, self._session, self._database, server)
        self._note_what_is_odd(found, server)
        self._choose_read_concern(found)
        header = Header(self._seen.server_version, f"{DISTRIBUTION} {tool_version()}")
        writer = ArchiveWriter(outlet, header, [collection.entry for collection in found])
        for done, collection in enumerate(found):
            writer.begin(collection.namespace)
            if collection.data:
                self._copy(collection, writer, outlet, done, len(found))
            self.records.append(_record(collection, writer.end(collection.namespace)))
        writer.close()
        self._compare(before)

    def _copy(self, collection: Collection, writer: ArchiveWriter, outlet: Outlet, done: int, total: int) -> None:
        namespace = collection.namespace
        find = {"find": namespace.collection, "readConcern": {"level": self.read_concern}}
        with closing(batches(self._client, self._session, self._database, find)) as source:
            for batch in source:
                if self._stop():
                    raise StoppedError(
                        "The backup was stopped.",
                        observed=f"{self._documents:,} documents had been read.",
                        safe="Nothing was changed; the unfinished file was removed.",
                    )
                writer.documents(namespace, batch.documents, batch.count)
                self._documents += batch.count
                self._bytes += len(batch.documents)
                self._progress(
                    DumpProgress(
                        collection.entry.namespace.collection, done, total, self._documents, self._bytes,
                        self._seen.size, outlet.size,
                    )
                )  # fmt: skip

    def _note_what_is_odd(self, found: list[Collection], server: tuple[int, ...]) -> None:
        for collection in found:
            if collection.metadata.type == "timeseries" and server >= (8, 3):
                raise UnprovenError(
                    f"The time series {collection.entry.namespace} cannot be read from this server natively.",
                    observed=f"Server {self._seen.server_version} keeps time series without the buckets that the format archives.",
                    next="Take the backup with mongodump.",
                )
            if not collection.metadata.comes_back():
                self.notes.append(
                    f"{collection.entry.namespace}: the archive's extended JSON cannot tell all of its options "
                    "and indexes apart; they come back with the same meaning in another spelling."
                )

    def _choose_read_concern(self, found: list[Collection]) -> None:
        readable = next((collection.data for collection in found if collection.data), None)
        if readable is None:
            return
        probe = {"find": readable.collection, "limit": 1, "singleBatch": True, "readConcern": {"level": "majority"}}
        try:
            self._client[self._database].command(probe, session=self._session)
        except OperationFailure as problem:
            if problem.code not in _NO_MAJORITY:
                raise
            self.read_concern = "local"
            self.notes.append("The server has no read concern majority: documents were read as local.")

    def _compare(self, before: dict[str, tuple[str, bytes]]) -> None:
        """A collection that was dropped reads as an empty one: only a second look can tell."""
        after = identities(self._client, self._session, self._database)
        if changed := sorted(name for name, identity in before.items() if after.get(name) != identity):
            raise TemporaryError(
                f"Collections of {self._database} were dropped or changed while they were read.",
                observed=", ".join(changed),
                safe="Nothing was changed; the unfinished file was removed.",
                next="Try again when nobody changes collections.",
            )
        if new := sorted(after.keys() - before.keys()):
            self.notes.append(f"Made during the backup and not in it: {', '.join(new)}.")


def _refuse_unfit(seen: DatabaseFacts, database: str) -> None:
    if not seen.is_primary:
        raise UsageError(
            "The database server that was reached is not the primary.",
            observed=f"Replica set {seen.set_name or 'unnamed'}.",
            next="Name the primary, or the whole replica set without directConnection.",
        )
    if not seen.exists:
        raise NotFoundError(
            f"The server has no database {database}.",
            next="Check the database's name (dbName in the secret mongo-db-credentials, usually apinizerdb).",
        )


def _record(collection: Collection, written: Written) -> NamespaceRecord:
    return NamespaceRecord(
        db=collection.entry.namespace.db,
        collection=collection.entry.namespace.collection,
        data=collection.namespace.collection,
        type=collection.entry.type,
        documents=written.documents,
        bytes=written.bytes,
        crc64=f"{written.crc:016x}",
        indexes=[str(index["name"]) for index in collection.metadata.indexes],
    )


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split("-", maxsplit=1)[0].split(".")
    return tuple(int(part) for part in parts if part.isdecimal())
