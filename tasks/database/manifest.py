"""What is known of a backup, in a JSON file beside its archive."""

import json
import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from tasks.database.naming import ARCHIVE, MANIFEST
from tasks.domain.errors import DamagedArchiveError
from tasks.record.unfinished_file import sync_directory

FORMAT: Final = "apinizer-upgrade/backup-manifest/1"


class NamespaceRecord(BaseModel):
    """What one namespace of the archive holds; `crc64` is hexadecimal, `data` is where its documents are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    db: str
    collection: str
    data: str
    type: str
    documents: int
    bytes: int
    crc64: str
    indexes: list[str]


class ProofRecord(BaseModel):
    """The archive was read back whole at this time and held all that the manifest says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    proved_at: datetime
    tool_version: str
    sha256: str
    documents: int
    bytes: int
    indexes: int


class SourceRecord(BaseModel):
    """Which server the archive is from: its `host:port`s, and the replica set's name and id where it has them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hosts: list[str]
    set_name: str = ""
    set_id: str = ""


class OplogRecord(BaseModel):
    """The oplog in the archive: its first and last entry's timestamp (seconds, increment) and how many there are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: tuple[int, int]
    last: tuple[int, int]
    documents: int


class RehearsalRecord(BaseModel):
    """The archive was restored into a scratch database and every collection was equal there.

    `unproven` are sentences on what that server could not try.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rehearsed_at: datetime
    tool_version: str
    server_version: str
    sha256: str
    collections: int
    documents: int
    unproven: list[str] = []


class Need(BaseModel):
    """A run that relies on the backup until it has ended completely: nothing removes the backup before.

    `hosts` are the `host:port`s of the server whose `database` it writes, `version` what an upgrade goes to,
    `archive` the file that a restore puts back.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: Literal["upgrade", "restore"]
    database: str
    hosts: str
    since: datetime
    version: str = ""
    archive: str = ""

    def of_same(self, other: "Need") -> bool:
        """Whether it is the same undertaking, begun another time."""
        return self.model_copy(update={"since": other.since}) == other

    def is_of(self, database: str, hosts: Iterable[str]) -> bool:
        """Whether it is of that database of those `host:port`s, in whatever order they are named."""
        return self.database == database and set(self.hosts.split(",")) == set(hosts)

    @property
    def sentence(self) -> str:
        """For people: what has not ended, and since when."""
        what = f"upgrade to {self.version}" if self.run == "upgrade" else f"restore of {self.archive}"
        return f"the {what} of {self.since:%Y-%m-%d}, which has not ended"


class Manifest(BaseModel):
    """The manifest.  Sizes are bytes, durations seconds, times carry their zone.

    `database` is the Apinizer database's name, `databases` what was asked for (none: the whole server),
    `left_out` the collections that were left out on purpose, `host` the machine that the archive is on.

    `needed_by` are runs that have not ended and rely on it.  `point_in_time` is true only when the archive is one moment of the server: with the oplog of the interval
    in it.  `notes` are sentences on what the server could not give.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["apinizer-upgrade/backup-manifest/1"] = FORMAT
    archive: str
    host: str = ""
    source: SourceRecord | None = None
    engine: Literal["native", "mongodump"] = "native"
    tool_version: str
    apinizer_version: str
    server_version: str
    database: str
    databases: list[str] = []
    left_out: list[str] = []
    collections_asked: Literal["all", "some"] = "all"
    started: datetime
    ended: datetime
    duration_seconds: float
    point_in_time: bool = False
    oplog: OplogRecord | None = None
    read_concern: str
    gzip: bool
    size: int
    sha256: str
    namespaces: list[NamespaceRecord]
    notes: list[str] = []
    proof: ProofRecord | None = None
    rehearsal: RehearsalRecord | None = None
    needed_by: list[Need] = []

    @model_validator(mode="before")
    @classmethod
    def _of_one_database(cls, fields: Any) -> Any:
        # Manifests of before there was a choice: they are of their one database.
        if isinstance(fields, dict) and "databases" not in fields and isinstance(fields.get("database"), str):
            return {**fields, "databases": [fields["database"]]}
        return fields

    def holds_all_of(self, database: str) -> bool:
        """Whether every collection of `database` was asked for: what is missing here was not there then."""
        left_out = any(name.startswith(f"{database}.") for name in self.left_out)
        return not left_out and (database in self.databases if self.databases else database not in {"local", "config"})

    def stands_for(self, older: "Manifest") -> bool:
        """Whether this backup is of the same server and holds whatever `older` was to hold, so that it can replace it."""
        covered = not self.databases or (bool(older.databases) and set(older.databases) <= set(self.databases))
        return covered and set(self.left_out) <= set(older.left_out) and _same_server(self.source, older.source)

    @property
    def documents(self) -> int:
        """All documents of all namespaces."""
        return sum(namespace.documents for namespace in self.namespaces)

    @property
    def bytes(self) -> int:
        """All documents' bytes, before compression."""
        return sum(namespace.bytes for namespace in self.namespaces)


def _same_server(one: SourceRecord | None, other: SourceRecord | None) -> bool:
    # Two that do not say where they are from may be of two servers; only the database's name is then left to go by.
    if one is None or other is None:
        return one is other
    if one.set_id and other.set_id:
        return one.set_id == other.set_id
    return one.set_name == other.set_name and not set(one.hosts).isdisjoint(other.hosts)


def manifest_path(archive: Path) -> Path:
    """Where the manifest of `archive` is: the archive's name with `.json` behind it."""
    return archive.with_name(archive.name + MANIFEST.removeprefix(ARCHIVE))


def load(archive: Path) -> Manifest | None:
    """The manifest beside `archive`, None where there is none.  Raises DamagedArchiveError when it is unreadable."""
    path = manifest_path(archive)
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as problem:
        raise DamagedArchiveError(
            f"The manifest {path.name} is damaged.",
            observed="; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in problem.errors()[:3]),
            safe="Nothing was changed; the archive beside it was not touched.",
            next="Take another backup, or move the manifest away to have the archive judged by itself.",
        ) from None


def save(archive: Path, manifest: Manifest) -> Path:
    """Write the manifest beside `archive`, whole or not at all, readable by its owner only."""
    path = manifest_path(archive)
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    partial = path.with_name(f".{path.name}.partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_directory(path.parent)
    return path
