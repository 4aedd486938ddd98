"""What a bundle looks like: its name, its members, and the two seals that cover every byte of it.

A bundle is one tar archive that is an OCI image layout (image-spec, image-layout.md), with three members of its own:

    apinizer-bundle           the mark: which format this is
    oci-layout
    blobs/sha256/...          configs, layers, manifests, each named by the digest of its bytes
    index.json                the images' names
    manifest.json             the same for `docker load`; not in a bundle that leaves layers out
    apinizer-bundle.json      the record (see record.py)
    apinizer-bundle.sha256    the seal: SHA-256 of all bytes before this member's header

Headers and paddings are those that `layout.tar_member` writes and no others, so the seal and the end blocks behind it
are a function of the bytes before: a changed, missing or additional byte is seen wherever it is.

Compressed, the archive is cut into zstd frames of `FRAME` bytes, each with a content checksum, and ends in two
skippable frames (RFC 8878, 3.1.2), which decompressors pass over: the seal of the compressed bytes, and the seek table
of zstd's seekable format (facebook/zstd, contrib/seekable_format), by which single frames are found.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tasks.images.layout import TAR_END, tar_file

Compression = Literal["zstd", "none"]

FORMAT: Final = "apinizer-upgrade/bundle/1"
MARK: Final = "apinizer-bundle"
RECORD: Final = "apinizer-bundle.json"
SEAL: Final = "apinizer-bundle.sha256"
FOR_DOCKER: Final = "manifest.json"
BLOBS: Final = "blobs/sha256/"

FRAME: Final = 4 * 1024 * 1024
"""Bytes of the archive in one zstd frame: little enough to read a layer alone, enough to compress well."""

ZSTD: Final = b"\x28\xb5\x2f\xfd"
GZIP: Final = b"\x1f\x8b"
_SEAL_MAGIC: Final = 0x184D2A53
_TABLE_MAGIC: Final = 0x184D2A5E
_FOOTER_MAGIC: Final = 0x8F92EAB1
_FOOTER = struct.Struct("<IBI")
_HEAD = struct.Struct("<II")
_ENTRY = struct.Struct("<II")
_SEAL_TEXT: Final = b"apinizer-bundle "
SEAL_FRAME_SIZE: Final = _HEAD.size + len(_SEAL_TEXT) + 32
# 2^27 entries are the seekable format's limit; a thousandth of that are 500 GB.
_MOST_FRAMES: Final = 1 << 17


def bundle_name(version: str, *, since: str = "", compress: Compression = "none") -> str:
    """`apinizer-images--2025.07.0--since-2025.04.3.tar.zst`; without the middle part for a complete bundle."""
    middle = f"--since-{since}" if since else ""
    return f"apinizer-images--{version}{middle}.tar{'.zst' if compress == 'zstd' else ''}"


def seal(sha256: str) -> bytes:
    """The end of an archive whose bytes so far have this SHA-256 (hexadecimal)."""
    return tar_file(SEAL, f"{sha256}\n".encode()) + TAR_END


SEAL_SIZE: Final = len(seal("0" * 64))
MARK_MEMBER: Final = tar_file(MARK, f"{FORMAT}\n".encode())


@dataclass(frozen=True, slots=True)
class Frame:
    """A zstd frame: where it is in the file, and the bytes of the archive that it unpacks to."""

    at: int
    packed: int
    start: int
    size: int


def zstd_tail(sizes: Sequence[tuple[int, int]], sha256: "hashlib._Hash") -> bytes:
    """The two skippable frames behind frames of these (packed, unpacked) sizes, whose bytes `sha256` has seen.

    The seal covers the frames and the seek table.
    """
    entries = [*sizes, (SEAL_FRAME_SIZE, 0)]
    body = b"".join(_ENTRY.pack(*entry) for entry in entries) + _FOOTER.pack(len(entries), 0, _FOOTER_MAGIC)
    table = _HEAD.pack(_TABLE_MAGIC, len(body)) + body
    sealed = sha256.copy()
    sealed.update(table)
    return _HEAD.pack(_SEAL_MAGIC, SEAL_FRAME_SIZE - _HEAD.size) + _SEAL_TEXT + sealed.digest() + table


def zstd_tail_size(end: bytes) -> int | None:
    """The length of the two skippable frames of a file that ends in `end` (9 bytes or more); None where it has none."""
    if len(end) < _FOOTER.size:
        return None
    count, flags, magic = _FOOTER.unpack(end[-_FOOTER.size :])
    if magic != _FOOTER_MAGIC or flags or not 2 <= count <= _MOST_FRAMES:
        return None
    return SEAL_FRAME_SIZE + _HEAD.size + int(count) * _ENTRY.size + _FOOTER.size


def zstd_frames(tail: bytes) -> tuple[Frame, ...] | None:
    """The frames that a tail lists, without the seal; None where one is larger than any that is written."""
    entries = tail[SEAL_FRAME_SIZE + _HEAD.size : -_FOOTER.size]
    frames: list[Frame] = []
    at = start = 0
    for packed, size in list(_ENTRY.iter_unpack(entries))[:-1]:
        if size > FRAME or packed > 2 * FRAME or not size:
            return None
        frames.append(Frame(at, packed, start, size))
        at, start = at + packed, start + size
    return tuple(frames)


def is_own(head: bytes, end: bytes) -> bool:
    """Whether a file that unpacks to `head` and ends in `end` is, or was meant to be, a bundle of this project.

    There are marks at both ends, so that a damaged one is not taken for a foreign archive, of which less can be proved.
    """
    marks = (MARK.encode(), FORMAT.encode()[:-2])
    return any(mark in head[: len(MARK_MEMBER)] for mark in marks) or any(mark in end for mark in marks)
