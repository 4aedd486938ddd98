"""What a file is that is no archive, told from its first bytes: a person who names the wrong file should read which."""

from tasks.database.archive.format import LARGEST_DOCUMENT, SMALLEST_DOCUMENT, FormatError, OtherFormatError

ENOUGH = 512
"""Bytes from the start that are looked at."""

_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip file"),
    (b"PK\x05\x06", "an empty zip file"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"\x04\x22\x4d\x18", "compressed with lz4"),
    (b"\xfd7zXZ\x00", "compressed with xz"),
    (b"BZh", "compressed with bzip2"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z file"),
    (b"Salted__", "encrypted with openssl"),
    (b"age-encryption.org/", "encrypted with age"),
    (b"-----BEGIN", "a PEM or PGP text"),
    (b"\x1f\x8b", "compressed with gzip twice"),
    (b"{", "a JSON text, perhaps the manifest of an archive"),
    (b"[", "a JSON text"),
)
_BSON_TYPES = {*range(0x01, 0x14), 0x7F, 0xFF}
_LONGEST_NAME = 256


def not_an_archive(first: bytes) -> FormatError:
    """The error for bytes that do not begin as an archive does."""
    if not first:
        return FormatError("the file is empty")
    if not any(first[:ENOUGH]):
        return FormatError("the file begins with zero bytes, as one does that a crash left without its data")
    if kind := kind_of(first[:ENOUGH]):
        return OtherFormatError(f"the file is no mongodump archive but {kind}")
    return FormatError("the file is no mongodump archive")


def kind_of(first: bytes) -> str:
    """What a file beginning with `first` (ENOUGH bytes, or the whole) is, "" where that cannot be told."""
    for start, kind in _STARTS:
        if first.startswith(start):
            return kind
    if first[257:262] == b"ustar":
        return "a tar file"
    if _is_bson(first):
        return "a file of BSON documents, as mongodump writes them without --archive"
    return ""


def _is_bson(first: bytes) -> bool:
    """A document's length, its first field's type, and that field's name."""
    if len(first) < SMALLEST_DOCUMENT:
        return False
    length = int.from_bytes(first[:4], "little", signed=True)
    if not SMALLEST_DOCUMENT <= length <= LARGEST_DOCUMENT:
        return False
    return first[4] in _BSON_TYPES and first.find(b"\x00", 5, 5 + _LONGEST_NAME) > 0
