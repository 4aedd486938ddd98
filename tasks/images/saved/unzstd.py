"""Unpacks zstd from a stream in bounded memory, however little the sender needed to say much."""

from collections.abc import Iterator
from typing import Final

import zstandard

# A block takes four bytes at least and unpacks to 128 KiB at most (RFC 8878, 3.1.1.2): so much becomes 16 MiB at most.
_MORSEL: Final = 512
# Unpacked bytes that are handed on at once.
_PIECE: Final = 1024 * 1024
# What `zstd --long` may ask of a reader at most without being asked (zstd(1)).
WINDOW: Final = 1 << 27


class Unzstd:
    """Any number of frames, one after the other; `feed` raises `zstandard.ZstdError` for what is none."""

    def __init__(self) -> None:
        self._frame: zstandard.ZstdDecompressionObj | None = None

    @property
    def between_frames(self) -> bool:
        """Whether a stream may end here."""
        return self._frame is None

    def feed(self, packed: bytes) -> Iterator[bytes]:
        """What these bytes unpack to, in pieces."""
        ready: list[bytes] = []
        held = 0
        for at in range(0, len(packed), _MORSEL):
            content = self._unpack(packed[at : at + _MORSEL])
            ready.append(content)
            held += len(content)
            if held >= _PIECE:
                yield b"".join(ready)
                ready, held = [], 0
        if held:
            yield b"".join(ready)

    def _unpack(self, rest: bytes) -> bytes:
        found: list[bytes] = []
        while rest:
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()
            found.append(self._frame.decompress(rest))
            rest = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
        return b"".join(found)
