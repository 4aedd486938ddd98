"""A place for one backup in a directory: claimed by number, filled under a hidden name, published whole."""

import contextlib
import os
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import BinaryIO

from tasks.database.manifest import manifest_path
from tasks.database.naming import ARCHIVE, PARTIAL, archive_name, next_number
from tasks.domain.errors import UsageError
from tasks.record.unfinished_file import RoomWatch, Words, lock, name_finished, sync_directory

BACKUP = Words("the backup", "name another directory with --backup-dir")

# python-isal makes 0.29 of text-like documents; a little more is asked for.
_GZIP_RATIO = 0.35


@dataclass(slots=True)
class Slot:
    """The claimed name `archive`, and the open file under its hidden name, mode 0600.

    The file is locked (flock) as long as it is open, so that nobody takes it for a dead run's leftover.  `watch` is to
    be called with the file's size so far.
    """

    archive: Path
    partial: Path
    file: BinaryIO
    watch: RoomWatch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = RoomWatch(self.partial.parent)

    def publish(self) -> None:
        """Give the finished file its name; never over another file.  Raises FileExistsError."""
        name_finished(self.partial, self.archive)
        with contextlib.suppress(OSError):
            self.file.close()
        sync_directory(self.archive.parent)

    def discard(self) -> None:
        """Remove what was written, and the manifest of an archive that was never published.

        An error of the disk here is passed over: what led here is the one to tell.
        """
        # The partial file last: a sweep finds by it what a death in between left.
        with contextlib.suppress(OSError):
            if not self.archive.exists():
                manifest_path(self.archive).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.partial.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.file.close()


def claim(directory: Path, version: str, day: date) -> Slot:
    """Claim the next free number in `directory`, which is made where it does not exist.

    Raises UsageError when the directory cannot be made or written.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            number = next_number(version, day, [path.name for path in directory.iterdir()])
            archive = directory / archive_name(version, day, number)
            partial = directory / f".{archive.name}{PARTIAL}"
            with contextlib.suppress(FileExistsError):
                handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                slot = Slot(archive, partial, os.fdopen(handle, "wb", buffering=0))
                if lock(handle) is False or swept(handle):
                    # A sweep was faster than the lock; the name may be another run's by now, so it is left alone.
                    slot.file.close()
                elif _taken(archive):
                    # Another run published this number between the look and the claim.
                    partial.unlink(missing_ok=True)
                    slot.file.close()
                else:
                    return slot
    except OSError as problem:
        raise _not_written(directory, problem.strerror or type(problem).__name__) from None


def _not_written(directory: Path, why: str) -> UsageError:
    return UsageError(
        f"Backups cannot be written to {directory}.",
        observed=why,
        next="Name a directory that this user may write to with --backup-dir.",
    )


def swept(handle: int) -> bool:
    """Whether the open file has no name any more: somebody took it for a dead run's before its lock was there."""
    return os.fstat(handle).st_nlink == 0


def _taken(archive: Path) -> bool:
    return archive.exists() or manifest_path(archive).exists()


def require_place(directory: Path, size: int, *, gzip: bool) -> None:
    """Raise UsageError or BlockedError where a backup of `size` bytes of documents could not be written; writes nothing."""
    there = directory
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise _not_written(directory, f"{there} is no directory.")
    if not os.access(there, os.W_OK | os.X_OK):  # a file system that is mounted read-only too
        raise _not_written(directory, f"{there} cannot be written to.")
    check_room(directory, size, gzip=gzip)


def check_room(directory: Path, size: int, *, gzip: bool) -> None:
    """Raise BlockedError when `size` bytes of documents will probably not fit into `directory`."""
    needed = round(size * (_GZIP_RATIO if gzip else 1.0))
    BACKUP.require_room(directory, needed, f", estimated from {size:,} bytes of documents")


def newest_backup(directory: Path) -> Path | None:
    """The archive that was written last, or None where there is none or the directory cannot be read."""
    try:
        found = [(path.stat().st_mtime, path) for path in directory.glob(f"apinizer-backup--*{ARCHIVE}")]
    except OSError:
        return None
    return max(found)[1] if found else None
