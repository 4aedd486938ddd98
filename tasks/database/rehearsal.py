"""A backup rehearsed: restored into a scratch database, compared there with the archive, and dropped again.

It proves what reading the archive cannot: that a server takes the definitions and gives the documents back.
What this server does not know (an index type, an option) is named and left out, and the rest is tried all the same.
"""

import glob
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from pymongo.errors import OperationFailure, PyMongoError

from tasks.database import writing
from tasks.database.archive.format import Namespace, split
from tasks.database.archive.metadata import CollectionMetadata
from tasks.database.connection import Client, explain
from tasks.database.fingerprint import read_content
from tasks.database.holdings import Contents, documents_of, read_contents
from tasks.database.listing import collections
from tasks.database.manifest import RehearsalRecord, load, save
from tasks.database.restore.definition import (
    expires,
    index_differences,
    indexes_for_create,
    option_differences,
    options_for_create,
)
from tasks.database.restore.names import is_own
from tasks.database.restore.patience import hosts_of
from tasks.database.restore.run import RestoreProgress, RestoreRequest, restore
from tasks.database.run import tool_version
from tasks.database.scratch import MARK, empty, refuse_unfit
from tasks.database.trial import Refused, try_definitions
from tasks.domain.errors import UnprovenError, UpgradeError

SCRATCH = "apinizer_rehearsal"
"""The scratch database where none is named."""

_SAFE = "The backup and every database but the scratch one were left as they are."


class Rehearsal(BaseModel):
    """A rehearsal that went well.

    `recorded`: the manifest beside the archive now says so (there is one).  `unproven` are sentences on what this
    server could not try, `notes` on what came back otherwise than byte for byte, and why.
    """

    model_config = ConfigDict(frozen=True)

    archive: Path
    record: RehearsalRecord
    recorded: bool
    unproven: list[str]
    notes: list[str]


