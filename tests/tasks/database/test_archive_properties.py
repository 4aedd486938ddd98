"""Archives that nobody thought of: any names, documents, runs, turns, pieces; and bytes of the specification alone.

The encoder here is written from bsonspec.org and mongo-tools' spec.md; it shares no line with the product or
with the driver, so that what it makes and what the product reads agree only where both follow the format.
"""

import gzip
import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isal import isal_zlib

from tasks.database.archive.ahead import ahead
from tasks.database.archive.format import CollectionEntry, FormatError, Header, Namespace, split
from tasks.database.archive.inlet import Inlet
from tasks.database.archive.metadata import CollectionMetadata, decode
from tasks.database.archive.outlet import Outlet
from tasks.database.archive.reader import ArchiveReader, Documents, NamespaceEnd
from tasks.database.archive.writer import ArchiveWriter
from tasks.database.proof import Proof, prove

FEW = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

END = b"\xff\xff\xff\xff"


def cstring(text: str) -> bytes:
    return text.encode() + b"\x00"


def document(*fields: tuple[int, str, bytes]) -> bytes:
    """A BSON document of fields given as type, name and the value's bytes."""
    body = b"".join(bytes([kind]) + cstring(name) + value for kind, name, value in fields)
    return struct.pack("<i", len(body) + 5) + body + b"\x00"


def text(name: str, value: str) -> tuple[int, str, bytes]:
    raw = value.encode()
    return 0x02, name, struct.pack("<i", len(raw) + 1) + raw + b"\x00"


def int32(name: str, value: int) -> tuple[int, str, bytes]:
    return 0x10, name, struct.pack("<i", value)


def int64(name: str, value: int) -> tuple[int, str, bytes]:
    return 0x12, name, struct.pack("<q", value)


def boolean(name: str, *, value: bool) -> tuple[int, str, bytes]:
    return 0x08, name, bytes([value])


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0xC96C_5795_D787_0F42 if value & 1 else 0)  # noqa: PLW2901 - the textbook's loop
        table.append(value)
    return table


TABLE = _table()


def crc64(data: bytes) -> int:
    """CRC-64 with the ECMA polynomial, reflected, all ones before and after."""
    crc = 0xFFFF_FFFF_FFFF_FFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFF_FFFF_FFFF_FFFF


def prelude(*entries: bytes, server: str = "8.0.4", tool: str = "100.12.2") -> bytes:
    head = document(
        int32("concurrent_collections", 4), text("version", "0.1"), text("server_version", server), text("tool_version", tool)
    )  # fmt: skip
    return bytes.fromhex("6de29981") + head + b"".join(entries) + END


def announced(db: str, collection: str, metadata: str = "", kind: str = "") -> bytes:
    return document(
        text("db", db), text("collection", collection), text("metadata", metadata), int32("size", 0), text("type", kind)
    )


def head_of(db: str, collection: str, *, eof: bool = False, crc: int = 0) -> bytes:
    signed = struct.unpack("<q", struct.pack("<Q", crc))[0]
    return document(text("db", db), text("collection", collection), boolean("EOF", value=eof), int64("CRC", signed))


def namespace(db: str, collection: str, *documents: bytes) -> bytes:
    """A block of all documents and the end, as mongodump writes a small collection."""
    crc = crc64(b"".join(documents))
    return head_of(db, collection) + b"".join(documents) + END + head_of(db, collection, eof=True, crc=crc) + END


