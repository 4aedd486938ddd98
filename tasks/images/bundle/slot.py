"""A place for one file in a folder: filled under a hidden name, watched for room, published whole."""

import contextlib
import errno
import fcntl
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self

from tasks.domain.errors import BlockedError, UpgradeError, UsageError

RESERVE: Final = 64 * 1024 * 1024
"""Bytes of the disk that a bundle leaves free: other programs live there too."""

_WATCH_EVERY: Final = 16 * 1024 * 1024
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_LOCKS: Final = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_NO_LINKS: Final = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES}


@dataclass(slots=True)
class Slot:
    """The name `path`, and the open file under its hidden name, locked (flock) as long as it is open."""

    path: Path
    partial: Path
    file: BinaryIO
    _looked_at: int = 0

    @classmethod
    def claim(cls, path: Path, *, replace: bool) -> Self:
        """Raise `UsageError` (the name is taken, or cannot be written) or `BlockedError` (somebody writes it now)."""
        partial = path.with_name(f".{path.name}.partial")
        try:
            if path.exists() and not replace:
                raise UsageError(
                    f"{path} exists already.",
                    observed="A bundle never takes the place of a file unasked.",
                    next="Remove it, name another file, or let it be replaced (--replace).",
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            # What a run that died left has this name too, and is written over.
            handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            if not _locked(handle, partial):
                os.close(handle)
                raise BlockedError(f"{path} is being written by another run.", next="Wait until that has ended.")
            os.ftruncate(handle, 0)
        except OSError as problem:
            raise explain_folder(problem, path.parent) from None
        return cls(path, partial, os.fdopen(handle, "wb", buffering=1024 * 1024))

    def publish(self, *, replace: bool) -> None:
        """Give the finished file its name, mode 0644, on the disk; without `replace` never over another file."""
        self.file.flush()
        os.fchmod(self.file.fileno(), 0o644)
        os.fsync(self.file.fileno())
        if replace:
            self.partial.rename(self.path)
        else:
            self._link()
        with contextlib.suppress(OSError):
            self.file.close()
        with contextlib.suppress(OSError):
            _sync(self.path.parent)

    def discard(self) -> None:
        """Remove what was written; an error here is passed over, since what led here is the one to tell."""
        with contextlib.suppress(OSError):
            self.partial.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.file.close()

    def watch(self, written: int) -> None:
        """Raise OSError (ENOSPC) before the disk is full; `written` is the file's size so far."""
        if written - self._looked_at >= _WATCH_EVERY:
            self._looked_at = written
            if free_bytes(self.path.parent) < RESERVE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _link(self) -> None:
        try:
            os.link(self.partial, self.path)
        except OSError as problem:
            if problem.errno not in _NO_LINKS:
                raise
            # A file system without hard links: the lock on the hidden name keeps other runs off this one.
            self.partial.rename(self.path)
            return
        self.partial.unlink(missing_ok=True)


def free_bytes(folder: Path) -> int:
    """Bytes of the disk that this user may still write; of the next folder above where this one is not there yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require_room(folder: Path, size: int) -> None:
    """Raise `BlockedError` where `size` bytes and the reserve do not fit into `folder`."""
    free = free_bytes(folder)
    if free < size + RESERVE:
        raise BlockedError(
            f"There is no room for the bundle in {folder}.",
            observed=f"Free: {free:,} bytes. Needed: {size + RESERVE:,}.",
            next="Free some space, or name another folder.",
        )


def explain_folder(problem: OSError, folder: Path) -> UsageError:
    """An error of the place that the bundle was to go to."""
    return UsageError(
        f"The bundle cannot be written to {folder}.",
        observed=problem.strerror or type(problem).__name__,
        next="Name a folder that this user may write to.",
    )


def explain_write(problem: OSError, folder: Path) -> UpgradeError:
    """An error of writing the bundle, in this project's words."""
    if problem.errno in _FULL:
        return BlockedError(
            f"The disk ran full while the bundle was written to {folder}.",
            observed=f"{problem.strerror}; {free_bytes(folder):,} bytes are free now.",
            safe="Nothing was changed; the unfinished file was removed.",
            next="Free some space, or name another folder.",
        )
    return UpgradeError(
        f"The bundle could not be written to {folder}.",
        observed=problem.strerror or type(problem).__name__,
        safe="Nothing was changed; the unfinished file was removed.",
        next="Look at the disk and the folder's rights.",
    )


def _locked(handle: int, partial: Path) -> bool:
    """Whether the lock is ours, and the file still the one of that name."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as problem:
        if problem.errno not in _NO_LOCKS:
            raise
    try:
        named = partial.stat()
    except FileNotFoundError:
        return False
    return os.fstat(handle).st_ino == named.st_ino


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
