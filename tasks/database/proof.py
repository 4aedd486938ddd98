"""The proof of a backup: its archive read back whole, held against its own checksums and its manifest."""

import contextlib
import os
import stat
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tasks.database.archive.ahead import ahead
from tasks.database.archive.format import FormatError, OtherFormatError, UnknownFormatError
from tasks.database.archive.inlet import Inlet
from tasks.database.archive.metadata import CollectionMetadata
from tasks.database.archive.reader import ArchiveReader, Documents, NamespaceEnd, Prelude
from tasks.database.contents import definitions, record_differences, records
from tasks.database.manifest import Manifest, NamespaceRecord, ProofRecord, load, manifest_path, save
from tasks.database.run import tool_version
from tasks.database.untried import retyped, untried
from tasks.domain.errors import (
    DamagedArchiveError,
    NotFoundError,
    StoppedError,
    UnprovenError,
    UpgradeError,
    UsageError,
)


class Proof(BaseModel):
    """What was proved of an archive.

    `unproven` are sentences on what its bytes alone cannot show, `untried` are sentences on the
    kinds of collections and indexes that were read but that nobody has seen a server take back, `recorded` is whether
    the manifest beside the archive now holds this proof, and `notes` say why it does not.
    """

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
    untried: list[str] = []
    recorded: bool = False
    notes: list[str] = []


def prove(
    path: Path,
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    stop: Callable[[], bool] = lambda: False,
    seen: Callable[[Documents], None] = lambda _: None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Proof:
    """Read the archive at `path` whole and record the proof in its manifest.

    Checked: the gzip stream, every length, header and terminator, the CRC-64 of every namespace, that each
    announced one is there, every metadata document; and against the manifest the size, the SHA-256 and, for
    each namespace, documents, bytes, checksum and index names.  A proof that fails withdraws one that was
    recorded before.  `progress` gets file bytes done and in all, `seen` each run of documents that was read,
    before it is known whether the checksum is right.

    Raises DamagedArchiveError, UnprovenError (cannot be read, changed meanwhile, a newer format),
    NotFoundError, UsageError (no file, no archive at all, no right to read), StoppedError.
    """
    path, manifest = _find(path)
    try:
        proof = _prove(path, manifest, _Watcher(progress, stop, seen), now)
    except UnprovenError:
        if manifest and (manifest.proof or manifest.rehearsal):
            # A file system that cannot be written to leaves the old record: the next reader meets the same error.
            with contextlib.suppress(OSError):
                save(path, manifest.model_copy(update={"proof": None, "rehearsal": None}))
        raise
    return _recorded(proof) if manifest else proof


@dataclass(frozen=True, slots=True)
class _Watcher:
    """Who looks on while the archive is read; the three of `prove`."""

    progress: Callable[[int, int], None]
    stop: Callable[[], bool]
    seen: Callable[[Documents], None]


def _find(path: Path) -> tuple[Path, Manifest | None]:
    """The file and its manifest.  Through a link, the manifest beside the link or else the one beside the file."""
    try:
        kind = path.stat().st_mode
        if stat.S_ISREG(kind):
            if path.is_symlink() and not manifest_path(path).exists():
                path = path.resolve()
            with path.open("rb"):
                return path, load(path)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"There is no archive {path}.", next="Check the path.") from None
    except PermissionError:
        raise UsageError(f"{path} may not be read by this user.", next="Run as the user who made the backup.") from None
    except OSError as problem:
        reason = problem.strerror or type(problem).__name__
        raise UsageError(f"{path} could not be opened.", observed=reason, next="Check the path.") from None
    if stat.S_ISDIR(kind):
        raise UsageError(f"{path} is a directory, not an archive.", next="Name the .archive file in it.")
    raise UsageError(f"{path} is no file but a pipe, a socket or a device.", next="Name the .archive file.")