def metadata(name: str, *, indexes: list[Any] | None = None, options: Any = None, kind: str = "collection") -> str:
    fields: dict[str, Any] = {"options": options} if options else {}
    fields |= {
        "indexes": indexes or [],
        "uuid": "00112233445566778899aabbccddeeff",
        "collectionName": name,
        "type": kind,
    }
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def read(pieces: Iterator[bytes]) -> dict[Namespace, list[bytes]]:
    reader = ArchiveReader(pieces)
    reader.prelude()
    found: dict[Namespace, list[bytes]] = {}
    for item in reader.blocks():
        if isinstance(item, Documents):
            assert len(split(item.data)) == item.count
            found.setdefault(item.namespace, []).extend(split(item.data))
        else:
            found.setdefault(item.namespace, [])
            assert item.documents == len(found[item.namespace])
            assert item.crc == crc64(b"".join(found[item.namespace]))
    return found


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """`data` in pieces of these sizes, over and over; a size of 0 is an empty piece."""
    at, turn = 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)] + (turn // len(sizes) if not any(sizes) else 0)
        yield data[at : at + size]
        at, turn = at + size, turn + 1


LETTERS = st.characters(codec="utf-8", exclude_characters="\0")
NAMES = st.one_of(
    st.text(LETTERS, min_size=1, max_size=40),
    st.sampled_from(["a.b.c", "$cmd", "system.js", "system.buckets.x", "a$b..c", " ", "ü" * 127, "n" * 255, "日本" * 42, "\U0001f4be", "%24"]),
)  # fmt: skip
VALUES = st.one_of(
    st.tuples(st.just(0x01), st.floats(width=64).map(lambda v: struct.pack("<d", v))),
    st.tuples(
        st.just(0x02), st.text(LETTERS, max_size=20).map(lambda t: struct.pack("<i", len(t.encode()) + 1) + cstring(t))
    ),
    st.tuples(st.just(0x05), st.binary(max_size=30).map(lambda b: struct.pack("<i", len(b)) + b"\x80" + b)),
    st.tuples(st.just(0x06), st.just(b"")),  # undefined
    st.tuples(st.just(0x07), st.binary(min_size=12, max_size=12)),
    st.tuples(st.just(0x09), st.integers(-(2**63), 2**63 - 1).map(lambda v: struct.pack("<q", v))),
    st.tuples(st.just(0x0B), st.just(b"^a\x00i\x00")),
    st.tuples(st.just(0x0E), st.just(struct.pack("<i", 2) + b"s\x00")),  # symbol
    st.tuples(st.just(0x11), st.binary(min_size=8, max_size=8)),
    st.tuples(st.just(0x13), st.binary(min_size=16, max_size=16)),  # decimal128, any bits
    st.tuples(st.sampled_from([0x0A, 0x7F, 0xFF]), st.just(b"")),
)
DOCUMENTS = st.lists(st.tuples(VALUES, st.text(LETTERS, max_size=6)), max_size=5).map(
    lambda fields: document(*((value[0], name, value[1]) for value, name in fields))
)


@st.composite
def contents(draw: st.DrawFn) -> dict[Namespace, list[list[bytes]]]:
    """Runs of documents by namespace."""
    spaces = draw(
        st.lists(st.builds(Namespace, st.text(LETTERS, min_size=1, max_size=8), NAMES), max_size=5, unique=True)
    )
    return {space: draw(st.lists(st.lists(DOCUMENTS, max_size=4), max_size=4)) for space in spaces}


@st.composite
def turns(draw: st.DrawFn, runs: dict[Namespace, list[list[bytes]]]) -> list[Namespace]:
    """An order in which the namespaces' runs are written."""
    return draw(st.permutations([space for space, found in runs.items() for _ in found]))


PIECES = st.lists(st.integers(0, 200), min_size=1, max_size=4)


@MANY
@given(data=st.data(), runs=contents(), pieces=PIECES)
def test_what_is_written_is_read_back(
    data: st.DataObject, runs: dict[Namespace, list[list[bytes]]], pieces: list[int]
) -> None:
    out = io.BytesIO()
    writer = ArchiveWriter(out, Header("8.0.4", "t", 4), [CollectionEntry(space, "", "collection") for space in runs])
    left = {space: list(found) for space, found in runs.items()}
    begun = set()
    for space in data.draw(turns(runs)):
        if space not in begun:
            writer.begin(space)
            begun.add(space)
        run = left[space].pop(0)
        writer.documents(space, b"".join(run), len(run))
        if not left[space] and data.draw(st.booleans()):
            writer.end(space)
    for space in runs:
        if space not in begun:
            writer.begin(space)
    for space in list(writer._open):
        writer.end(space)
    writer.close()
    expected = {space: [one for run in found for one in run] for space, found in runs.items()}
    assert read(cut(out.getvalue(), pieces)) == expected


@MANY
@given(data=st.data(), runs=contents(), pieces=PIECES)
def test_what_the_specification_writes_is_read(
    data: st.DataObject, runs: dict[Namespace, list[list[bytes]]], pieces: list[int]
) -> None:
    """Built by the encoder above: also a header again for the same namespace, and ends without a block before."""
    raw = prelude(*(announced(space.db, space.collection, "", "collection") for space in runs))
    left = {space: list(found) for space, found in runs.items()}
    for space in data.draw(turns(runs)):
        raw += head_of(space.db, space.collection) + b"".join(left[space].pop(0)) + END
    expected = {space: [one for run in found for one in run] for space, found in runs.items()}
    for space, documents in expected.items():
        raw += head_of(space.db, space.collection, eof=True, crc=crc64(b"".join(documents))) + END
    assert read(cut(raw, pieces)) == expected


@FEW
@given(runs=contents(), zipped=st.booleans(), level=st.sampled_from([0, 1, 6, 9]))
def test_through_the_files(
    tmp_path_factory: pytest.TempPathFactory, runs: dict[Namespace, list[list[bytes]]], *, zipped: bool, level: int
) -> None:
    """Outlet and inlet, gzip and plain; and the same bytes zipped by another library, in several members."""
    path = tmp_path_factory.getbasetemp() / "through.archive"
    with path.open("wb", buffering=0) as file, Outlet(file, gzip=zipped) as outlet:
        writer = ArchiveWriter(outlet, Header("8.0.4", "t"), [CollectionEntry(s, "", "collection") for s in runs])
        for space, found in runs.items():
            writer.begin(space)
            for run in found:
                writer.documents(space, b"".join(run), len(run))
            writer.end(space)
        writer.close()
        sha256 = outlet.finish()
    expected = {space: [one for run in found for one in run] for space, found in runs.items()}
    with path.open("rb") as file:
        inlet = Inlet(file)
        plain = b"".join(ahead(inlet.pieces()))
        assert (inlet.sha256, inlet.size, inlet.gzip) == (sha256, path.stat().st_size, zipped)
    assert read(iter([plain])) == expected
    middle = len(plain) // 2
    other = gzip.compress(plain[:middle], level) + gzip.compress(plain[middle:], level)
    assert b"".join(Inlet(io.BytesIO(other)).pieces()) == plain


@FEW
@given(size=st.integers(0, 3 << 20), seed=st.integers(0, 255))
def test_any_length_of_a_stream_comes_back(size: int, seed: int) -> None:
    """Lengths around the inlet's pieces of a MiB; small input that unzips to many pieces."""
    data = bytes.fromhex("6de29981") + bytes([seed]) * size
    zipped = isal_zlib.compressobj(1, isal_zlib.DEFLATED, 31)
    raw = zipped.compress(data) + zipped.flush()
    assert b"".join(Inlet(io.BytesIO(raw)).pieces()) == data


class TestReadAhead:
    def test_an_error_comes_after_what_was_before_it(self) -> None:
        def pieces() -> Iterator[bytes]:
            yield b"a"
            yield b"b"
            raise FormatError("here")

        got = []
        with pytest.raises(FormatError, match="here"):
            got.extend(ahead(pieces()))
        made = ahead(pieces())
        got = [next(made), next(made)]
        assert got == [b"a", b"b"]
        with pytest.raises(FormatError, match="here"):
            next(made)

    def test_who_stops_early_leaves_no_thread_and_reads_no_further(self) -> None:
        taken = []

        def pieces() -> Iterator[bytes]:
            for number in range(10_000):
                taken.append(number)
                yield b"x"

        made = ahead(pieces())
        next(made)
        made.close()
        before = len(taken)
        assert before < 20
        assert list(made) == []
        assert len(taken) == before


INDEXES: dict[str, dict[str, Any]] = {
    "text": {
        "v": {"$numberInt": "2"}, "key": {"_fts": "text", "_ftsx": {"$numberInt": "1"}}, "name": "by_text",
        "weights": {"title": {"$numberInt": "10"}, "$**": {"$numberInt": "1"}}, "default_language": "turkish",
        "language_override": "lang", "textIndexVersion": {"$numberInt": "3"},
    },
    "hashed": {"v": {"$numberInt": "2"}, "key": {"h": "hashed"}, "name": "h_hashed"},
    "compound hashed": {"v": {"$numberInt": "2"}, "key": {"a": {"$numberInt": "1"}, "h": "hashed"}, "name": "a_h"},
    "2d": {
        "v": {"$numberInt": "2"}, "key": {"at": "2d"}, "name": "at_2d", "bits": {"$numberInt": "26"},
        "min": {"$numberDouble": "-180.0"}, "max": {"$numberDouble": "180.0"},
    },
    "2dsphere": {"v": {"$numberInt": "2"}, "key": {"at": "2dsphere"}, "name": "at_s", "2dsphereIndexVersion": {"$numberInt": "3"}},
    "geoHaystack": {
        "v": {"$numberInt": "2"}, "key": {"at": "geoHaystack", "kind": {"$numberDouble": "1.0"}}, "name": "hay",
        "bucketSize": {"$numberDouble": "5.0"},
    },
    "wildcard": {
        "v": {"$numberInt": "2"}, "key": {"$**": {"$numberInt": "1"}}, "name": "$**_1",
        "wildcardProjection": {"secret": {"$numberInt": "0"}, "_id": {"$numberInt": "1"}},
    },
    "partial": {
        "v": {"$numberInt": "2"}, "key": {"p": {"$numberInt": "1"}}, "name": "p_1",
        "partialFilterExpression": {
            "p": {"$gt": {"$numberDecimal": "1.50"}, "$lt": {"$numberLong": "9007199254740993"}},
            "d": {"$gte": {"$date": {"$numberLong": "253402300800000"}}}, "z": {"$ne": {"$numberDouble": "-0.0"}},
            "i": {"$lt": {"$numberDouble": "Infinity"}}, "u": {"$binary": {"base64": "AAECAwQFBgcICQoLDA0ODw==", "subType": "03"}},
            "o": {"$oid": "00112233445566778899aabb"}, "t": {"$timestamp": {"t": 1700000000, "i": 7}},
            "min": {"$minKey": 1}, "max": {"$maxKey": 1}, "n": None, "b": True,
        },
    },
    "expiring": {"v": {"$numberInt": "2"}, "key": {"e": {"$numberInt": "1"}}, "name": "e_1", "expireAfterSeconds": {"$numberInt": "0"}},
    "sparse": {"v": {"$numberInt": "2"}, "key": {"s": {"$numberInt": "1"}}, "name": "s_1", "sparse": True},
    "hidden": {"v": {"$numberInt": "2"}, "key": {"h": {"$numberInt": "-1"}}, "name": "h_-1", "hidden": True},
    "collation": {
        "v": {"$numberInt": "2"}, "key": {"c": {"$numberInt": "1"}}, "name": "c_1",
        "collation": {
            "locale": "tr", "caseLevel": False, "caseFirst": "off", "strength": {"$numberInt": "2"}, "numericOrdering": False,
            "alternate": "non-ignorable", "maxVariable": "punct", "normalization": False, "backwards": False, "version": "57.1",
        },
    },
    "unique, prepared": {"v": {"$numberInt": "2"}, "key": {"q": {"$numberInt": "1"}}, "name": "q_1", "unique": True, "prepareUnique": True},
    "clustered": {"v": {"$numberInt": "2"}, "key": {"_id": {"$numberInt": "1"}}, "name": "_id_", "unique": True, "clustered": True},
    "column store": {
        "v": {"$numberInt": "2"}, "key": {"$**": "columnstore"}, "name": "$**_columnstore",
        "columnstoreProjection": {"big": {"$numberInt": "0"}},
    },
    "of an old server": {"v": {"$numberInt": "1"}, "key": {"a": {"$numberDouble": "1.0"}}, "name": "a_1", "ns": "db.c", "dropDups": True},
}  # fmt: skip
UNTRIED = {
    "text": "text", "hashed": "hashed", "compound hashed": "hashed", "geoHaystack": "geoHaystack",
    "column store": "column store", "unique, prepared": "prepareUnique",
}  # fmt: skip


def proved(path: Path, raw: bytes) -> Proof:
    path.write_bytes(raw)
    return prove(path)


@pytest.mark.parametrize("kind", INDEXES)
def test_every_kind_of_index_is_read_verified_and_named_where_untried(tmp_path: Path, kind: str) -> None:
    index = INDEXES[kind]
    described = metadata("c", indexes=[index])
    raw = prelude(announced("db", "c", described, "collection")) + namespace("db", "c", document(int32("_id", 1)))
    proof = proved(tmp_path / "x.archive", raw)
    assert proof.namespaces[0].indexes == [index["name"]]
    wanted = [f"Read, but tried on no server: {UNTRIED[kind]} index (db.c {index['name']})."] if kind in UNTRIED else []
    assert proof.untried == wanted
    assert json.loads(decode(described).encode())["indexes"] == [index]


OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "capped": ({"capped": True, "size": {"$numberLong": "1099511627776"}, "max": {"$numberInt": "9"}}, "capped"),
    "clustered": ({"clusteredIndex": {"v": {"$numberInt": "2"}, "key": {"_id": {"$numberInt": "1"}}, "name": "n", "unique": True}}, ""),
    "validator": ({"validator": {"$jsonSchema": {"required": ["a"]}}, "validationLevel": "strict"}, ""),
    "encrypted": ({"encryptedFields": {"escCollection": "enxcol_.c.esc", "fields": []}}, "encrypted"),
    "engine": ({"storageEngine": {"wiredTiger": {"configString": "block_compressor=zstd"}}}, "engine-optioned"),
    "images": ({"changeStreamPreAndPostImages": {"enabled": True}}, ""),
    "code": ({"validator": {"$where": {"$code": "return x", "$scope": {"x": {"$numberInt": "1"}}}}}, ""),
    "regular expression": ({"validator": {"a": {"$regularExpression": {"pattern": "^a/", "options": "im"}}}}, ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", OPTIONS)
def test_options_are_read_and_named_where_untried(tmp_path: Path, kind: str) -> None:
    options, untried = OPTIONS[kind]
    described = metadata("c", options=options)
    proof = proved(
        tmp_path / "x.archive", prelude(announced("db", "c", described, "collection")) + namespace("db", "c")
    )
    assert proof.untried == ([f"Read, but tried on no server: {untried} collection (db.c)."] if untried else [])
    assert json.loads(decode(described).encode())["options"] == options


VALUES_OF_OPTIONS: dict[str, Any] = {
    "decimal": {"$numberDecimal": "1.50"}, "decimal, no number": {"$numberDecimal": "NaN"}, "int64": {"$numberLong": "1"},
    "minus zero": {"$numberDouble": "-0.0"}, "no number": {"$numberDouble": "NaN"}, "endless": {"$numberDouble": "-Infinity"},
    "a date that no calendar has": {"$date": {"$numberLong": "-9223372036854775808"}},
    "expression": {"$regularExpression": {"pattern": 'a\\/"b', "options": "imsx"}},
    "least": {"$minKey": 1}, "most": {"$maxKey": 1}, "code": {"$code": "x"},
    "code with scope": {"$code": "x", "$scope": {"a": {"$numberInt": "1"}}},
    "reference": {"$ref": "c", "$id": {"$numberInt": "1"}, "$db": "d", "x": {"$numberInt": "2"}},
    "only its name": {"$ref": "c"}, "only its id": {"$id": {"$numberInt": "1"}},
    "uuid": {"$binary": {"base64": "AAECAwQFBgcICQoLDA0ODw==", "subType": "04"}},
    "old uuid": {"$binary": {"base64": "AAECAwQFBgcICQoLDA0ODw==", "subType": "03"}},
    "bytes": {"$binary": {"base64": "AAE=", "subType": "00"}}, "own bytes": {"$binary": {"base64": "AAE=", "subType": "80"}},
    "timestamp": {"$timestamp": {"t": 4294967295, "i": 4294967295}}, "id": {"$oid": "00112233445566778899aabb"},
    "operators": {"$dateToString": {"date": "$at", "format": "%Y"}}, "type operator": {"$type": {"$numberInt": "2"}},
    "control characters": "\u2028\u0001\U0001f600", "no name": {"": {"$numberInt": "1"}}, "nothing": None,
}  # fmt: skip


@pytest.mark.parametrize("kind", VALUES_OF_OPTIONS)
def test_every_type_in_options_comes_back(kind: str) -> None:
    described = metadata("c", options={"validator": {"x": VALUES_OF_OPTIONS[kind]}})
    assert json.loads(decode(described).encode()) == json.loads(described)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"$symbol": "s"}, "symbol, which is written back as a text"),
        ({"$undefined": True}, "undefined, which is written back as null"),
        ({"$dbPointer": {"$ref": "d.c", "$id": {"$oid": "00" * 12}}}, "dbPointer, which is written back as a document"),
    ],
)
def test_a_type_that_no_driver_writes_any_more_is_said(tmp_path: Path, value: Any, said: str) -> None:
    described = metadata("c", options={"validator": {"x": value}})
    proof = proved(
        tmp_path / "x.archive", prelude(announced("db", "c", described, "collection")) + namespace("db", "c")
    )
    assert said in proof.untried[0]


