"""A place for one backup in a directory: claimed by number, filled under a hidden name, published whole."""

import contextlib
import errno
import fcntl
import os
import shutil
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import BinaryIO

from tasks.database.manifest import manifest_path, sync_directory
from tasks.database.naming import ARCHIVE, PARTIAL, archive_name, next_number
from tasks.domain.errors import BlockedError, UpgradeError, UsageError

RESERVE = 64 * 1024 * 1024
"""Bytes of the disk that a backup leaves free: other programs live there too."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES}
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
# python-isal makes 0.29 of text-like documents; a little more is asked for.
_GZIP_RATIO = 0.35
_WATCH_EVERY = 16 * 1024 * 1024


@dataclass(slots=True)
class Slot:
    """The claimed name `archive`, and the open file under its hidden name, mode 0600.

    The file is locked (flock) as long as it is open, so that nobody takes it for a dead run's leftover.
    """

    archive: Path
    partial: Path
    file: BinaryIO
    _looked_at: int = 0

    def publish(self) -> None:
        """Give the finished file its name; never over another file.  Raises FileExistsError."""
        try:
            os.link(self.partial, self.archive)
        except OSError as problem:
            if problem.errno not in _NO_LINKS:
                raise
            # A file system without hard links: the claim on the hidden name keeps other runs off this one.
            if self.archive.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self.archive)) from None
            self.partial.rename(self.archive)
        # The archive has its name and was written to the disk before: what goes wrong from here on undoes nothing.
        with contextlib.suppress(OSError):
            self.partial.unlink(missing_ok=True)
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

    def watch(self, written: int) -> None:
        """Raise OSError (ENOSPC) before the disk is full; `written` is the file's size so far."""
        if written - self._looked_at < _WATCH_EVERY:
            return
        self._looked_at = written
        if free_bytes(self.partial.parent) < RESERVE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


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
        raise UsageError(
            f"Backups cannot be written to {directory}.",
            observed=problem.strerror or type(problem).__name__,
            next="Name a directory that this user may write to with --backup-dir.",
        ) from None


def lock(handle: int) -> bool | None:
    """Take the lock of an open partial file: False when another has it, None where the file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as problem:
        if problem.errno not in _NO_LOCKS:
            raise
        return None
    return True


def swept(handle: int) -> bool:
    """Whether the open file has no name any more: somebody took it for a dead run's before its lock was there."""
    return os.fstat(handle).st_nlink == 0


def _taken(archive: Path) -> bool:
    return archive.exists() or manifest_path(archive).exists()


def free_bytes(directory: Path) -> int:
    """Bytes of the disk that this user may still write."""
    return shutil.disk_usage(directory).free


def check_room(directory: Path, size: int, *, gzip: bool) -> None:
    """Raise BlockedError when `size` bytes of documents will probably not fit into `directory`."""
    needed = round(size * (_GZIP_RATIO if gzip else 1.0)) + RESERVE
    free = free_bytes(directory)
    if free < needed:
        raise BlockedError(
            f"There is no room for the backup in {directory}.",
            observed=f"Free: {free:,} bytes. Needed, estimated from {size:,} bytes of documents: {needed:,}.",
            next="Free some space, or name another directory with --backup-dir.",
        )


def explain_write(problem: OSError, directory: Path) -> UpgradeError:
    """An error of writing the backup, in this project's words."""
    if problem.errno in _FULL:
        return BlockedError(
            f"The disk ran full while the backup was written to {directory}.",
            observed=f"{problem.strerror}; {free_bytes(directory):,} bytes are free now.",
            safe="Nothing was changed; the unfinished file was removed.",
            next="Free some space, or name another directory with --backup-dir.",
        )
    return UpgradeError(
        f"The backup could not be written to {directory}.",
        observed=problem.strerror or type(problem).__name__,
        safe="Nothing was changed; the unfinished file was removed.",
        next="Look at the disk and the directory's rights.",
    )


def newest_backup(directory: Path) -> Path | None:
    """The archive that was written last, or None where there is none or the directory cannot be read."""
    try:
        found = [(path.stat().st_mtime, path) for path in directory.glob(f"apinizer-backup--*{ARCHIVE}")]
    except OSError:
        return None
    return max(found)[1] if found else None