def _prove(path: Path, manifest: Manifest | None, watcher: _Watcher, now: Callable[[], datetime]) -> Proof:
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            inlet = Inlet(file)
            try:
                prelude, ends = _read(inlet, before.st_size, watcher)
            except FormatError:
                _refuse_changed(path, before)  # Which explains the damage.
                raise
            _refuse_changed(path, before)
        defined = definitions(prelude)
        held = records(prelude, ends, defined)
    except OtherFormatError as problem:
        if manifest:
            raise _damaged(path, f"{problem}.") from None
        raise UsageError(
            f"{path.name} is no archive.", observed=f"{problem}.", next="Name a file that mongodump --archive wrote."
        ) from None
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
        namespaces=held,
        documents=sum(record.documents for record in held),
        bytes=sum(record.bytes for record in held),
        indexes=sum(len(record.indexes) for record in held),
        against_manifest=manifest is not None,
        unproven=[] if manifest else _unproven(gzip=inlet.gzip),
        untried=_untried(prelude, defined, manifest, inlet.sha256),
    )
    if manifest and (differences := _differences(proof, manifest)):
        raise _damaged(path, "\n".join(differences))
    return proof


def _untried(prelude: Prelude, defined: list[CollectionMetadata], manifest: Manifest | None, sha256: str) -> list[str]:
    """What no server has taken back; after a rehearsal of this very file, what that server could not."""
    names = [str(entry.namespace) for entry in prelude.entries]
    altered = retyped(zip(names, [entry.metadata for entry in prelude.entries], strict=True))
    if manifest and manifest.rehearsal and manifest.rehearsal.sha256 == sha256:
        return [*altered, *manifest.rehearsal.unproven]
    return [*altered, *untried(zip(names, defined, strict=True))]


def _recorded(proof: Proof) -> Proof:
    """The proof, now in the manifest too, where that can be written."""
    try:
        # Loaded again: something else may have been recorded meanwhile.
        manifest = load(proof.archive)
        if manifest and manifest.sha256 == proof.sha256:
            save(proof.archive, manifest.model_copy(update={"proof": _record(proof)}))
            return proof.model_copy(update={"recorded": True})
        reason = "it was removed or replaced meanwhile"
    except (OSError, UpgradeError) as problem:
        reason = (isinstance(problem, OSError) and problem.strerror) or type(problem).__name__
    return proof.model_copy(update={"notes": [f"The proof could not be recorded in the manifest: {reason}."]})


def _refuse_changed(path: Path, before: os.stat_result) -> None:
    """Raise UnprovenError where another file is under the name now, or this one was written to since `before`."""
    now = path.stat()
    if os.path.samestat(now, before) and (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns):
        return
    raise UnprovenError(
        f"{path.name} changed while it was read.",
        observed=f"It had {before.st_size:,} bytes at the start and has {now.st_size:,} now.",
        next="Wait until whatever writes it is done, and verify it again.",
    )


def _read(inlet: Inlet, total: int, watcher: _Watcher) -> tuple[Prelude, list[NamespaceEnd]]:
    with closing(ahead(inlet.pieces())) as pieces:
        reader = ArchiveReader(pieces)
        prelude = reader.prelude()
        ends = []
        for block in reader.blocks():
            if isinstance(block, NamespaceEnd):
                ends.append(block)
            else:
                watcher.seen(block)
            watcher.progress(inlet.size, total)
            if watcher.stop():
                raise StoppedError("The proof was stopped.", observed=f"{inlet.size:,} of {total:,} bytes were read.")
        return prelude, ends


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
    return lines + record_differences(manifest.namespaces, proof.namespaces)


def _unproven(*, gzip: bool) -> list[str]:
    uncovered = (
        "the few bytes of the gzip header, which say nothing of the content"
        if gzip
        else "the definitions of options and indexes, the types of collections and the server's version"
    )
    return [
        "There is no manifest: whether collections are missing that should be there cannot be told.",
        f"There is no manifest: no checksum covers {uncovered}.",
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