def test_a_whole_server_as_mongodump_has_it(tmp_path: Path) -> None:
    """The oplog without a database, users and roles of the server, a view, a time series, and two databases at once."""
    one, two = document(int32("_id", 1)), document(int32("_id", 2), text("ü", "é"))
    series = metadata("traffic", options={"timeseries": {"timeField": "at"}}, kind="timeseries")
    view = metadata("some", options={"viewOn": "c", "pipeline": []}, kind="view")
    raw = (
        prelude(
            announced("admin", "system.users", metadata("system.users"), "collection"),
            announced("admin", "system.roles", metadata("system.roles"), "collection"),
            announced("admin", "system.version", metadata("system.version"), "collection"),
            announced("apinizerdb", "traffic", series, "timeseries"),
            announced("apinizerdb", "some", view, "view"),
            announced("apinizerdb", "c", metadata("c"), "collection"),
            announced("other", "c", metadata("c"), "collection"),
            announced("other", "system.js", metadata("system.js"), "collection"),
            announced("", "oplog"),
        )
        + head_of("apinizerdb", "c") + one + END
        + head_of("other", "c") + two + END
        + head_of("apinizerdb", "c") + two + END
        + head_of("apinizerdb", "c", eof=True, crc=crc64(one + two)) + END
        + head_of("other", "c", eof=True, crc=crc64(two)) + END
        + namespace("apinizerdb", "system.buckets.traffic", two)
        + namespace("apinizerdb", "some")
        + namespace("admin", "system.users", one) + namespace("admin", "system.roles") + namespace("admin", "system.version", two)
        + namespace("other", "system.js")
        + namespace("", "oplog", one, two)
    )  # fmt: skip
    proof = proved(tmp_path / "x.archive", raw)
    by_name = {(record.db, record.collection): record for record in proof.namespaces}
    assert len(by_name) == 9
    assert by_name["", "oplog"].documents == 2
    assert by_name["apinizerdb", "c"].documents == 2
    assert by_name["other", "c"].documents == 1
    assert (by_name["apinizerdb", "traffic"].data, by_name["apinizerdb", "traffic"].documents) == (
        "system.buckets.traffic",
        1,
    )
    assert proof.untried == ["Read, but tried on no server: time series collection (apinizerdb.traffic)."]
    assert (proof.server_version, proof.written_by) == ("8.0.4", "100.12.2")


