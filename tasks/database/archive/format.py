"""The byte layout of a `mongodump --archive` file, format version 0.1.

    archive  = magic, header, *collection, terminator, *block
    block    = namespace header, *document, terminator
    magic    = 6d e2 99 81                 (0x8199e26d, little-endian)
    terminator = ff ff ff ff

Everything else is a BSON document.  Blocks of several namespaces interleave;
each namespace ends with a block that holds only a header with `EOF: true` and
the CRC-64 of all its documents, in their order.  An empty collection, and a
view, has one block without documents before that end: mongorestore makes the
collection or the view when it meets it.  With `--gzip` the whole is one gzip
stream.

Source: mongodb/mongo-tools, common/archive/spec.md, prelude.go, multiplexer.go
and parser.go (limits); the checksum is Go's `crc64.ECMA`, which is the
reflected one with all ones before and after, known as CRC-64/XZ.
"""

import struct
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import bson
from bson.errors import BSONError
from fastcrc import crc64

MAGIC = bytes.fromhex("6de29981")
TERMINATOR = b"\xff\xff\xff\xff"
FORMAT_VERSION = "0.1"
GZIP_MAGIC = b"\x1f\x8b"

SMALLEST_DOCUMENT = 5
LARGEST_DOCUMENT = 16 * 1024 * 1024 + 16 * 1024
"""16 MiB for the user's document and 16 KiB for what a server may add (mongo-tools, `db.MaxBSONSize`)."""

EMPTY_CRC = 0

_LENGTH = struct.Struct("<i")
_T = TypeVar("_T")


class FormatError(ValueError):
    """Bytes that the format does not allow; the text says which rule they break."""


class UnknownFormatError(FormatError):
    """An archive of a format version that this software does not know."""


class OtherFormatError(FormatError):
    """A file that is something else altogether; the text says what."""


def checksum(data: bytes | memoryview, before: int = EMPTY_CRC) -> int:
    """CRC-64/XZ of `data`, unsigned, continued from the checksum `before` of what came earlier."""
    return crc64.xz(data, before)


@dataclass(frozen=True, slots=True, order=True)
class Namespace:
    """A database and a collection in it; the oplog of a whole server has no database."""

    db: str
    collection: str

    def __str__(self) -> str:
        return f"{self.db}.{self.collection}" if self.db else self.collection


@dataclass(frozen=True, slots=True)
class Header:
    """The archive's first document.  `concurrent_collections` is how many namespaces interleave at most."""

    server_version: str
    tool_version: str
    concurrent_collections: int = 1
    version: str = FORMAT_VERSION

    def encode(self) -> bytes:
        """`{concurrent_collections: int32, version, server_version, tool_version}` in that order."""
        return bson.encode(
            {
                "concurrent_collections": self.concurrent_collections,
                "version": self.version,
                "server_version": self.server_version,
                "tool_version": self.tool_version,
            }
        )

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Raises FormatError for a document that is no header.  The first tools wrote no versions of server and tool."""
        fields = _fields(raw, "header")
        return cls(
            version=_take(fields, "version", str, "header"),
            server_version=_take({"server_version": "", **fields}, "server_version", str, "header"),
            tool_version=_take({"tool_version": "", **fields}, "tool_version", str, "header"),
            concurrent_collections=_take(fields, "concurrent_collections", int, "header"),
        )


@dataclass(frozen=True, slots=True)
class CollectionEntry:
    """What the archive announces of one collection before any data.

    `metadata` is canonical extended JSON (see `metadata.py`), empty for users, roles and the oplog.
    `size` is always written as 0, as mongodump does, for it is not known yet.
    """

    namespace: Namespace
    metadata: str
    type: str
    size: int = 0

    def encode(self) -> bytes:
        """`{db, collection, metadata, size: int32, type}` in that order."""
        return bson.encode(
            {
                "db": self.namespace.db,
                "collection": self.namespace.collection,
                "metadata": self.metadata,
                "size": self.size,
                "type": self.type,
            }
        )

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Raises FormatError.  Archives of older tools have no `type`: it is then empty."""
        fields = _fields(raw, "collection entry")
        return cls(
            namespace=_namespace(fields, "collection entry"),
            metadata=_take(fields, "metadata", str, "collection entry"),
            size=_take(fields, "size", int, "collection entry"),
            type=_take({"type": "", **fields}, "type", str, "collection entry"),
        )

    @property
    def data_namespaces(self) -> tuple[Namespace, ...]:
        """Where the data may be: a time series keeps it in its buckets on servers before 8.3."""
        if self.type == "timeseries":
            db, collection = self.namespace.db, self.namespace.collection
            return (Namespace(db, f"system.buckets.{collection}"), self.namespace)
        return (self.namespace,)


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """The first document of a block.  `crc` is unsigned here and a signed int64 in the file."""

    namespace: Namespace
    eof: bool = False
    crc: int = EMPTY_CRC

    def encode(self) -> bytes:
        """`{db, collection, EOF: bool, CRC: int64}` in that order."""
        signed = self.crc - (1 << 64) if self.crc >> 63 else self.crc
        return bson.encode(
            {
                "db": self.namespace.db,
                "collection": self.namespace.collection,
                "EOF": self.eof,
                "CRC": bson.Int64(signed),
            }
        )

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Raises FormatError for a document that is no block header; only one of an end has a checksum."""
        fields = _fields(raw, "block header")
        crc = _take(fields, "CRC", int, "block header")
        eof = _take(fields, "EOF", bool, "block header")
        if crc and not eof:
            raise FormatError("a block header that is no end has a checksum")
        return cls(namespace=_namespace(fields, "block header"), eof=eof, crc=crc & 0xFFFF_FFFF_FFFF_FFFF)


def length_at(data: bytes | memoryview, offset: int) -> int:
    """The length in bytes of the document at `offset`, or -1 for the terminator.

    Raises FormatError for a length that no document may have.
    """
    length: int = _LENGTH.unpack_from(data, offset)[0]
    if length == -1 or SMALLEST_DOCUMENT <= length <= LARGEST_DOCUMENT:
        return length
    raise FormatError(f"{length} is neither the length of a document nor the terminator")


def split(data: bytes) -> list[bytes]:
    """The documents of a run of whole documents, as the reader and the server's batches give them."""
    documents = []
    offset = 0
    while offset < len(data):
        end = offset + length_at(data, offset)
        documents.append(data[offset:end])
        offset = end
    return documents


def _fields(raw: bytes, what: str) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = bson.decode(raw)
        # The driver lets pass what no tool writes, such as a symbol in place of a text.
        same = bson.encode(fields) == raw
    except (BSONError, ValueError, TypeError, OverflowError, RecursionError) as problem:
        raise FormatError(f"the {what} is not a BSON document") from problem
    if not same:
        raise FormatError(f"the {what} is not BSON as it is written")
    return fields


def _namespace(fields: dict[str, Any], what: str) -> Namespace:
    collection = _take(fields, "collection", str, what)
    if not collection:
        raise FormatError(f"the {what} names no collection")
    return Namespace(_take(fields, "db", str, what), collection)


def _take(fields: dict[str, Any], name: str, kind: type[_T], what: str) -> _T:
    value = fields.get(name)
    # bool is an int in Python, not in BSON.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise FormatError(f"the {what} has no {name} of the right type")
    return value
