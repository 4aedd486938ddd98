"""A place for one bundle in a folder: filled under a hidden name, watched for room, published whole."""

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Self

from tasks.domain.errors import BlockedError, UsageError
from tasks.record.unfinished_file import RoomWatch, Words, lock, name_finished, sync_directory

BUNDLE: Final = Words("the bundle", "name another folder")


@dataclass(slots=True)
class Slot:
    """The name `path`, and the open file under its hidden name, locked (flock) as long as it is open.

    `watch` is to be called with the file's size so far.
    """

    path: Path
    partial: Path
    file: BinaryIO
    watch: RoomWatch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = RoomWatch(self.path.parent)

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
            # What a run that died left has this name too, and is written over.
            handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            if not _is_ours(handle, partial):
                os.close(handle)
                raise BlockedError(
                    f"{path} is being written by another run.",
                    observed=f"It holds the lock of {partial}.",
                    next="Wait until that has ended.",
                )
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
            name_finished(self.partial, self.path)
        with contextlib.suppress(OSError):
            self.file.close()
        sync_directory(self.path.parent)

    def discard(self) -> None:
        """Remove what was written; an error here is passed over, since what led here is the one to tell."""
        with contextlib.suppress(OSError):
            self.partial.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.file.close()


def explain_folder(problem: OSError, folder: Path) -> UsageError:
    """An error of the place that the bundle was to go to."""
    return UsageError(
        f"The bundle cannot be written to {folder}.",
        observed=problem.strerror or type(problem).__name__,
        next="Make the folder if that is where it belongs: a disk that is not mounted leaves none, or an empty one."
        if isinstance(problem, FileNotFoundError)
        else "Name a folder that this user may write to.",
    )


def require_folder(path: Path) -> None:
    """Raise `UsageError` where neither `path` nor the folder that it would be in is there: none is made."""
    try:
        if not path.is_dir():
            path.parent.stat()
    except OSError as problem:
        raise explain_folder(problem, path.parent) from None


def _is_ours(handle: int, partial: Path) -> bool:
    """Whether the lock is ours, and the file still the one of that name."""
    if lock(handle) is False:
        return False
    try:
        named = partial.stat()
    except FileNotFoundError:
        return False
    return os.fstat(handle).st_ino == named.st_ino
