"""Bytes on their way from the disk: hashed, unzipped where the file is gzip, in bounded pieces."""

import hashlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from isal import igzip_lib

from tasks.database.archive.format import GZIP_MAGIC, MAGIC, FormatError
from tasks.database.archive.recognition import not_an_archive

_PIECE = 1024 * 1024
_DAMAGED = cast("type[Exception]", igzip_lib.error)  # Its stub calls it an instance.


class Inlet:
    """The archive's own bytes, whatever the file's are.

    `sha256` and `size` are of the file's bytes, complete once the pieces have been taken to their end.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0
        self.gzip = False

    @property
    def sha256(self) -> str:
        """Hexadecimal, of what was read so far."""
        return self._hash.hexdigest()

    def pieces(self) -> Iterator[bytes]:
        """Pieces of at most 1 MiB or so.

        Raises FormatError for what is neither gzip nor an archive, for a damaged or cut gzip stream, and
        for bytes after its end; it is OtherFormatError where the first bytes tell what the file is.
        """
        first = self._read()
        if first[:2] == GZIP_MAGIC:
            self.gzip = True
            yield from self._unzipped(first)
        elif first[:4] == MAGIC:
            while first:
                yield first
                first = self._read()
        else:
            raise not_an_archive(first)

    def _read(self) -> bytes:
        data = self._file.read(_PIECE)
        self._hash.update(data)
        self.size += len(data)
        return data

    def _unzipped(self, data: bytes) -> Iterator[bytes]:
        # Several gzip members in a row are one stream (RFC 1952, 2.2).
        while data:
            member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            while not member.eof:
                if member.needs_input and not data and not (data := self._read()):
                    raise FormatError("the gzip stream is cut short")
                try:
                    piece = member.decompress(data, _PIECE)
                except _DAMAGED as problem:
                    raise FormatError(f"the gzip stream is damaged ({problem})") from problem
                data = b""
                if piece:
                    yield piece
            data = member.unused_data or self._read()
            if len(data) == 1:
                data += self._read()
            if data and data[:2] != GZIP_MAGIC:
                raise FormatError("there are bytes after the end of the gzip stream")