def test_one_database_with_its_users_and_roles(tmp_path: Path) -> None:
    """`--dumpDbUsersAndRoles`: their collections have a dollar sign, no metadata and no type."""
    special = ["$admin.system.users", "$admin.system.roles", "$admin.system.version"]
    raw = prelude(announced("db", "c", metadata("c"), "collection"), *(announced("db", name) for name in special))
    raw += namespace("db", "c") + b"".join(namespace("db", name, document(int32("_id", 1))) for name in special)
    proof = proved(tmp_path / "x.archive", raw)
    assert [record.collection for record in proof.namespaces] == ["c", *special]
    assert proof.documents == 3


def test_a_time_series_of_a_server_that_keeps_no_buckets_apart(tmp_path: Path) -> None:
    """From MongoDB 8.3 on the data is under the collection's own name."""
    described = metadata("traffic", options={"timeseries": {"timeField": "at"}}, kind="timeseries")
    raw = prelude(announced("db", "traffic", described, "timeseries"), server="8.3.0")
    assert proved(tmp_path / "x.archive", raw + namespace("db", "traffic", document())).namespaces[0].data == "traffic"


def test_an_archive_of_the_first_tools(tmp_path: Path) -> None:
    """No versions in the header, no type of a collection, numbers in the metadata as JSON has them."""
    head = document(int32("concurrent_collections", 1), text("version", "0.1"))
    old = '{"options":{"capped":true,"size":4096},"indexes":[{"v":1,"key":{"_id":1},"name":"_id_","ns":"db.c"}]}'
    entry = document(text("db", "db"), text("collection", "c"), text("metadata", old), int32("size", 0))
    raw = bytes.fromhex("6de29981") + head + entry + END + namespace("db", "c", document(int32("_id", 1)))
    proof = proved(tmp_path / "x.archive", raw)
    assert (proof.server_version, proof.written_by, proof.namespaces[0].indexes) == ("", "", ["_id_"])


