"""A file that is written under a hidden name: locked, watched for room, given its name when it is whole."""

import contextlib
import errno
import fcntl
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tasks.domain.errors import BlockedError, UpgradeError

RESERVE: Final = 64 * 1024 * 1024
"""Bytes of the disk that are left free: other programs live there too."""

_WATCH_EVERY: Final = 16 * 1024 * 1024
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_LINKS: Final = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES}
_NO_LOCKS: Final = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@dataclass(slots=True)
class RoomWatch:
    """Called with a file's size so far, raises OSError (ENOSPC) before the disk of `folder` is full."""

    folder: Path
    _looked_at: int = 0

    def __call__(self, written: int) -> None:
        if written - self._looked_at < _WATCH_EVERY:
            return
        self._looked_at = written
        if free_bytes(self.folder) < RESERVE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@dataclass(frozen=True, slots=True)
class Words:
    """How messages speak of it: `what` is written ("the backup"), what to do `instead` of using this folder."""

    what: str
    instead: str

    def full(self, problem: OSError, folder: Path) -> UpgradeError:
        """An error of writing, in this project's words."""
        if problem.errno in _FULL:
            return BlockedError(
                f"The disk ran full while {self.what} was written to {folder}.",
                observed=f"{problem.strerror}; {free_bytes(folder):,} bytes are free now.",
                safe="Nothing was changed; the unfinished file was removed.",
                next=f"Free some space, or {self.instead}.",
            )
        return UpgradeError(
            f"{self.what[0].upper()}{self.what[1:]} could not be written to {folder}.",
            observed=problem.strerror or type(problem).__name__,
            safe="Nothing was changed; the unfinished file was removed.",
            next="Look at the disk and the directory's rights.",
        )

    def require_room(self, folder: Path, size: int, reckoned: str = "") -> None:
        """Raise `BlockedError` where `size` bytes and the reserve do not fit; `reckoned` says where they come from."""
        free, needed = free_bytes(folder), size + RESERVE
        if free < needed:
            raise BlockedError(
                f"There is no room for {self.what} in {folder}.",
                observed=f"Free: {free:,} bytes. Needed{reckoned}: {needed:,}.",
                next=f"Free some space, or {self.instead}.",
            )


def free_bytes(folder: Path) -> int:
    """Bytes of the disk that this user may still write; of the next folder above where this one is not there yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def lock(handle: int) -> bool | None:
    """Take the lock (flock) of an open file: False when another has it, None where the file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as problem:
        if problem.errno not in _NO_LOCKS:
            raise
        return None
    return True


def name_finished(partial: Path, path: Path) -> None:
    """Give the file its name; never over another file.  Raises FileExistsError."""
    try:
        os.link(partial, path)
    except OSError as problem:
        if problem.errno not in _NO_LINKS:
            raise
        # A file system without hard links: the lock on the hidden name keeps other runs off this one.
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        partial.rename(path)
    # It has its name and was written to the disk before: what goes wrong from here on undoes nothing.
    with contextlib.suppress(OSError):
        partial.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` survive a power cut, where the file system lets directories be synced.

    Never raises: what it is called after is done, and is not undone by a directory that may not be opened.
    """
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
