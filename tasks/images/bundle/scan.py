"""Goes through a tar archive once, from start to end, and keeps where each member is and what its bytes hash to.

What an archive of images does not hold is refused: a member twice, a path that leads out, devices; and in a bundle of
this project every header that is not the very one that is written.
Formats: POSIX.1-2008 pax (its path, linkpath, size), GNU long names (tar's manual, "Basic Tar Format").
"""

import hashlib
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tasks.images.bundle.body import damaged
from tasks.images.bundle.form import SEAL
from tasks.images.bundle.unpacking import Unpacked
from tasks.images.layout import tar_member
from tasks.images.saved.pax import ArchiveError, pax_records

BLOCK: Final = tarfile.BLOCKSIZE
SMALL: Final = 4 * 1024 * 1024
"""Members up to this size that look like JSON are kept: manifests, configs, indexes."""

_ALL_KEPT: Final = 64 * 1024 * 1024
_LARGEST_EXTENSION: Final = 1024 * 1024
_MOST_MEMBERS: Final = 100_000
_LINKS: Final = (tarfile.SYMTYPE, tarfile.LNKTYPE)
_FILES: Final = (tarfile.REGTYPE, tarfile.AREGTYPE)
_NAMES: Final = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_ZERO: Final = bytes(BLOCK)


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file of the archive: `at` is where its content begins; `content` is kept of small JSON only.

    `head` are its first bytes, `link` the path that a link leads to (such a member has no content of its own).
    `unpacked` is the digest of what it unpacks to, "" where it is not compressed.
    """

    name: str
    at: int
    size: int
    digest: str
    content: bytes | None = None
    head: bytes = b""
    link: str = ""
    unpacked: str = ""


@dataclass(slots=True)
class Scan:
    """A scan of the archive that `chunks` are; `members` by name in their order, filled by `run`.

    With `canonical` every header must be `layout.tar_member`'s, and the scan ends at the seal: `end` are the bytes from
    there on.  Without, what other tools write is read as well.
    """

    chunks: Iterator[bytes]
    canonical: bool
    members: dict[str, Member] = field(default_factory=dict)
    end: bytes = b""
    _at: int = 0
    _kept: int = 0
    _buffer: memoryview = field(default_factory=lambda: memoryview(b""))

    def run(self) -> None:
        """Read to the end; raise `DamagedArchiveError`."""
        while (header := self._header()) is not None:
            if self.canonical and header.name == SEAL:
                self.end = tar_member(SEAL, header.size) + b"".join(self._stream(16 * BLOCK, short=True))
                return
            self._member(header)
            if len(self.members) > _MOST_MEMBERS:
                raise damaged("it holds more files than any archive of images")
        if self.canonical:
            raise damaged("its seal is missing")
        self._behind()

    def _header(self) -> tarfile.TarInfo | None:
        """The next member's header, with what extension headers say of it; None at the first end block."""
        long: dict[str, str] = {}
        while True:
            raw = self._exactly(BLOCK)
            if raw == _ZERO and not long:
                return None
            try:
                info = tarfile.TarInfo.frombuf(raw, "utf-8", "surrogateescape")
            except tarfile.HeaderError as problem:
                raise damaged(f"it is no tar archive, or a header in it is broken ({problem})") from None
            if info.size < 0:
                raise damaged("a member of it has a negative size")
            if self.canonical and (info.type not in _FILES or raw != tar_member(info.name, info.size)):
                raise damaged("a header in it is not as this software writes it")
            if info.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, *_NAMES):
                self._extension(info, long)
                continue
            info.name = long.get("path", info.name)
            info.linkname = long.get("linkpath", info.linkname)
            info.size = int(long.get("size", info.size))
            return info

    def _extension(self, info: tarfile.TarInfo, long: dict[str, str]) -> None:
        if info.size > _LARGEST_EXTENSION:
            raise damaged("an extension header in it is too large")
        content = self._exactly(info.size)
        self._exactly(-info.size % BLOCK)
        if info.type == tarfile.XHDTYPE:
            long.update(_pax(content))
        elif info.type in _NAMES:
            long[_NAMES[info.type]] = content.rstrip(b"\0").decode("utf-8", "surrogateescape")

    def _member(self, info: tarfile.TarInfo) -> None:
        name = _path(info.name)
        if info.type == tarfile.DIRTYPE:
            return
        if name in self.members:
            raise damaged(f"it holds {name!r} twice")
        if info.type in _LINKS:
            # A hard link's target is a path from the archive's root, a symbolic one's from where it lies.
            folder = "" if info.type == tarfile.LNKTYPE else posixpath.dirname(name)
            target = _path(posixpath.normpath(posixpath.join(folder, info.linkname)))
            self.members[name] = Member(name, self._at, 0, "", link=target)
        elif info.type in _FILES:
            self.members[name] = self._content(name, info.size)
            if any(self._exactly(-info.size % BLOCK)) and self.canonical:
                raise damaged("there is something between its members")
        else:
            raise damaged(f"it holds {name!r}, which is neither a file nor a folder")

    def _content(self, name: str, size: int) -> Member:
        at, digest, head, kept, unpacked = self._at, hashlib.sha256(), b"", bytearray(), Unpacked()
        keep = size <= SMALL and self._kept + size <= _ALL_KEPT
        for chunk in self._stream(size):
            head += bytes(chunk[: 4 - len(head)])
            digest.update(chunk)
            unpacked.update(chunk)
            if keep and head[:1] in (b"{", b"["):
                kept += chunk
        self._kept += len(kept)
        content = bytes(kept) if kept else None
        return Member(name, at, size, f"sha256:{digest.hexdigest()}", content, head, unpacked=unpacked.digest)

    def _behind(self) -> None:
        """The second end block, and nothing but zeros behind it: other tools fill their last record with them."""
        self._exactly(BLOCK, zero=True)
        for chunk in self._stream(1 << 62, short=True):
            if chunk.tobytes().strip(b"\0"):
                raise damaged("something follows its end")

    def _exactly(self, size: int, *, zero: bool = False) -> bytes:
        content = b"".join(self._stream(size))
        if zero and any(content):
            raise damaged("its end is not where it should be")
        return content

    def _stream(self, size: int, *, short: bool = False) -> Iterator[memoryview]:
        """The next `size` bytes in pieces; fewer only with `short`."""
        while size:
            if not self._buffer:
                self._buffer = memoryview(next(self.chunks, b""))
            if not self._buffer:
                if short:
                    return
                raise damaged("it ends too early")
            piece, self._buffer = self._buffer[:size], self._buffer[size:]
            self._at += len(piece)
            size -= len(piece)
            yield piece


def _path(name: str) -> str:
    """A member's path from the archive's root; raise where it leads out of it."""
    parts = name.rstrip("/").split("/")
    if name.startswith("/") or ".." in parts or "\0" in name or not name:
        raise damaged(f"it holds the path {name!r}, which leads out of it")
    return "/".join(part for part in parts if part not in ("", ".")) or "."


def _pax(content: bytes) -> dict[str, str]:
    """What a pax header says of where a member is and how large; raise `DamagedArchiveError`."""
    try:
        records = pax_records(content)
    except ArchiveError as problem:
        raise damaged(f"an extension header in it is broken ({problem})") from None
    return {key: records[key] for key in ("path", "linkpath", "size") if key in records}
