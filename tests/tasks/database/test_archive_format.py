"""The archive against its specification: bytes built by hand, round trips, and everything that must be refused."""

import gzip
import io
import struct
from collections.abc import Callable
from typing import Any

import bson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.database.archive.format import (
    LARGEST_DOCUMENT,
    TERMINATOR,
    BlockHeader,
    CollectionEntry,
    FormatError,
    Header,
    Namespace,
    checksum,
    split,
)
from tasks.database.archive.inlet import Inlet
from tasks.database.archive.reader import ArchiveReader, Documents, NamespaceEnd
from tasks.database.archive.writer import ArchiveWriter

Archive = Callable[..., bytes]

MAGIC = bytes.fromhex("6de29981")
METADATA = '{"indexes":[],"collectionName":"c"}'


def crc64(data: bytes) -> int:
    """CRC-64 with the ECMA polynomial, reflected, all ones before and after: bit by bit, as written in the standard."""
    crc = 0xFFFF_FFFF_FFFF_FFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0xC96C_5795_D787_0F42 if crc & 1 else 0)
    return crc ^ 0xFFFF_FFFF_FFFF_FFFF


def header(**changes: Any) -> bytes:
    fields = {"concurrent_collections": 4, "version": "0.1", "server_version": "7.0.5", "tool_version": "100.9.4"}
    return bson.encode({**fields, **changes})


def entry(name: str = "c", **changes: Any) -> bytes:
    fields = {"db": "db", "collection": name, "metadata": METADATA, "size": 0, "type": "collection"}
    return bson.encode({**fields, **changes})


def block(name: str = "c", *documents: bytes, eof: bool = False, crc: int = 0) -> bytes:
    signed = struct.unpack("<q", struct.pack("<Q", crc))[0]
    head = bson.encode({"db": "db", "collection": name, "EOF": eof, "CRC": bson.Int64(signed)})
    return head + b"".join(documents) + TERMINATOR


def ended(name: str, *documents: bytes) -> bytes:
    return block(name, *documents) + block(name, eof=True, crc=crc64(b"".join(documents)))


def read(data: bytes, piece: int = 1 << 20) -> tuple[dict[str, list[bytes]], list[str]]:
    """Documents of each namespace and the names in the order of their ends."""
    reader = ArchiveReader(data[i : i + piece] for i in range(0, len(data), piece))
    found: dict[str, list[bytes]] = {str(n): [] for e in reader.prelude().entries for n in (e.namespace,)}
    order = []
    for item in reader.blocks():
        if isinstance(item, Documents):
            found.setdefault(str(item.namespace), []).extend(split(item.data))
        else:
            order.append(str(item.namespace))
    return found, order


ONE, TWO = bson.encode({"_id": 1}), bson.encode({"_id": 2, "text": "é"})
PRELUDE = MAGIC + header() + entry() + TERMINATOR


def test_checksum_is_the_standards() -> None:
    # The check value of CRC-64/XZ in the catalogue of CRC algorithms.
    assert checksum(b"123456789") == 0x995D_C9BB_DF19_39FA == crc64(b"123456789")
    assert checksum(b"6789", checksum(b"12345")) == checksum(b"123456789")
    assert checksum(b"") == 0


def test_writer_writes_the_specified_bytes() -> None:
    """Header, entry, block, terminator, end: built here from the specification, byte for byte."""
    out = io.BytesIO()
    namespace = Namespace("db", "c")
    writer = ArchiveWriter(out, Header("7.0.5", "100.9.4", 4), [CollectionEntry(namespace, METADATA, "collection")])
    writer.begin(namespace)
    writer.documents(namespace, ONE + TWO, 2)
    writer.end(namespace)
    writer.close()
    assert out.getvalue() == PRELUDE + ended("c", ONE, TWO)


def test_header_and_crc_have_the_specified_integer_types() -> None:
    assert b"\x10concurrent_collections\x00" in Header("7", "t").encode()
    assert b"\x10size\x00" in CollectionEntry(Namespace("a", "b"), "", "").encode()
    high = BlockHeader(Namespace("a", "b"), eof=True, crc=0xFFFF_FFFF_FFFF_FFFE)
    assert b"\x12CRC\x00" + struct.pack("<q", -2) in high.encode()
    assert BlockHeader.decode(high.encode()) == high


def test_empty_collection_has_a_block_before_its_end() -> None:
    out = io.BytesIO()
    namespace = Namespace("db", "c")
    writer = ArchiveWriter(out, Header("7.0.5", "100.9.4", 4), [CollectionEntry(namespace, METADATA, "collection")])
    writer.begin(namespace)
    writer.end(namespace)
    assert out.getvalue() == PRELUDE + ended("c")


