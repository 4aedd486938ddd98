"""Reads a tar archive from a stream of chunks, in constant memory, without seeking.

POSIX pax and ustar and GNU's long names and sizes, as Go's archive/tar writes them.  By hand, because tarfile's stream
mode copies every byte that is only to be skipped.
"""

import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tasks.images.saved.pax import ArchiveError, pax_records, whole_number

__all__ = ["ArchiveError", "CutShortError", "Entry", "Tape"]

_BLOCK = tarfile.BLOCKSIZE
_LONGEST_NAME = 1 << 20  # A longer name or pax header is no archive of images.
_TAIL = 4096  # Enough for an engine's message at the end of a stream that it broke off.
_REGULAR = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})
# A size in their headers counts for nothing (Go's archive/tar, isHeaderOnlyType).
_WITHOUT_DATA = frozenset(
    {tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE}
)


class CutShortError(ArchiveError):
    """The stream ended inside the archive; `tail` are its last bytes, where an engine may have written its reason."""

    def __init__(self, text: str, tail: bytes) -> None:
        super().__init__(text)
        self.tail = tail


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of the archive: its path, size in bytes, and whether it is a regular file."""

    name: str
    size: int
    regular: bool


class Tape:
    """The members of an archive in order: `advance`, then `chunks`, `content`, or neither for a member to skip."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._buffer = b""
        self._offset = 0
        self._left = 0
        self._padding = 0
        self._tail = b""
        self.passed = 0

    def advance(self) -> Entry | None:
        """The next member, None at the end mark; raise `ArchiveError`, or `CutShortError` where the mark is missing."""
        told: dict[str, str] = {}
        while True:
            self._skip()
            block = self._exactly(_BLOCK)
            if block.count(0) == _BLOCK:
                return None
            info = self._header(block)
            self._left, self._padding = info.size, -info.size % _BLOCK
            if info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                told |= pax_records(self.content(_LONGEST_NAME))
            elif info.type == tarfile.GNUTYPE_LONGNAME:
                told["path"] = _text(self.content(_LONGEST_NAME))
            elif info.type not in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
                return self._entry(info, told)

    def chunks(self) -> Iterator[bytes]:
        """The rest of the current member's bytes."""
        while self._left:
            yield self._take(self._left)

    def content(self, most: int) -> bytes:
        """The current member's bytes; raise `ArchiveError` where they are more than `most`."""
        if self._left > most:
            raise ArchiveError(f"a member of {self._left} bytes at {self.passed}, where a small one is expected")
        return b"".join(self.chunks())

    def _entry(self, info: tarfile.TarInfo, told: dict[str, str]) -> Entry:
        if info.type == tarfile.GNUTYPE_SPARSE:
            raise ArchiveError(f"a sparse file at {self.passed}")
        if "size" in told:
            self._left = whole_number(told["size"])
            self._padding = -self._left % _BLOCK
        if info.type in _WITHOUT_DATA:
            self._left = self._padding = 0
        return Entry(told.get("path", info.name).removeprefix("./"), self._left, info.type in _REGULAR)

    def _header(self, block: bytes) -> tarfile.TarInfo:
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            self._tail = block + self._buffer[self._offset : self._offset + _TAIL]
            if b'{"errorDetail"' in self._tail:
                raise CutShortError(f"the archive breaks off at byte {self.passed}", self._tail) from None
            raise ArchiveError(f"no tar header at byte {self.passed - _BLOCK}: {error}") from None
        if info.size < 0:
            raise ArchiveError(f"a member with a negative size at byte {self.passed - _BLOCK}")
        return info

    def _skip(self) -> None:
        left = self._left + self._padding
        self._left = left
        self._padding = 0
        while self._left:
            self._take(self._left)

    def _exactly(self, size: int) -> bytes:
        if len(self._buffer) - self._offset >= size:
            begin, self._offset = self._offset, self._offset + size
            self.passed += size
            return self._buffer[begin : self._offset]
        self._left = size
        return b"".join(self.chunks())

    def _take(self, most: int) -> bytes:
        """At least one and at most `most` bytes of the current member."""
        if self._offset == len(self._buffer):
            self._refill()
        begin, end = self._offset, min(self._offset + most, len(self._buffer))
        whole = begin == 0 and end == len(self._buffer)
        piece = self._buffer if whole else self._buffer[begin:end]
        self._offset = end
        self._left -= end - begin
        self.passed += end - begin
        return piece

    def _refill(self) -> None:
        ended, self._offset = self._buffer, 0
        self._buffer = next((chunk for chunk in self._chunks if chunk), b"")
        if not self._buffer:
            raise CutShortError(f"the archive breaks off at byte {self.passed}", (self._tail + ended)[-_TAIL:])
        self._tail = ended[-_TAIL:] if len(ended) >= _TAIL else (self._tail + ended)[-_TAIL:]


def _text(content: bytes) -> str:
    return content.rstrip(b"\0").decode("utf-8", "surrogateescape")
