"""Reads the archive inside a bundle's file: from the start to the end once, then any part of it.

The file may be the archive itself, zstd frames with a seek table, or any other zstd stream (an archive of another tool).
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import zstandard

from tasks.domain.errors import DamagedArchiveError
from tasks.images.bundle.form import FRAME, Frame, zstd_tail
from tasks.images.saved.unzstd import WINDOW, Unzstd

CHUNK: Final = 1024 * 1024
_AHEAD: Final = min(2, os.cpu_count() or 1)
Told = Callable[[bytes], None]


class Body(Protocol):
    """The archive in a file; all errors of its bytes are `DamagedArchiveError`."""

    compression: Literal["zstd", "none"]

    def whole(self, told: Told) -> Iterator[bytes]:
        """The archive from start to end; `told` gets every byte of the file, in order, as it is read."""
        ...

    def part(self, start: int, size: int) -> Iterator[bytes]:
        """`size` bytes of the archive; parts are best asked for in rising order, by one thread."""
        ...

    def again(self) -> "Body":
        """Another reader of the same file, for another thread."""
        ...


def read_at(file: int, at: int, size: int) -> Iterator[bytes]:
    """`size` bytes of an open file in chunks; the file may be shorter, and then so is this."""
    while size and (chunk := os.pread(file, min(CHUNK, size), at)):
        yield chunk
        at, size = at + len(chunk), size - len(chunk)


def damaged(what: str, path: str = "The file") -> DamagedArchiveError:
    return DamagedArchiveError(
        f"{path} is damaged.",
        observed=f"{what[:1].upper()}{what[1:]}.",
        safe="Nothing of it was imported.",
        next="Copy it anew from where it was made; there, `sha256sum` tells whether it was whole.",
    )


@dataclass(slots=True)
class PlainBody:
    """A file that is the archive."""

    file: int
    size: int
    compression: Literal["zstd", "none"] = "none"

    def whole(self, told: Told) -> Iterator[bytes]:
        for chunk in read_at(self.file, 0, self.size):
            told(chunk)
            yield chunk

    def part(self, start: int, size: int) -> Iterator[bytes]:
        yield from _all_of(read_at(self.file, start, size), size)

    def again(self) -> Body:
        return self


@dataclass(slots=True)
class FramedBody:
    """A bundle of this project in zstd frames; `tail` are the bytes behind them."""

    file: int
    frames: tuple[Frame, ...]
    tail: bytes
    compression: Literal["zstd", "none"] = "zstd"
    _last: tuple[Frame, bytes] | None = field(default=None, init=False)

    def whole(self, told: Told) -> Iterator[bytes]:
        """Also holds the tail to what the frames and their bytes ask for."""
        seen = hashlib.sha256()
        pool = ThreadPoolExecutor(_AHEAD, thread_name_prefix="bundle-zstd")
        pending: deque[Future[bytes]] = deque()
        try:
            for frame in self.frames:
                packed = self._packed(frame)
                seen.update(packed)
                told(packed)
                pending.append(pool.submit(_unpack, packed, frame.size))
                if len(pending) > _AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        if self.tail != zstd_tail([(frame.packed, frame.size) for frame in self.frames], seen):
            raise damaged("its seal is not that of its bytes")
        told(self.tail)

    def part(self, start: int, size: int) -> Iterator[bytes]:
        # All frames but the last are of one size, so the first one that is needed is known.
        for frame in self.frames[start // FRAME :]:
            if size <= 0:
                return
            if self._last is None or self._last[0] != frame:
                self._last = (frame, _unpack(self._packed(frame), frame.size))
            skipped = start - frame.start
            piece = self._last[1][skipped : skipped + size]
            yield piece
            start, size = start + len(piece), size - len(piece)
        if size:
            raise damaged("it ends too early")

    def again(self) -> Body:
        return FramedBody(self.file, self.frames, self.tail)

    def _packed(self, frame: Frame) -> bytes:
        packed = b"".join(read_at(self.file, frame.at, frame.packed))
        if len(packed) != frame.packed:
            raise damaged("it ends too early")
        return packed


def _unpack(packed: bytes, size: int) -> bytes:
    """One frame's content of `size` bytes; nothing may follow it, and its checksum must be there and right."""
    try:
        facts = zstandard.get_frame_parameters(packed)
        if facts.content_size != size or not facts.has_checksum:
            raise damaged("a compressed frame is not as the bundle's seek table says")
        # In one go: then no more is unpacked than the header promises, and nothing may be missing or follow.
        return zstandard.ZstdDecompressor(max_window_size=WINDOW).decompress(packed, allow_extra_data=False)
    except zstandard.ZstdError as problem:
        raise damaged(f"it does not decompress ({problem})") from None


class StreamedBody:
    """Any zstd stream.  Parts in rising order are read in one go; a step back starts at the beginning again."""

    def __init__(self, file: int, size: int) -> None:
        self.compression: Literal["zstd", "none"] = "zstd"
        self._file = file
        self._size = size
        self._stream: Iterator[bytes] = iter(())
        self._rest = b""
        self._at = -1

    def whole(self, told: Told) -> Iterator[bytes]:
        unpacking = Unzstd()
        for chunk in read_at(self._file, 0, self._size):
            told(chunk)
            try:
                yield from unpacking.feed(chunk)
            except zstandard.ZstdError as problem:
                raise damaged(f"it does not decompress ({problem})") from None
        if not unpacking.between_frames:
            raise damaged("it ends in the middle of its compressed data")

    def part(self, start: int, size: int) -> Iterator[bytes]:
        if start < self._at or self._at < 0:
            self._stream, self._rest, self._at = self.whole(lambda _: None), b"", 0
        for _ in self._take(start - self._at):
            pass
        yield from _all_of(self._take(size), size)

    def again(self) -> Body:
        return StreamedBody(self._file, self._size)

    def _take(self, size: int) -> Iterator[bytes]:
        while size:
            self._rest = self._rest or next(self._stream, b"")
            if not self._rest:
                return
            piece, self._rest = self._rest[:size], self._rest[size:]
            self._at, size = self._at + len(piece), size - len(piece)
            yield piece


def _all_of(chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        size -= len(chunk)
    if size:
        raise damaged("it ends too early")
