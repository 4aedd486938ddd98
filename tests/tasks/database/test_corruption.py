"""A thousand archives with one byte changed and two hundred cut short: none passes for a backup.

The bytes and the places are drawn with a fixed seed, so a failure names itself and comes again.
"""

import gzip
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import bson
import pytest
from isal import isal_zlib
from pymongo import MongoClient
from pymongo.monitoring import CommandListener, CommandStartedEvent

from tasks.database.archive.format import CollectionEntry, Header, Namespace
from tasks.database.archive.inlet import Inlet
from tasks.database.archive.metadata import CollectionMetadata
from tasks.database.archive.writer import ArchiveWriter
from tasks.database.manifest import Manifest, load, save
from tasks.database.proof import prove
from tasks.database.restore.plan import RestoreRequest
from tasks.database.restore.run import restore
from tasks.domain.errors import UpgradeError

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
CHANGED, CUT = 1000, 200
INDEXES = (
    {"v": 2, "key": {"_id": 1}, "name": "_id_"},
    {"v": 2, "key": {"name": 1, "at": -1}, "name": "by name", "unique": True},
    {"v": 2, "key": {"_fts": "text", "_ftsx": 1}, "name": "words", "weights": {"text": 1}, "textIndexVersion": 3},
)
VALIDATOR = {"validator": {"$jsonSchema": {"required": ["name"]}}}


def small_archive() -> bytes:
    """Two collections that take turns, an empty one and a view: every kind of byte that an archive has."""
    out = io.BytesIO()
    random = Random(7)  # noqa: S311 - no secret
    definitions = [
        CollectionMetadata("proxies", "collection", "ab" * 16, VALIDATOR, INDEXES),
        CollectionMetadata("plans", "collection", "cd" * 16, {}, INDEXES[:1]),
        CollectionMetadata("empty", "collection", "ef" * 16, {"capped": True, "size": 4096}, INDEXES[:1]),
        CollectionMetadata("some", "view", "", {"viewOn": "proxies", "pipeline": []}),
    ]
    spaces = [Namespace("apinizerdb", found.name) for found in definitions]
    entries = [CollectionEntry(s, found.encode(), found.type) for s, found in zip(spaces, definitions, strict=True)]
    writer = ArchiveWriter(out, Header("8.0.4", "test", 2), entries)
    for space in spaces:
        writer.begin(space)
    for turn in range(6):
        for space in spaces[:2]:
            run = [
                bson.encode({"_id": 10 * turn + i, "name": f"{space} {i}", "x": random.randbytes(9)}) for i in range(4)
            ]
            writer.documents(space, b"".join(run), len(run))
    for space in spaces:
        writer.end(space)
    writer.close()
    return out.getvalue()


PLAIN = small_archive()


def zipped(data: bytes) -> bytes:
    stream = isal_zlib.compressobj(1, isal_zlib.DEFLATED, 31)
    return bytes(stream.compress(data) + stream.flush())


FILES = {"gzip": zipped(PLAIN), "gzip of mongodump's kind": gzip.compress(PLAIN, 6, mtime=0), "plain": PLAIN}


def changed(good: bytes, random: Random) -> tuple[bytes, str]:
    at, value = random.randrange(len(good)), random.randrange(1, 256)
    return good[:at] + bytes([good[at] ^ value]) + good[at + 1 :], f"byte {at} ^ {value:#x}"


def damaged(good: bytes) -> Iterator[tuple[bytes, str]]:
    """CHANGED files with one byte changed and CUT that are cut short, with what was done to each."""
    random = Random(20261122)  # noqa: S311 - which bytes are tried
    for _ in range(CHANGED):
        yield changed(good, random)
    for _ in range(CUT):
        length = random.randrange(len(good))
        yield good[:length], f"cut to {length} of {len(good)}"