def test_namespaces_that_take_turns() -> None:
    """Segments as mongodump interleaves them: a new header each time, checksums over the whole namespace."""
    data = (
        MAGIC + header() + entry("c") + entry("d") + TERMINATOR
        + block("c", ONE) + block("d", TWO) + block("c", TWO)
        + block("d", eof=True, crc=crc64(TWO)) + block("c", eof=True, crc=crc64(ONE + TWO))
    )  # fmt: skip
    assert read(data) == ({"db.c": [ONE, TWO], "db.d": [TWO]}, ["db.d", "db.c"])


def test_time_series_data_is_in_its_buckets() -> None:
    """No server here has time series as MongoDB stores them: the bytes come from the specification."""
    data = MAGIC + header() + entry("ts", type="timeseries") + TERMINATOR + ended("system.buckets.ts", ONE)
    assert read(data)[0]["db.system.buckets.ts"] == [ONE]


def test_an_entry_of_an_older_tool_has_no_type() -> None:
    old = bson.encode({"db": "db", "collection": "c", "metadata": METADATA, "size": 0})
    assert read(MAGIC + header() + old + TERMINATOR + ended("c", ONE))[0] == {"db.c": [ONE]}


GOOD = PRELUDE + ended("c", ONE, TWO)
REFUSED = {
    "nothing": (b"", "empty"),
    "other magic": (b"\x00" + GOOD[1:], "no mongodump archive"),
    "a newer format": (MAGIC + header(version="0.2") + entry() + TERMINATOR + ended("c"), "format '0.2'"),
    "no header": (MAGIC + TERMINATOR, "header is missing"),
    "header of wrong types": (MAGIC + header(version=1) + TERMINATOR, "no version"),
    "announced twice": (MAGIC + header() + entry() + entry() + TERMINATOR + ended("c"), "twice"),
    "not announced": (PRELUDE + ended("c", ONE) + ended("x", ONE), "not announced"),
    "a namespace missing": (PRELUDE, "ends without db.c"),
    "an end missing": (PRELUDE + block("c", ONE), "ends before db.c does"),
    "after its end": (GOOD + block("c", ONE), "after its end"),
    "ended twice": (GOOD + block("c", eof=True, crc=crc64(ONE + TWO)), "after its end"),
    "documents in the end's block": (PRELUDE + block("c", ONE, eof=True), "block of its end"),
    "wrong checksum": (PRELUDE + block("c", ONE) + block("c", eof=True, crc=7), "checksum of db.c"),
    "checksum of an empty one": (PRELUDE + block("c") + block("c", eof=True, crc=7), "checksum of db.c"),
    "two terminators": (GOOD + TERMINATOR, "where a block header should"),
    "garbage at the end": (GOOD + b"garbage!", "neither the length"),
    "three bytes at the end": (GOOD + b"\x00\x00\x00", "cut short"),
    "negative length": (PRELUDE + block("c", struct.pack("<i", -2)), "-2 is neither"),
    "length of four": (PRELUDE + block("c", struct.pack("<i", 4)), "4 is neither"),
    "too large a document": (PRELUDE + block("c", struct.pack("<i", LARGEST_DOCUMENT + 1)), "is neither"),
    "no zero at the end": (PRELUDE + block("c", ONE[:-1] + b"\x01"), "zero byte"),
    "no zero at a header's end": (PRELUDE + block("c")[:-5] + b"\x01" + TERMINATOR, "zero byte"),
    "an end that is neither true nor false": (PRELUDE + block("c").replace(b"EOF\0\0", b"EOF\0\2"), "no BSON|not a BSON"),
    "a name that is a symbol": (PRELUDE + block("c").replace(b"\2db\0", b"\x0edb\0"), "as it is written"),
    "block header without CRC": (PRELUDE + bson.encode({"db": "db", "collection": "c", "EOF": False}), "CRC"),
    "block header without name": (PRELUDE + bson.encode({"db": "db", "collection": "", "EOF": False, "CRC": 0}), "no collection"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(data: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        read(data)


def test_cut_short_anywhere_is_refused() -> None:
    data = PRELUDE + ended("c", ONE, TWO)
    for length in range(len(data)):
        with pytest.raises(FormatError):
            read(data[:length])


@pytest.mark.parametrize("size", [16 * 1024 * 1024, LARGEST_DOCUMENT])
def test_largest_documents_pass(size: int) -> None:
    large = bson.encode({"_id": 1, "s": ""})
    large = bson.encode({"_id": 1, "s": "x" * (size - len(large))})
    assert len(large) == size
    head = PRELUDE + block("c", ONE, large, TWO)
    data = head + block("c", eof=True, crc=checksum(ONE + large + TWO))
    assert read(data)[0] == {"db.c": [ONE, large, TWO]}


def test_offset_of_the_damage_is_told() -> None:
    data = PRELUDE + ended("c", ONE)
    with pytest.raises(FormatError, match=rf"at byte {len(data)} of"):
        read(data + TERMINATOR[:2])


names = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60
)  # Dots, dollar signs, spaces, any script.
documents = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
    st.one_of(st.text(max_size=30), st.binary(max_size=30), st.booleans(), st.none(), st.floats(), st.integers(-(2**63), 2**63 - 1)),
    max_size=4,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    contents=st.dictionaries(names, st.lists(documents, max_size=6), max_size=4),
    rounds=st.integers(1, 3),
    piece=st.integers(1, 700),
)
def test_whatever_is_written_is_read_back(
    archive: Archive, contents: dict[str, list[dict[str, Any]]], rounds: int, piece: int
) -> None:
    found, order = read(archive(contents, rounds=rounds), piece)
    expected = {}
    for name, docs in contents.items():
        raws = [bson.encode(doc) for doc in docs]
        expected[f"db.{name}"] = [raw for turn in range(rounds) for raw in raws[turn::rounds]]
    assert found == expected
    assert sorted(order) == sorted(expected)


def inlet(data: bytes) -> bytes:
    return b"".join(Inlet(io.BytesIO(data)).pieces())


class TestGzip:
    """The gzip layer: other writers' streams, several members, damage."""

    def test_a_stream_of_python_or_go(self) -> None:
        assert inlet(gzip.compress(GOOD)) == GOOD

    def test_several_members_are_one_stream(self) -> None:
        assert inlet(gzip.compress(GOOD[:50]) + gzip.compress(GOOD[50:])) == GOOD

    @pytest.mark.parametrize("tail", [b"\x00", b"\x1f", b"garbage", b"\x00" * 512])
    def test_bytes_after_the_end(self, tail: bytes) -> None:
        with pytest.raises(FormatError):
            inlet(gzip.compress(GOOD) + tail)

    def test_cut_short_anywhere(self) -> None:
        data = gzip.compress(GOOD)
        for length in range(len(data)):
            with pytest.raises(FormatError):
                inlet(data[:length])

    def test_a_stream_that_unzips_to_much_comes_in_small_pieces(self) -> None:
        data = gzip.compress(MAGIC + bytes(64 * 1024 * 1024))
        assert max(len(piece) for piece in Inlet(io.BytesIO(data)).pieces()) <= 2 * 1024 * 1024

    def test_any_flipped_bit_of_the_stream_is_refused_or_changes_nothing(self) -> None:
        """A few bits say nothing about the content: the header's time and hints, codes unused, padding."""
        data = gzip.compress(GOOD, mtime=0)
        untold = set()
        for at in range(len(data)):
            for bit in range(8):
                changed = bytearray(data)
                changed[at] ^= 1 << bit
                try:
                    assert inlet(bytes(changed)) == GOOD
                    untold.add(at)
                except FormatError:
                    pass
        assert len(untold) < 15

    def test_neither_gzip_nor_archive(self) -> None:
        with pytest.raises(FormatError, match="no mongodump archive"):
            inlet(b"PK\x03\x04 a zip file")
        with pytest.raises(FormatError, match="empty"):
            inlet(b"")


def test_writer_refuses_to_leave_a_namespace_open() -> None:
    writer = ArchiveWriter(io.BytesIO(), Header("7.0.5", "t"), [])
    writer.begin(Namespace("db", "c"))
    with pytest.raises(ValueError, match=r"not ended: db\.c"):
        writer.close()
    with pytest.raises(ValueError, match="begun already"):
        writer.begin(Namespace("db", "c"))


def test_ends_tell_what_they_hold() -> None:
    reader = ArchiveReader([PRELUDE + ended("c", ONE, TWO)])
    assert reader.prelude().header == Header("7.0.5", "100.9.4", 4)
    ends = [item for item in reader.blocks() if isinstance(item, NamespaceEnd)]
    assert ends == [NamespaceEnd(Namespace("db", "c"), 2, len(ONE + TWO), crc64(ONE + TWO))]