def test_a_checksum_where_none_belongs_is_refused() -> None:
    raw = prelude(announced("db", "c")) + head_of("db", "c", crc=7) + END
    with pytest.raises(FormatError, match="no end has a checksum"):
        read(iter([raw]))


@FEW
@given(
    st.recursive(
        st.one_of(
            st.none(), st.booleans(), st.text(LETTERS, max_size=10),
            st.integers(-(2**31), 2**31 - 1).map(lambda v: {"$numberInt": str(v)}),
            st.integers(-(2**63), 2**63 - 1).map(lambda v: {"$numberLong": str(v)}),
            st.floats(allow_nan=False, allow_infinity=False).map(lambda v: {"$numberDouble": repr(v)}),
            st.integers(-(2**63), 2**63 - 1).map(lambda v: {"$date": {"$numberLong": str(v)}}),
        ),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(LETTERS.filter(lambda c: c != "$"), max_size=5), inner, max_size=3),
        max_leaves=12,
    )
)  # fmt: skip
def test_any_metadata_comes_back_with_its_types(value: Any) -> None:
    described = metadata(
        "c", options={"x": value}, indexes=[{"key": {"a": {"$numberInt": "1"}}, "name": "n", "y": value}]
    )
    again = json.loads(decode(described).encode())
    assert again == json.loads(described)


def test_metadata_of_the_longest_names() -> None:
    for name in ("n" * 255, "ü" * 127, 'a"b\\c\n\t\x01'):
        assert decode(CollectionMetadata(name).encode()).name == name


def test_ends_carry_what_the_manifest_needs() -> None:
    reader = ArchiveReader([prelude(announced("db", "c")) + namespace("db", "c", document())])
    reader.prelude()
    assert [item for item in reader.blocks() if isinstance(item, NamespaceEnd)] == [
        NamespaceEnd(Namespace("db", "c"), 1, 5, crc64(document()))
    ]