def write_manifest(path: Path) -> Manifest:
    proof = prove(path)
    manifest = Manifest(
        archive=path.name, tool_version="1", apinizer_version="1", server_version=proof.server_version, database="apinizerdb",
        started=NOW, ended=NOW, duration_seconds=0, read_concern="majority", gzip=proof.gzip, size=proof.size,
        sha256=proof.sha256, namespaces=proof.namespaces,
    )  # fmt: skip
    save(path, manifest)
    return manifest


@pytest.mark.parametrize("kind", FILES)
def test_with_a_manifest_every_one_is_refused(tmp_path: Path, kind: str) -> None:
    good, path = FILES[kind], tmp_path / "x.archive"
    path.write_bytes(good)
    write_manifest(path)
    passed = []
    for data, what in damaged(good):
        path.write_bytes(data)
        try:
            prove(path)
            passed.append(what)
        except UpgradeError as error:
            if path.name not in error.happened:
                passed.append(f"{what}: {error}")
    assert passed == []
    path.write_bytes(good)
    assert prove(path).recorded


class Commands(CommandListener):
    """What a client sent that may change something; the server is told nothing else than what is listed here."""

    READS = frozenset({"hello", "ping", "find", "getMore", "listCollections", "listIndexes", "listDatabases", "buildInfo",
                       "dbStats", "collStats", "count", "aggregate", "serverStatus", "endSessions", "isMaster", "killCursors",
                       "getParameter", "connectionStatus", "hostInfo", "replSetGetStatus"})  # fmt: skip

    def __init__(self) -> None:
        self.all = 0
        self.writes: list[str] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.all += 1
        if event.command_name not in self.READS or "$merge" in str(event.command) or "$out" in str(event.command):
            self.writes.append(event.command_name)

    def succeeded(self, event: object) -> None:
        """Nothing to note."""

    failed = succeeded  # type: ignore[assignment]


def test_restore_refuses_every_one_before_it_writes(
    uri: str, client: MongoClient[dict[str, Any]], tmp_path: Path
) -> None:
    good, path = FILES["gzip"], tmp_path / "x.archive"
    path.write_bytes(good)
    write_manifest(path)
    client["apinizerdb"]["proxies"].insert_one({"_id": "as it was"})
    commands = Commands()
    passed = []
    with MongoClient[dict[str, Any]](uri, event_listeners=[commands]) as watched:
        request = RestoreRequest(database="apinizerdb")
        for data, what in damaged(good):
            path.write_bytes(data)
            try:
                restore(watched, path, request)
                passed.append(what)
            except UpgradeError as error:
                if path.name not in error.happened:
                    passed.append(f"{what}: {error}")
        assert passed == []
        assert commands.writes == []
        assert [*client["apinizerdb"]["proxies"].find()] == [{"_id": "as it was"}]
        assert client["apinizerdb"].list_collection_names() == ["proxies"]
        # The listener does see the writes of a restore that goes on.
        (path).write_bytes(FILES["gzip"])
        request = RestoreRequest(database="apinizerdb", include=("plans",))
        assert restore(watched, path, request).created == ("plans",)
        assert "insert" in commands.writes


@pytest.mark.parametrize("kind", ["gzip", "gzip of mongodump's kind"])
def test_without_a_manifest_no_change_of_content_passes(tmp_path: Path, kind: str) -> None:
    """What passes is a byte that says nothing: the header's time and system, a code that no symbol uses, padding."""
    good, path = FILES[kind], tmp_path / "x.archive"
    accepted = 0
    for data, what in damaged(good):
        path.write_bytes(data)
        try:
            proof = prove(path)
        except UpgradeError:
            continue
        accepted += 1
        assert b"".join(Inlet(io.BytesIO(data)).pieces()) == PLAIN, what
        assert "gzip header" in proof.unproven[1]
    assert accepted < CHANGED // 20


