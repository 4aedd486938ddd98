"""Clears a backup directory: unfinished files of dead runs, and old backups that retention lets go."""

import contextlib
import os
import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from tasks.database.catalogue import Backup, backups
from tasks.database.manifest import load, manifest_path
from tasks.database.naming import ARCHIVE, MANIFEST, PARTIAL, parse
from tasks.database.place import on_network
from tasks.database.retention import to_remove
from tasks.database.slot import swept
from tasks.domain.errors import UpgradeError, UsageError
from tasks.record.journal_object import BESIDE
from tasks.record.unfinished_file import lock

QUIET_ON_NETWORK = 60 * 60
"""Seconds without a write after which a file is a dead run's, where a lock may not reach other machines."""
QUIET_WITHOUT_LOCKS = 24 * 60 * 60
"""The same where the file system has no locks at all."""


def is_dead(locked: bool | None, quiet: float, *, network: bool) -> bool:  # noqa: FBT001 - as `slot.lock` answers
    """Whether an unfinished file belongs to no living run.

    `locked`: this process got its lock (True), somebody else holds it (False), there are no locks here (None);
    `quiet`: seconds since its last write; `network`: other machines may write there, whose locks may not show.
    """
    if locked is None:
        return quiet > QUIET_WITHOUT_LOCKS
    return locked and (not network or quiet > QUIET_ON_NETWORK)


def sweep(directory: Path, *, clock: Callable[[], float] = time.time) -> list[Path]:
    """Remove the unfinished files of dead runs from `directory`; the paths removed.

    A living run holds its file's lock, so its file stays.  Never raises for a file that cannot be removed.
    """
    network = on_network(directory)
    removed: list[Path] = []
    with contextlib.suppress(OSError):
        for path in sorted(directory.iterdir()):
            with contextlib.suppress(OSError):
                if _unfinished_archive(path):
                    removed += _sweep_archive(path, network, clock)
                elif _unfinished_companion(path) and clock() - path.lstat().st_mtime > QUIET_ON_NETWORK:
                    path.unlink()
                    removed.append(path)
    return removed


def remove_old(
    directory: Path,
    *,
    keep: int | None,
    days: int | None,
    named: frozenset[str] = frozenset(),
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[Backup]:
    """Remove the backups that `retention.to_remove` lets go, with what is beside them; those that were removed.

    `named` are paths, file names or SHA-256 sums that journals name.  Raises UsageError for a directory that
    cannot be listed or written; what was removed before that stays removed.
    """
    if keep is None and days is None:
        return []
    removed: list[Backup] = []
    for backup in to_remove(backups(directory), keep=keep, days=days, named=named, now=now()):
        if _needed_now(backup.archive):
            continue
        try:
            # The archive first: a manifest alone is no backup, an archive alone is one that nobody would remove.
            backup.archive.unlink(missing_ok=True)
            manifest_path(backup.archive).unlink(missing_ok=True)
            backup.archive.with_name(backup.archive.name + BESIDE).unlink(missing_ok=True)
        except OSError as problem:
            raise UsageError(
                f"The old backup {backup.archive.name} could not be removed.",
                observed=problem.strerror or type(problem).__name__,
                safe=f"{len(removed)} other old backups were removed; the newer ones were not touched.",
                next=f"Look at the rights of {directory}, or remove the file by hand.",
            ) from None
        removed.append(backup)
    return removed


def _needed_now(archive: Path) -> bool:
    """A run may have begun to rely on it since the list was made."""
    try:
        manifest = load(archive)
    except (OSError, UpgradeError):
        return True
    return manifest is not None and bool(manifest.needed_by)


def _unfinished_archive(path: Path) -> bool:
    return _hidden(path, ARCHIVE) and parse(path.name[1 : -len(PARTIAL)]) is not None


def _unfinished_companion(path: Path) -> bool:
    """A manifest, or the copy of a run's journal."""
    kind = next((kind for kind in (MANIFEST, ARCHIVE + BESIDE) if _hidden(path, kind)), "")
    return bool(kind) and parse(path.name[1 : -len(PARTIAL)].removesuffix(kind) + ARCHIVE) is not None


def _hidden(path: Path, kind: str) -> bool:
    return path.name.startswith(".") and path.name.endswith(kind + PARTIAL)


def _sweep_archive(partial: Path, network: bool, clock: Callable[[], float]) -> list[Path]:  # noqa: FBT001
    handle = os.open(partial, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode):
            return []
        if not is_dead(lock(handle), clock() - state.st_mtime, network=network) or swept(handle):
            return []
        removed = []
        archive = partial.with_name(partial.name[1 : -len(PARTIAL)])
        manifest = manifest_path(archive)
        if manifest.exists() and not archive.exists():
            # The run died between its manifest and its archive's name.
            manifest.unlink(missing_ok=True)
            removed.append(manifest)
        partial.unlink(missing_ok=True)
        return [*removed, partial]
    finally:
        os.close(handle)
