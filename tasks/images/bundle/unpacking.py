"""What compressed layers unpack to: an image's config names layers by the digest of their plain bytes (diffID)."""

import hashlib
from collections.abc import Iterator
from typing import Final, Protocol, cast

import zstandard
from isal import isal_zlib

from tasks.images.bundle.form import GZIP, ZSTD
from tasks.images.saved.unzstd import Unzstd

_PIECE: Final = 1024 * 1024
_GZIP_WINDOW: Final = 31
_DAMAGED = cast("type[Exception]", isal_zlib.error)  # Its stub calls it an instance.


class _Unpacker(Protocol):
    @property
    def between_frames(self) -> bool: ...

    def feed(self, packed: bytes) -> Iterator[bytes]: ...


class Unpacked:
    """The digest of what bytes unpack to that come in chunks: of gzip's members and zstd's frames, one after the other.

    Memory is bounded, whatever they unpack to.
    """

    def __init__(self) -> None:
        self._head = b""
        self._hash = hashlib.sha256()
        self._unpacker: _Unpacker | None = None
        self._open = True

    def update(self, data: bytes | memoryview) -> None:
        if self._open:
            try:
                self._feed(bytes(data))
            except (zstandard.ZstdError, _DAMAGED):
                self._open = False

    @property
    def digest(self) -> str:
        """Empty where the bytes are not compressed, or do not unpack."""
        whole = self._open and self._unpacker is not None and self._unpacker.between_frames
        return f"sha256:{self._hash.hexdigest()}" if whole else ""

    def _feed(self, data: bytes) -> None:
        if self._unpacker is None:
            data = self._head = self._head + data
            if len(data) < len(ZSTD):
                return
            self._head = b""
            self._unpacker = _Gunzip() if data.startswith(GZIP) else Unzstd() if data.startswith(ZSTD) else None
            if self._unpacker is None:
                self._open = False
                return
        for piece in self._unpacker.feed(data):
            self._hash.update(piece)


class _Gunzip:
    """Any number of gzip's members (RFC 1952), as several tools write them one after the other."""

    def __init__(self) -> None:
        self._member = isal_zlib.decompressobj(_GZIP_WINDOW)
        self.between_frames = True

    def feed(self, packed: bytes) -> Iterator[bytes]:
        rest, full = packed, False
        while rest or full:
            if rest and self.between_frames:
                self._member = isal_zlib.decompressobj(_GZIP_WINDOW)
                self.between_frames = False
            content = self._member.decompress(rest, _PIECE)
            yield content
            self.between_frames = self._member.eof
            rest = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            # A full piece may not have been all that came of these bytes.
            full = len(content) == _PIECE and not self._member.eof