def fields_without_checksum() -> set[int]:
    """Where the values lie that no checksum of a plain archive covers, as `unproven` names them."""
    found: set[int] = set()

    def span(needle: bytes, start: int = 0) -> int:
        at = PLAIN.index(needle, start)
        found.update(range(at, at + len(needle)))
        return at

    header_end = 4 + int.from_bytes(PLAIN[4:8], "little")
    found.update(range(8, header_end))  # The server's version, the tool's, how many take turns.
    at = header_end
    while (length := int.from_bytes(PLAIN[at : at + 4], "little")) != 0xFFFF_FFFF:
        entry = bson.decode(PLAIN[at : at + length])
        for name, value in (("metadata", entry["metadata"]), ("type", entry["type"])):
            key = PLAIN.index(b"\x02" + name.encode() + b"\0", at)
            if name == "metadata":
                span(value.encode(), key)
            else:
                found.update(range(key, at + length))
        size = PLAIN.index(b"\x10size\0", at)
        found.update(range(size + 6, size + 10))
        at += length
    return found


def test_without_a_manifest_only_what_is_said_passes_in_a_plain_archive(tmp_path: Path) -> None:
    """Every byte of what is announced and a third of the others: nothing passes but what `verify` lists."""
    path, random = tmp_path / "x.archive", Random(5)  # noqa: S311 - which bytes are tried
    uncovered = fields_without_checksum()
    said = ""
    passed = set()
    announced = PLAIN.index(b"\xff\xff\xff\xff") + 4
    for at in [*range(announced), *range(announced, len(PLAIN), 3)]:
        data = bytearray(PLAIN)
        data[at] ^= random.randrange(1, 256)
        path.write_bytes(data)
        try:
            said = prove(path).unproven[1]
            passed.add(at)
        except UpgradeError:
            pass
    assert passed
    assert passed <= uncovered
    assert "definitions of options and indexes" in said
    assert "types of collections" in said
    assert "server's version" in said


def test_no_document_or_end_is_uncovered() -> None:
    first = PLAIN.index(b"\xff\xff\xff\xff")
    assert max(fields_without_checksum()) < first


OTHER_DAMAGE = {
    "empty": b"",
    "twice": FILES["gzip"] * 2,
    "twice, plain": PLAIN * 2,
    "plain after gzip": FILES["gzip"] + PLAIN,
    "zero bytes after the end": FILES["gzip"] + bytes(512),
    "zero bytes after the end, plain": PLAIN + bytes(512),
    "zero bytes in place of the rest": FILES["gzip"][:200] + bytes(len(FILES["gzip"]) - 200),
    "nothing but zero bytes": bytes(4096),
    "the end without the beginning": PLAIN[100:],
    "halves exchanged": PLAIN[len(PLAIN) // 2 :] + PLAIN[: len(PLAIN) // 2],
    "gzip of nothing": gzip.compress(b"", mtime=0),
    "gzip of gzip": gzip.compress(FILES["gzip"], mtime=0),
    "text mode transfer": FILES["gzip"].replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("name", OTHER_DAMAGE)
@pytest.mark.parametrize("manifest", [True, False])
def test_other_damage(tmp_path: Path, name: str, manifest: bool) -> None:  # noqa: FBT001
    path = tmp_path / "x.archive"
    path.write_bytes(FILES["gzip"])
    if manifest:
        write_manifest(path)
    path.write_bytes(OTHER_DAMAGE[name])
    with pytest.raises(UpgradeError) as caught:
        prove(path)
    assert path.name in caught.value.happened, name
    assert caught.value.observed


def test_a_damaged_archive_never_keeps_its_proof(tmp_path: Path) -> None:
    path, random = tmp_path / "x.archive", Random(3)  # noqa: S311 - which bytes are tried
    path.write_bytes(FILES["gzip"])
    write_manifest(path)
    for _ in range(20):
        path.write_bytes(FILES["gzip"])
        prove(path)
        assert load(path).proof is not None  # type: ignore[union-attr]
        path.write_bytes(changed(FILES["gzip"], random)[0])
        with pytest.raises(UpgradeError):
            prove(path)
        assert load(path).proof is None  # type: ignore[union-attr]
