"""What mongodump writes, on its way to the disk: compressed where it is not yet, hashed, and read whole."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import bson

from tasks.database.archive.format import CollectionEntry, FormatError, Namespace, split
from tasks.database.archive.inlet import Inlet
from tasks.database.archive.metadata import decode
from tasks.database.archive.outlet import Outlet
from tasks.database.archive.reader import ArchiveReader, Documents, NamespaceEnd, Prelude
from tasks.database.dump import DumpProgress
from tasks.database.manifest import NamespaceRecord, OplogRecord
from tasks.database.scope import Scope
from tasks.database.slot import Slot
from tasks.database.tools.address import Address, config
from tasks.database.tools.failure import Ended, explain
from tasks.database.tools.find import Tool
from tasks.database.tools.job import Job
from tasks.database.tools.standing import Standing
from tasks.domain.errors import NotFoundError, StoppedError, TemporaryError, UpgradeError

OPLOG = Namespace("", "oplog")
REMOVED = "Nothing was changed; the unfinished file was removed."


class _Stream:
    """The job's output as a file to read, every byte of which goes to the disk first."""

    def __init__(self, pieces: Iterator[bytes], outlet: Outlet) -> None:
        self._pieces, self._outlet = pieces, outlet
        self._rest = b""
        self.size = 0

    def read(self, count: int = -1, /) -> bytes:
        if not self._rest:
            self._rest = next(self._pieces, b"")
            self.size += len(self._rest)
            if self._rest:
                self._outlet.write(self._rest)
        if count < 0:
            count = len(self._rest)
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken


@dataclass(slots=True)
class _Count:
    documents: int = 0
    bytes: int = 0
    done: int = 0
    current: str = ""
    ends: dict[Namespace, NamespaceEnd] = field(default_factory=dict)


class Taking:
    """One run of mongodump; afterwards it knows what came."""

    def __init__(
        self,
        tool: Tool,
        address: Address,
        seen: Standing | None,
        *,
        gzip: bool,
        progress: Callable[[DumpProgress], None],
        stop: Callable[[], bool],
    ) -> None:
        self.tool, self.address, self.seen = tool, address, seen
        self._gzip, self._progress, self._stop = gzip, progress, stop
        self._count = _Count()
        self._prelude: Prelude | None = None
        self.oplog: OplogRecord | None = None
        self.records: list[NamespaceRecord] = []
        self.sha256, self.size = "", 0

    @property
    def server_version(self) -> str:
        """As the archive has it, which is what a proof is held against."""
        return self._prelude.header.server_version if self._prelude else "unknown"

    def run(self, command: list[str], slot: Slot) -> None:
        """Everything into the slot's file, synced."""
        settings = config(self.address, set_name=self.seen.primary.set_name if self.seen else "")
        broken: FormatError | None = None
        with (
            Outlet(slot.file, gzip=self._gzip and not self.tool.ssh, watch=slot.watch) as outlet,
            Job(command, config=settings, ssh=self.tool.ssh, tick=self._tick) as job,
        ):
            stream = _Stream(job.pieces(), outlet)
            try:
                self._read(stream, outlet)
            except FormatError as problem:
                # A tool that failed left its output unfinished: why it failed is the thing to tell.
                broken = problem
                while stream.read():
                    pass
            code = job.finish()
            if code or broken:
                raise self._explain(code, list(job.lines), broken)
            self.sha256 = outlet.finish()
            self.size = outlet.size

    def refuse_incomplete(self, scope: Scope) -> None:
        """Raises NotFoundError for a database that has nothing: mongodump ends well, with an archive of nothing."""
        for database in scope.databases:
            if not any(record.db == database for record in self.records):
                raise NotFoundError(
                    f"mongodump found no collection of the database {database}.",
                    safe=REMOVED,
                    next="Check the database's name (dbName in the secret mongo-db-credentials, usually apinizerdb).",
                )

    def _tick(self) -> None:
        if self._stop():
            raise StoppedError(
                "The backup was stopped.",
                observed=f"{self._count.documents:,} documents had been read; mongodump was ended.",
                safe=REMOVED,
            )

    def _read(self, stream: _Stream, outlet: Outlet) -> None:
        reader = ArchiveReader(Inlet(stream).pieces())  # type: ignore[arg-type]  # it only reads
        self._prelude = reader.prelude()
        first = last = None
        for block in reader.blocks():
            if isinstance(block, Documents):
                self._count.documents += block.count
                self._count.bytes += len(block.data)
                self._count.current = str(block.namespace)
                if block.namespace == OPLOG:
                    entries = split(block.data)
                    first, last = first or _timestamp(entries[0]), _timestamp(entries[-1])
            else:
                self._count.ends[block.namespace] = block
                self._count.done += 1
            self._report(outlet)
        self.records = [self._record(entry) for entry in self._prelude.entries]
        if first and last:
            self.oplog = OplogRecord(first=first, last=last, documents=self._count.ends[OPLOG].documents)

    def _report(self, outlet: Outlet) -> None:
        self._progress(
            DumpProgress(
                collection=self._count.current.partition(".")[2],
                collections_done=self._count.done,
                collections=len(self._prelude.entries) if self._prelude else 0,
                documents=self._count.documents,
                bytes_read=self._count.bytes,
                bytes_expected=self.seen.size if self.seen else 0,
                bytes_written=outlet.size,
            )
        )

    def _record(self, entry: CollectionEntry) -> NamespaceRecord:
        end = next(self._count.ends[name] for name in entry.data_namespaces if name in self._count.ends)
        indexes = decode(entry.metadata).indexes if entry.metadata else ()
        return NamespaceRecord(
            db=entry.namespace.db,
            collection=entry.namespace.collection,
            data=end.namespace.collection,
            type=entry.type,
            documents=end.documents,
            bytes=end.bytes,
            crc64=f"{end.crc:016x}",
            indexes=[str(index["name"]) for index in indexes],
        )

    def _explain(self, code: int, lines: list[str], broken: FormatError | None) -> UpgradeError:
        if code:
            hosts = self.address.hosts
            ended = Ended(self.tool.program, code, lines, hosts, self.tool.ssh, self.address.secrets)
            return explain(ended, safe=REMOVED)
        return TemporaryError(
            "What mongodump wrote is not a whole archive, though it ended well.",
            observed=f"{broken}.",
            safe=REMOVED,
            next="Try again, or use --engine native.",
        )


def _timestamp(entry: bytes) -> tuple[int, int]:
    moment = bson.decode(entry)["ts"]
    return moment.time, moment.inc