def rehearse(
    archive: Path,
    client: Client,
    *,
    scratch: str = SCRATCH,
    progress: Callable[[RestoreProgress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Rehearsal:
    """Restore each database of `archive` into the database `scratch` of the client's server and compare.

    Compared for every collection: documents by count and fingerprint, indexes, options, a view's definition.  The
    server may be the one the backup is from or another; `scratch` must be empty there and is dropped at the end,
    whatever happens.  Success is recorded in the manifest, where there is one.

    Raises UsageError and BlockedError for a scratch database that will not do, UnprovenError when something came
    back otherwise, and what `restore` raises; nothing but the scratch database is written.
    """
    with _told(client):
        contents = read_contents(archive, stop=stop)
        refuse_unfit(client, scratch, contents.databases)
        unproven, notes, odd, collections_tried, documents = [], list[str](), list[str](), 0, 0
        for database in contents.databases:
            with empty(client, scratch, notes):
                part = _Part(client, archive, contents, database, scratch)
                unproven += part.try_out()
                notes += part.restore(progress, stop, now)
                odd += part.differences(stop)
                collections_tried += part.count
                documents += part.documents
        if odd:
            raise UnprovenError(
                f"The backup {archive.name} did not come back as it was.",
                observed="\n".join(odd),
                next="Do not rely on this backup with this server; see what differs, take another backup.",
            )
        record = RehearsalRecord(
            rehearsed_at=now(),
            tool_version=tool_version(),
            server_version=str(client.admin.command("buildInfo")["version"]),
            sha256=contents.sha256,
            collections=collections_tried,
            documents=documents,
            unproven=unproven,
        )
        recorded = _recorded(archive, record)
        return Rehearsal(archive=archive, record=record, recorded=recorded, unproven=unproven, notes=notes)


class _Part:
    """One database of the archive in the scratch database."""

    def __init__(self, client: Client, archive: Path, contents: Contents, database: str, scratch: str) -> None:
        self._client, self._archive, self._contents = client, archive, contents
        self._database, self._scratch = database, scratch
        self._definitions = {n: d for n, d in contents.definitions.items() if n.db == database}
        self._refused: dict[str, Refused] = {}
        self.count = self.documents = 0

    def try_out(self) -> list[str]:
        """What the server will not take, in sentences."""
        self._refused = try_definitions(self._client, self._scratch, self._definitions.values())
        lines = [
            line for name, refused in self._refused.items() for line in refused.lines(Namespace(self._database, name))
        ]
        return [f"This server could not try {line}" for line in lines]

    def restore(
        self, progress: Callable[[RestoreProgress], None], stop: Callable[[], bool], now: Callable[[], datetime]
    ) -> list[str]:
        """Through the restore's own engine; what the server refuses something of, plainly.  Notes come back."""
        notes: list[str] = []
        if len(self._refused) < len(self._definitions):
            request = RestoreRequest(
                database=self._scratch,
                source_database=self._database,
                exclude=tuple(glob.escape(name) for name in self._refused),
                other_installation=True,
            )
            evidence = restore(self._client, self._archive, request, progress=progress, stop=stop, now=now)
            if evidence.sha256 != self._contents.sha256:
                raise UnprovenError(
                    f"The archive {self._archive.name} changed while it was rehearsed.",
                    observed=f"SHA-256 {self._contents.sha256[:12]}…, then {evidence.sha256[:12]}…",
                    next="See who writes to it; rehearse it again.",
                )
            notes = [f"{self._database}: {note}" for note in evidence.notes if not note.startswith(_OF_NO_INTEREST)]
        self._load_plainly(stop)
        return notes

    def _load_plainly(self, stop: Callable[[], bool]) -> None:
        """What the server refuses something of: made without that, so that its documents are tried."""
        database = self._client[self._scratch]
        definitions = {name: self._definitions[Namespace(self._database, name)] for name in self._refused}
        for name, definition in definitions.items():
            options = {} if self._refused[name].options else options_for_create(definition.options)
            database.command({"create": name, **options})
        wanted = {Namespace(self._database, name) for name in self._refused}
        for block in documents_of(self._archive, wanted, stop=stop) if wanted else ():
            if not block.count:
                continue
            name = block.namespace.collection
            bypass = "validator" in definitions[name].options and not self._refused[name].options
            written = writing.insert(self._client, Namespace(self._scratch, name), split(block.data), bypass=bypass)
            if written.errors:
                raise OperationFailure("", int(written.errors[0].get("code", 0)), written.errors[0])
        for name, definition in definitions.items():
            left_out = {index for index, _ in self._refused[name].indexes}
            indexes = [one for one in indexes_for_create(definition.indexes) if one["name"] not in left_out]
            if indexes:
                database.command({"createIndexes": name, "indexes": indexes})

    def differences(self, stop: Callable[[], bool]) -> list[str]:
        """A line for whatever is not as the archive has it."""
        version = tuple(self._client.admin.command("buildInfo")["versionArray"][:2])
        with self._client.start_session() as session:
            listed = collections(self._client, session, self._scratch, version)
        found = {one.metadata.name: one.metadata for one in listed if one.metadata.name != MARK}
        lines = [f"{name} is not in the archive." for name in found if Namespace(self._database, name) not in self._definitions and not is_own(name)]  # fmt: skip
        for namespace, wanted in self._definitions.items():
            if is_own(namespace.collection):
                continue
            got = found.get(namespace.collection)
            if got is None:
                lines.append(f"{namespace} is missing.")
                continue
            self.count += 1
            lines += [f"{namespace}: {line}" for line in self._structure(wanted, got)]
            if "viewOn" not in wanted.options and "timeseries" not in wanted.options:
                lines += self._content(namespace, wanted, stop)
        return lines

    def _structure(self, wanted: CollectionMetadata, got: CollectionMetadata) -> Iterator[str]:
        refused = self._refused.get(wanted.name, Refused())
        left_out = {name for name, _ in refused.indexes}
        yield from index_differences([i for i in wanted.indexes if i["name"] not in left_out], got.indexes)
        if not refused.options and (odd := option_differences(wanted.options, got.options)):
            yield f"the options {', '.join(odd)} differ."

    def _content(self, namespace: Namespace, wanted: CollectionMetadata, stop: Callable[[], bool]) -> Iterator[str]:
        expected = self._contents.fingerprints[namespace]
        got = read_content(self._client, self._scratch, namespace.collection, stop=stop)
        self.documents += got.documents
        # Compared by the restore itself: before the server removes what is past its time, after the oplog.
        if namespace in self._contents.replayed or (expires(wanted) and got.documents < expected.documents):
            return
        if got != expected:
            yield (
                f"{namespace}: {got.documents:,} documents, fingerprint {got.value}, came back; "
                f"the archive holds {expected.documents:,}, {expected.value}."
            )


_OF_NO_INTEREST = (
    "Not in the archive, left",
    "Other databases of the archive",
    "In the archive, not restored",
    "Users and roles of the archive",
    "Writes of others ",
)
"""How sentences begin that every restore tells and that say nothing about a scratch database."""


@contextmanager
def _told(client: Client) -> Iterator[None]:
    try:
        yield
    except PyMongoError as problem:
        raise explain(problem, hosts_of(client)).with_safe(_SAFE) from None
    except UpgradeError as error:
        raise error.with_safe(_SAFE) from None


def _recorded(archive: Path, record: RehearsalRecord) -> bool:
    """Write the record into the manifest, if there is one and it is of the file that was rehearsed."""
    manifest = load(archive)
    if manifest is None or manifest.sha256 != record.sha256:
        return False
    save(archive, manifest.model_copy(update={"rehearsal": record}))
    return True
