"""A bundle's file, opened, and read whole once before anything in it is believed."""

import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tasks.domain.errors import StoppedError, UpgradeError, UsageError
from tasks.images.bundle.body import Body, FramedBody, PlainBody, StreamedBody, damaged
from tasks.images.bundle.contents import Contents, foreign_contents, own_contents
from tasks.images.bundle.form import GZIP, MARK_MEMBER, SEAL_SIZE, ZSTD, is_own, seal, zstd_frames, zstd_tail_size
from tasks.images.bundle.scan import Scan
from tasks.images.bundle.sums import Sum

Progress = Callable[[int, int], None]
Stop = Callable[[], bool]

_END: Final = 64 * 1024


@dataclass(slots=True)
class Opened:
    """An open file: `body` reads the archive in it; `own` says that it is a bundle of this project, or was meant to be."""

    path: Path
    file: int
    size: int
    body: Body
    own: bool
    archive_size: int
    state: tuple[int, int, int]

    @classmethod
    def of(cls, path: Path) -> Self:
        """Raise `UsageError` (no file, no archive at all) or `DamagedArchiveError` (not even its ends are right)."""
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as problem:
            raise _unopened(path, problem) from None
        try:
            state = os.fstat(file)
            body, own, archive_size = _body_of(path, file, state.st_size)
        except BaseException as problem:
            os.close(file)
            if isinstance(problem, OSError):
                raise _unopened(path, problem) from None
            raise
        return cls(path, file, state.st_size, body, own, archive_size, _state(state))

    def close(self) -> None:
        if self.file >= 0:
            os.close(self.file)
            self.file = -1

    def require_unchanged(self) -> None:
        """Raise where the file was written to since it was opened: what was verified is then not what is read."""
        if _state(os.fstat(self.file)) != self.state:
            raise damaged("it was written to while it was read", str(self.path))

    def inspect(self, progress: Progress, stop: Stop) -> tuple[Contents, str]:
        """All of it: the contents, and the SHA-256 of the file.  Raise `DamagedArchiveError`, `StoppedError`."""
        try:
            return self._inspect(progress, stop)
        except OSError as problem:
            raise _unopened(self.path, problem) from None
        except UpgradeError as problem:
            raise type(problem)(
                _printable(problem.happened.replace("The file", str(self.path), 1)),
                observed=_printable(problem.observed), safe=problem.safe, next=_printable(problem.next),
            ) from None  # fmt: skip

    def _inspect(self, progress: Progress, stop: Stop) -> tuple[Contents, str]:
        done = 0
        until = self.archive_size - SEAL_SIZE if self.own else -1
        with Sum() as of_file, Sum(until) as of_archive:
            # The file and the archive are the same bytes where nothing is compressed: one sum does for both.
            same = self.body.compression == "none"

            def told(data: bytes) -> None:
                nonlocal done
                (of_archive if same else of_file).update(data)
                done += len(data)
                progress(done, self.size)

            def chunks() -> Generator[bytes, None, None]:
                for chunk in self.body.whole(told):
                    if stop():
                        raise StoppedError("The bundle's verification was stopped.", next="Run the same again.")
                    if not same and self.own:
                        of_archive.update(chunk)
                    yield chunk

            scan = Scan(stream := chunks(), canonical=self.own)
            try:
                scan.run()
                # Its seal stands in the compressed form's tail, which is read last.
                if next(stream, b""):
                    raise damaged("something follows its end")
            finally:
                stream.close()
            sha256 = (of_archive if same else of_file).hexdigest()
            if self.own and scan.end != seal(of_archive.sealed()):
                raise damaged("its seal is not that of its bytes")
        self.require_unchanged()
        return (own_contents if self.own else foreign_contents)(scan.members), sha256


def _body_of(path: Path, file: int, size: int) -> tuple[Body, bool, int]:
    head = os.pread(file, 4, 0)
    end = os.pread(file, _END, max(0, size - _END))
    if head.startswith(GZIP):
        raise UsageError(
            f"{path} is compressed with gzip.", observed="A part of it cannot be read alone.",
            next=f"Unpack it first: gunzip {path}",
        )  # fmt: skip
    if not head.startswith(ZSTD):
        own = is_own(os.pread(file, len(MARK_MEMBER), 0), end[-SEAL_SIZE:])
        return PlainBody(file, size), own, size
    streamed = StreamedBody(file, size)
    if not is_own(_first(streamed), end):
        return streamed, False, 0
    length = zstd_tail_size(end)
    tail = os.pread(file, length, size - length) if length and length < size else b""
    frames = zstd_frames(tail) if length and len(tail) == length else None
    if not frames or sum(frame.packed for frame in frames) + len(tail) != size:
        raise damaged("its end is not that of a bundle: it was cut off, or something follows it", str(path))
    return FramedBody(file, frames, tail), True, sum(frame.size for frame in frames)


def _first(body: StreamedBody) -> bytes:
    """The first bytes of the archive, as many as can be had."""
    found = b""
    try:
        for chunk in body.part(0, len(MARK_MEMBER)):
            found += chunk
    except UpgradeError:
        pass
    return found


def _printable(text: str) -> str:
    """A text that any terminal can encode: what an archive says may hold bytes that are no UTF-8, halves of pairs."""
    return text.encode("utf-8", "backslashreplace").decode()


def _state(of: os.stat_result) -> tuple[int, int, int]:
    return of.st_size, of.st_mtime_ns, of.st_ino


def _unopened(path: Path, problem: OSError) -> UpgradeError:
    if isinstance(problem, FileNotFoundError):
        return UsageError(
            f"There is no bundle at {path}.", observed="No file has this name.",
            next="Name the file that `images bundle` wrote.",
        )  # fmt: skip
    return UsageError(
        f"{path} cannot be read.", observed=problem.strerror or type(problem).__name__,
        next="Name a file that this user may read.",
    )  # fmt: skip
