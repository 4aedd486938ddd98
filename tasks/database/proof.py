"""The proof of a backup: its archive read back whole, held against its own checksums and its manifest."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tasks.database.archive.format import CollectionEntry, FormatError, Namespace, UnknownFormatError
from tasks.database.archive.inlet import Inlet
from tasks.database.archive.metadata import decode
from tasks.database.archive.reader import ArchiveReader, NamespaceEnd, Prelude
from tasks.database.manifest import Manifest, NamespaceRecord, ProofRecord, load, save
from tasks.database.run import tool_version
from tasks.domain.errors import DamagedArchiveError, NotFoundError, StoppedError, UnprovenError, UsageError


class Proof(BaseModel):
    """What was proved of an archive.  `unproven` are sentences on what its bytes alone cannot show."""

    model_config = ConfigDict(frozen=True)

    archive: Path
    proved_at: datetime
    size: int
    sha256: str
    gzip: bool
    server_version: str
    written_by: str
    namespaces: list[NamespaceRecord]
    documents: int
    bytes: int
    indexes: int
    against_manifest: bool
    unproven: list[str]


def prove(
    path: Path,
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    stop: Callable[[], bool] = lambda: False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Proof:
    """Read the archive at `path` whole and record the proof in its manifest.

    Checked: the gzip stream, every length, header and terminator, the CRC-64 of every namespace, that each
    announced one is there, every metadata document; and against the manifest the size, the SHA-256 and, for
    each namespace, documents, bytes, checksum and index names.  `progress` gets file bytes done and in all.

    Raises DamagedArchiveError, NotFoundError, UsageError (a directory, no right to read), StoppedError.
    """
    manifest = _find(path)
    try:
        with path.open("rb") as file:
            inlet = Inlet(file)
            prelude, ends = _read(inlet, path.stat().st_size, progress, stop)
        records = _records(prelude, ends)
    except UnknownFormatError as problem:
        raise UnprovenError(
            f"The archive {path.name} is of a format that is not known here.",
            observed=f"{problem}.",
            next="Verify and restore it with the tool that wrote it, or with a newer version of this one.",
        ) from None
    except FormatError as problem:
        raise _damaged(path, f"{problem}.") from None
    except OSError as problem:
        raise UnprovenError(
            f"{path.name} could not be read.",
            observed=problem.strerror or type(problem).__name__,
            next="Look at the disk that holds it; take another backup.",
        ) from None
    proof = Proof(
        archive=path,
        proved_at=now(),
        size=inlet.size,
        sha256=inlet.sha256,
        gzip=inlet.gzip,
        server_version=prelude.header.server_version,
        written_by=prelude.header.tool_version,
        namespaces=records,
        documents=sum(record.documents for record in records),
        bytes=sum(record.bytes for record in records),
        indexes=sum(len(record.indexes) for record in records),
        against_manifest=manifest is not None,
        unproven=[] if manifest else _unproven(gzip=inlet.gzip),
    )
    if manifest:
        if differences := _differences(proof, manifest):
            raise _damaged(path, "\n".join(differences))
        save(path, manifest.model_copy(update={"proof": _record(proof)}))
    return proof


def _find(path: Path) -> Manifest | None:
    if path.is_dir():
        raise UsageError(f"{path} is a directory, not an archive.", next="Name the .archive file in it.")
    try:
        with path.open("rb"):
            return load(path)
    except FileNotFoundError:
        raise NotFoundError(f"There is no archive {path}.", next="Check the path.") from None
    except PermissionError:
        raise UsageError(f"{path} may not be read by this user.", next="Run as the user who made the backup.") from None


def _read(
    inlet: Inlet, total: int, progress: Callable[[int, int], None], stop: Callable[[], bool]
) -> tuple[Prelude, list[NamespaceEnd]]:
    reader = ArchiveReader(inlet.pieces())
    prelude = reader.prelude()
    ends = []
    for block in reader.blocks():
        if isinstance(block, NamespaceEnd):
            ends.append(block)
        progress(inlet.size, total)
        if stop():
            raise StoppedError("The proof was stopped.", observed=f"{inlet.size:,} of {total:,} bytes were read.")
    return prelude, ends


def _records(prelude: Prelude, ends: list[NamespaceEnd]) -> list[NamespaceRecord]:
    """What the archive itself says, in the manifest's form; raises FormatError for metadata that is none."""
    by_namespace = {end.namespace: end for end in ends}
    return [
        _found(entry, next(by_namespace[n] for n in entry.data_namespaces if n in by_namespace))
        for entry in prelude.entries
    ]


def _found(entry: CollectionEntry, end: NamespaceEnd) -> NamespaceRecord:
    return NamespaceRecord(
        db=entry.namespace.db,
        collection=entry.namespace.collection,
        data=end.namespace.collection,
        type=entry.type,
        documents=end.documents,
        bytes=end.bytes,
        crc64=f"{end.crc:016x}",
        indexes=_index_names(entry),
    )


def _index_names(entry: CollectionEntry) -> list[str]:
    # Users, roles and the oplog have no metadata.
    if not entry.metadata:
        return []
    try:
        metadata = decode(entry.metadata)
    except FormatError as problem:
        raise FormatError(f"{entry.namespace}: {problem}") from problem
    if metadata.name not in {"", entry.namespace.collection}:
        raise FormatError(f"{entry.namespace}: the metadata is that of {metadata.name!r}")
    return [str(index["name"]) for index in metadata.indexes]


def _differences(proof: Proof, manifest: Manifest) -> list[str]:
    lines = [
        f"{what}: the manifest says {wanted}, the archive is {found}."
        for what, wanted, found in (
            ("Size", manifest.size, proof.size),
            ("SHA-256", manifest.sha256, proof.sha256),
            ("Server version", manifest.server_version, proof.server_version),
        )
        if wanted != found
    ]
    wanted_by = {Namespace(record.db, record.collection): record for record in manifest.namespaces}
    found_by = {Namespace(record.db, record.collection): record for record in proof.namespaces}
    for namespace in sorted(wanted_by.keys() | found_by.keys()):
        wanted, found = wanted_by.get(namespace), found_by.get(namespace)
        if wanted != found:
            lines.append(f"{namespace}: the manifest says {_told(wanted)}, the archive holds {_told(found)}.")
    return lines


def _told(record: NamespaceRecord | None) -> str:
    if record is None:
        return "nothing"
    return (
        f"{record.documents} documents, {record.bytes} bytes, checksum {record.crc64}, "
        f"indexes {', '.join(record.indexes) or 'none'}"
    )


def _unproven(*, gzip: bool) -> list[str]:
    covered = "the few bytes of the gzip header" if gzip else "the definitions of options and indexes"
    return [
        "There is no manifest: whether collections are missing that should be there cannot be told.",
        f"There is no manifest: no checksum covers {covered}.",
    ]


def _record(proof: Proof) -> ProofRecord:
    return ProofRecord(
        proved_at=proof.proved_at,
        tool_version=tool_version(),
        sha256=proof.sha256,
        documents=proof.documents,
        bytes=proof.bytes,
        indexes=proof.indexes,
    )


def _damaged(path: Path, observed: str) -> DamagedArchiveError:
    return DamagedArchiveError(
        f"The archive {path.name} is damaged.",
        observed=observed,
        safe="Nothing was changed; do not rely on this backup.",
        next="Take another backup, or fetch this file again from where it was copied.",
    )
