"""One pass over what a backup takes: a look, the documents, the oplog, and a second look at what changed."""

from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

from bson.timestamp import Timestamp
from pymongo.errors import OperationFailure

from tasks.database import oplog_interval, survey
from tasks.database.archive.format import Header, Namespace
from tasks.database.archive.writer import ArchiveWriter, Sink, Written
from tasks.database.batch import Batch
from tasks.database.connection import Client
from tasks.database.listing import Collection, Session
from tasks.database.manifest import NamespaceRecord, OplogRecord
from tasks.database.primary import Primary
from tasks.database.readers import read_all
from tasks.database.restore.names import is_own
from tasks.database.run import DISTRIBUTION, tool_version
from tasks.database.scope import Scope
from tasks.database.server_version import VIEWLESS_TIME_SERIES
from tasks.domain.errors import StoppedError, UnprovenError

_LOOKS = 3


class Watcher(NamedTuple):
    """`stop` is asked before each batch, `told(collection)` called after it."""

    stop: Callable[[], bool]
    told: Callable[[str], None]


class Pass:
    """One pass; afterwards it knows what it wrote and what the server could not give."""

    def __init__(self, client: Client, session: Session, scope: Scope, seen: Primary) -> None:
        self._client, self._session, self._scope, self._seen = client, session, scope, seen
        self._since: Timestamp | None = None
        self._there: list[Collection] = []
        self.taken: list[Collection] = []
        """What is archived, in the order of names."""
        self.left_out: list[str] = []
        self.expected = self.done = self.documents = self.bytes = 0
        self.read_concern = "majority"
        self.records: list[NamespaceRecord] = []
        self.notes: list[str] = []
        self.oplog: OplogRecord | None = None
        self._sizes: dict[Namespace, int] = {}

    def prepare(self) -> None:
        """Look at everything before anything is read.  Raises NotFoundError, ForbiddenError, UnprovenError."""
        self._look_and_begin_interval()
        survey.check_there(self._scope, self._there)
        self.taken = self._wanted(self._there)
        if restored := [
            str(found.entry.namespace) for found in self._there if is_own(found.entry.namespace.collection)
        ]:
            self.notes.append(
                f"Not in the archive, for an unfinished restore made them for itself: {', '.join(restored)}."
            )
        self.left_out = self._scope.left_out_of(found.entry.namespace for found in self._there)
        if self.left_out:
            self.notes.append(f"Left out as asked for, and not in the archive: {', '.join(self.left_out)}.")
        if idle := self._scope.idle(found.entry.namespace for found in self._there):
            self.notes.append(f"To be left out, but not there: {', '.join(idle)}. Check the spelling.")
        for collection in self.taken:
            self._note_what_is_odd(collection)
        self.read_concern = survey.check_readable(self._client, self._session, self.taken)
        if self.read_concern != "majority":
            self.notes.append("The server has no read concern majority: documents were read as local.")
        self._sizes = survey.sizes(self._client, self._session, self.taken)
        self.expected = sum(self._sizes.values())

    def write(self, sink: Sink, parallel: int, watcher: Watcher) -> None:
        """Everything into `sink`, up to `parallel` collections at once, the largest first."""
        parallel = max(1, min(parallel, len(self._sizes)))
        header = Header(self._seen.server_version, f"{DISTRIBUTION} {tool_version()}", parallel)
        entries = [collection.entry for collection in self.taken]
        writer = ArchiveWriter(sink, header, [*entries, *([oplog_interval.ENTRY] if self._since else [])])
        ended: dict[Namespace, Written] = {}
        for collection in self.taken:
            if collection.data is None:
                writer.begin(collection.namespace)
                ended[collection.namespace] = writer.end(collection.namespace)
        self.done = len(ended)
        self._copy(writer, ended, parallel, watcher)
        self.records = [_record(collection, ended[collection.namespace]) for collection in self.taken]
        if self._since:
            self._copy_oplog(writer, self._since, watcher)
        writer.close()
        self._look_again()

    def _copy(self, writer: ArchiveWriter, ended: dict[Namespace, Written], parallel: int, watcher: Watcher) -> None:
        largest_first = sorted(
            (found for found in self.taken if found.data), key=lambda found: -self._sizes[found.namespace]
        )
        begun: set[Namespace] = set()
        reading = read_all(
            self._client, largest_first, concern=self.read_concern, count=parallel, idle=lambda: self._ask(watcher)
        )
        with closing(reading):
            for collection, batch in reading:
                namespace = collection.namespace
                if namespace not in begun:
                    begun.add(namespace)
                    writer.begin(namespace)
                if batch is None:
                    ended[namespace] = writer.end(namespace)
                    self.done += 1
                else:
                    self._take(writer, namespace, batch, watcher)
                    watcher.told(collection.entry.namespace.collection)

    def _copy_oplog(self, writer: ArchiveWriter, since: Timestamp, watcher: Watcher) -> None:
        namespace = oplog_interval.OPLOG
        writer.begin(namespace)

        def write(batch: Batch) -> None:
            self._take(writer, namespace, batch, watcher)
            watcher.told(namespace.collection)

        self.oplog = oplog_interval.copy(self._client, self._session, since, write)
        self.records.append(_recorded(namespace, namespace, "", writer.end(namespace), []))

    def _take(self, writer: ArchiveWriter, namespace: Namespace, batch: Batch, watcher: Watcher) -> None:
        self._ask(watcher)
        writer.documents(namespace, batch.documents, batch.count)
        self.documents += batch.count
        self.bytes += len(batch.documents)

    def _ask(self, watcher: Watcher) -> None:
        if watcher.stop():
            raise StoppedError(
                "The backup was stopped.",
                observed=f"{self.documents:,} documents had been read.",
                safe="Nothing was changed; the unfinished file was removed.",
            )

    def _wanted(self, there: list[Collection]) -> list[Collection]:
        names = ((found, found.entry.namespace) for found in there)
        return [found for found, name in names if self._scope.takes(name) and not is_own(name.collection)]

    def _look(self) -> list[Collection]:
        return survey.look(self._client, self._session, self._scope, self._seen.numbers)

    def _look_and_begin_interval(self) -> None:
        """What is there, and an oplog's start at which nothing else was there: else the archive would have a gap."""
        self._there = self._look()
        for _ in range(_LOOKS):
            self._since = self._interval()
            if self._since is None:
                return
            before, self._there = self._there, self._look()
            if [found.entry for found in before] == [found.entry for found in self._there]:
                return
        self._since = None
        self.notes.append("Not one point in time: collections were made and changed all the while.")

    def _interval(self) -> Timestamp | None:
        why = ""
        since = None
        if not self._scope.whole_server:
            why = "the oplog belongs to backups of the whole server only"
        elif self._scope.left_out:
            why = "collections were left out, whose entries the oplog has"
        elif self._seen.router:
            why = "a mongos has no oplog"
        else:
            try:
                since = oplog_interval.start(self._client, self._session)
                why = "" if since else "the server has no oplog, for it is no replica set"
            except OperationFailure as problem:
                why = f"the server did not show its oplog (code {problem.code})"
        if why:
            self.notes.append(f"Not one point in time: {why}.")
        return since

    def _note_what_is_odd(self, collection: Collection) -> None:
        if collection.metadata.type == "timeseries" and self._seen.numbers >= VIEWLESS_TIME_SERIES:
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

    def _look_again(self) -> None:
        if new := survey.check_same(self.taken, self._wanted(self._look())):
            where = "in its oplog only" if self.oplog else "not in it"
            self.notes.append(f"Made during the backup and {where}: {', '.join(new)}.")


def _record(collection: Collection, written: Written) -> NamespaceRecord:
    names = [str(index["name"]) for index in collection.metadata.indexes]
    return _recorded(collection.entry.namespace, collection.namespace, collection.entry.type, written, names)


def _recorded(
    namespace: Namespace, data: Namespace, kind: str, written: Written, indexes: list[str]
) -> NamespaceRecord:
    return NamespaceRecord(
        db=namespace.db,
        collection=namespace.collection,
        data=data.collection,
        type=kind,
        documents=written.documents,
        bytes=written.bytes,
        crc64=f"{written.crc:016x}",
        indexes=indexes,
    )
