"""A backup rehearsed on real servers: what is compared, what is told, and that nothing but the scratch is touched."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo.errors import AutoReconnect, OperationFailure

from tasks.database.archive.format import CollectionEntry, Header, Namespace
from tasks.database.archive.metadata import CollectionMetadata
from tasks.database.archive.writer import ArchiveWriter
from tasks.database.connection import open_database
from tasks.database.dump import dump
from tasks.database.fingerprint import read_content
from tasks.database.manifest import load
from tasks.database.proof import prove
from tasks.database.rehearsal import SCRATCH, Rehearsal, rehearse
from tasks.database.restore.run import restore
from tasks.database.trial import try_definition
from tasks.domain.errors import BlockedError, ForbiddenError, StoppedError, UnprovenError, UsageError

Client = MongoClient[dict[str, Any]]
ID_INDEX = {"v": 2, "key": {"_id": 1}, "name": "_id_"}
NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


@pytest.fixture
def filled(client: Client) -> Client:
    """A database with a bit of everything that this server has."""
    db = client.apinizerdb
    db.api_proxy.insert_many({"_id": ObjectId(), "name": f"proxy {i}", "text": "x" * i} for i in range(300))
    db.api_proxy.create_index("name", unique=True)
    db.create_collection("policy", validator={"a": {"$gt": 0}}, validationLevel="moderate")
    db.policy.insert_many({"_id": i, "a": i + 1} for i in range(20))
    db.create_collection("empty", collation={"locale": "tr"})
    db.create_collection("recent", viewOn="api_proxy", pipeline=[{"$match": {"name": "proxy 1"}}])
    db["odd name.with dots ü"].insert_one({"_id": {"a": 1}, "at": NOW})
    db.token.insert_many({"_id": i, "at": datetime(2020, 1, 1, tzinfo=UTC)} for i in range(3))
    db.token.create_index("at", expireAfterSeconds=86400 * 36500)
    return client


@pytest.fixture
def archive(filled: Client, uri: str, tmp_path: Path) -> Path:
    with open_database(uri) as client:
        return dump(client, "apinizerdb", tmp_path, apinizer_version="2025.04.3").archive


def write(path: Path, contents: list[tuple[CollectionEntry, list[dict[str, Any]]]]) -> None:
    """An archive of these collections, without a manifest."""
    with path.open("wb") as file:
        writer = ArchiveWriter(file, Header("8.0.4", "test", 1), [entry for entry, _ in contents])
        for entry, documents in contents:
            writer.begin(entry.namespace)
            writer.documents(entry.namespace, b"".join(map(bson.encode, documents)), len(documents))
            writer.end(entry.namespace)
        writer.close()


def rehearsed(uri: str, archive: Path, **options: Any) -> Rehearsal:
    with open_database(uri) as client:
        return rehearse(archive, client, now=lambda: NOW, **options)


def test_a_good_backup_is_rehearsed_recorded_and_leaves_nothing(filled: Client, uri: str, archive: Path) -> None:
    before = {name: read_content(filled, "apinizerdb", name) for name in filled.apinizerdb.list_collection_names()}
    done = rehearsed(uri, archive)
    manifest = load(archive)
    assert manifest is not None
    assert manifest.rehearsal == done.record
    assert done.recorded
    assert (done.record.collections, done.record.documents) == (6, 324)
    assert done.record.sha256 == manifest.sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert done.record.rehearsed_at == NOW
    assert done.unproven == done.notes == []
    assert SCRATCH not in filled.list_database_names()
    assert before == {name: read_content(filled, "apinizerdb", name) for name in before}
    prove(archive)
    assert load(archive).rehearsal == done.record  # type: ignore[union-attr]


def test_on_a_second_server(mortal: tuple[str, int], filled: Client, archive: Path) -> None:
    second, _ = mortal
    assert rehearsed(second, archive, scratch="other").record.documents == 324
    with Client(second) as client:
        assert {"other", "apinizerdb"}.isdisjoint(client.list_database_names())


@pytest.mark.parametrize("tampered", ["document", "index", "validator", "view", "extra", "lost"])
def test_what_comes_back_otherwise_is_told(
    filled: Client, uri: str, archive: Path, tampered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's copy is changed right after the restore, as a server would that does not keep what it is given."""

    def change() -> str:
        db = filled[SCRATCH]
        match tampered:
            case "document":
                db.api_proxy.update_one({"name": "proxy 7"}, {"$set": {"text": "y"}})
                return "apinizerdb.api_proxy: 300 documents, fingerprint"
            case "index":
                db.api_proxy.drop_index("name_1")
                return "apinizerdb.api_proxy: The index name_1 is missing."
            case "validator":
                db.command("collMod", "policy", validator={})
                return "apinizerdb.policy: the options validator differ."
            case "view":
                db.recent.drop()
                db.create_collection("recent", viewOn="api_proxy", pipeline=[])
                return "apinizerdb.recent: the options pipeline differ."
            case "extra":
                db.extra.insert_one({})
                return "extra is not in the archive."
            case _:
                db.policy.drop()
                return "apinizerdb.policy is missing."

    told = list[str]()

    def restore_and_change(*rest: Any, **more: Any) -> Any:
        evidence = restore(*rest, **more)
        told.append(change())
        return evidence

    monkeypatch.setattr("tasks.database.rehearsal.restore", restore_and_change)
    with pytest.raises(UnprovenError, match="did not come back as it was") as caught:
        rehearsed(uri, archive)
    assert told[0] in caught.value.observed
    assert SCRATCH not in filled.list_database_names()
    assert load(archive).rehearsal is None  # type: ignore[union-attr]


def test_what_this_server_lacks_is_named_and_the_rest_is_tried(client: Client, uri: str, tmp_path: Path) -> None:
    """An archive with a text and a hashed index, and an option of another server's; documents are tried all the same."""
    path = tmp_path / "apinizer-backup--1--2026-01-01--01.archive"
    text = {"v": 2, "key": {"_fts": "text", "_ftsx": 1}, "name": "words", "weights": {"a": 1}, "textIndexVersion": 3}
    plain = {"v": 2, "key": {"a": 1}, "name": "a_1"}
    definitions = [
        CollectionMetadata("article", "collection", "", {}, (ID_INDEX, text, plain)),
        CollectionMetadata("odd", "collection", "", {"storageEngine": {"nonesuch": {}}}, (ID_INDEX,)),
        CollectionMetadata("plain", "collection", "", {}, (ID_INDEX, plain)),
    ]
    run = [{"_id": i, "a": i} for i in range(30)]
    write(path, [(CollectionEntry(Namespace("db", d.name), d.encode(), "collection"), run) for d in definitions])
    done = rehearsed(uri, path)
    assert not done.recorded
    assert done.record.documents == 90
    told = [line.split(" (")[0] for line in done.unproven]
    assert "This server could not try db.article: the index words" in told
    assert not any("plain" in line or "a_1" in line for line in done.unproven)
    assert SCRATCH not in client.list_database_names()


def test_an_archive_with_an_oplog_comes_back_as_it_was_at_its_end(client: Client, uri: str, tmp_path: Path) -> None:
    path = tmp_path / "apinizer-backup--1--2026-01-01--01.archive"
    definitions = [CollectionMetadata(name, "collection", "", {}, (ID_INDEX,)) for name in ("quiet", "written")]
    contents: list[tuple[CollectionEntry, list[dict[str, Any]]]] = [
        (CollectionEntry(Namespace("db", d.name), d.encode(), "collection"), [{"_id": i, "a": i} for i in range(5)])
        for d in definitions
    ]
    oplog: list[dict[str, Any]] = [
        {"op": "i", "ns": "db.written", "o": {"_id": 5, "a": 5}},
        {"op": "u", "ns": "db.written", "o2": {"_id": 1}, "o": {"$v": 2, "diff": {"u": {"a": 9}}}},
        {"op": "c", "ns": "db.$cmd", "o": {"createIndexes": "written", "v": 2, "key": {"a": 1}, "name": "a_1"}},
        {"op": "i", "ns": "other.x", "o": {"_id": 5, "a": 5}},
    ]
    write(path, [*contents, (CollectionEntry(Namespace("", "oplog"), "", ""), oplog)])
    done = rehearsed(uri, path)
    assert (done.record.collections, done.record.documents) == (2, 11)
    assert any("oplog was applied: 1 documents inserted, 1 updated" in note for note in done.notes)


def test_a_scratch_that_is_not_empty_is_left_alone(filled: Client, uri: str, archive: Path) -> None:
    filled[SCRATCH].precious.insert_one({"_id": 1})
    with pytest.raises(BlockedError, match="not empty"):
        rehearsed(uri, archive)
    assert filled[SCRATCH].precious.count_documents({}) == 1
    filled.drop_database(SCRATCH)


@pytest.mark.parametrize("scratch", ["apinizerdb", "admin", "local", "config"])
def test_a_database_in_use_is_no_scratch(filled: Client, uri: str, archive: Path, scratch: str) -> None:
    with pytest.raises(UsageError, match="cannot be the scratch"):
        rehearsed(uri, archive, scratch=scratch)
    assert filled.apinizerdb.api_proxy.count_documents({}) == 300


def test_a_damaged_archive_writes_nothing(filled: Client, uri: str, archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    with pytest.raises(UnprovenError):
        rehearsed(uri, archive)
    assert SCRATCH not in filled.list_database_names()


def test_stopping_drops_the_scratch(filled: Client, uri: str, archive: Path) -> None:
    seen: list[str] = []
    with pytest.raises(StoppedError):
        rehearsed(uri, archive, progress=lambda p: seen.append(p.phase), stop=lambda: "load" in seen)
    assert "load" in seen
    assert SCRATCH not in filled.list_database_names()


def test_a_database_that_refuses_everything_is_no_lack_of_the_server(login: Any, archive: Path, filled: Client) -> None:
    with pytest.raises(Exception, match="may not") as caught:
        rehearsed(login("reader", "reader"), archive)
    assert not isinstance(caught.value, OperationFailure)


def test_a_missing_right_is_no_lack_of_the_server(login: Any) -> None:
    definition = CollectionMetadata("c", "collection", "", {"capped": True, "size": 4096}, ())
    with pytest.raises(ForbiddenError), open_database(login("reader", "reader")) as client:
        try_definition(client, "scratch", definition)


def test_what_a_former_try_of_this_process_could_not_drop_is_no_other_rehearsal(
    filled: Client, uri: str, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try loses the server before it can drop the scratch; the second one tidies up."""
    drop, calls = MongoClient.drop_database, [0]

    def failing(self: Any, name: str, *rest: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            raise AutoReconnect("connection closed")
        return drop(self, name, *rest, **more)

    seen: list[str] = []
    monkeypatch.setattr(MongoClient, "drop_database", failing)
    with pytest.raises(StoppedError):
        rehearsed(uri, archive, progress=lambda p: seen.append(p.phase), stop=lambda: "load" in seen)
    assert SCRATCH in filled.list_database_names()
    assert rehearsed(uri, archive).record.documents == 324
    assert SCRATCH not in filled.list_database_names()


KILLED = r"""
import os, sys, time
from pathlib import Path
from tasks.database.connection import open_database
from tasks.database.rehearsal import rehearse
def progress(p):
    if p.phase == "load":
        os.write(1, b"loading\n")  # whole lines, whichever threads say it
        time.sleep(600)
with open_database(sys.argv[1]) as client:
    rehearse(Path(sys.argv[2]), client, progress=progress)
"""


@pytest.fixture
def rehearsing(uri: str, archive: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process in the middle of a rehearsal."""
    root = Path(__file__).parents[3]
    process = subprocess.Popen([sys.executable, "-c", KILLED, uri, str(archive)], cwd=root, stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    yield process
    process.kill()
    process.wait()


def test_one_that_runs_is_respected_and_one_that_was_killed_is_cleaned_up(
    rehearsing: subprocess.Popen[str], filled: Client, uri: str, archive: Path
) -> None:
    with pytest.raises(BlockedError, match="Another rehearsal") as caught:
        rehearsed(uri, archive)
    assert f"process {rehearsing.pid}" in caught.value.observed
    rehearsing.kill()
    rehearsing.wait()
    assert SCRATCH in filled.list_database_names()
    assert rehearsed(uri, archive).record.documents == 324
    assert SCRATCH not in filled.list_database_names()


def test_what_is_recorded_is_the_file_that_was_rehearsed(filled: Client, uri: str, tmp_path: Path) -> None:
    """An archive without a manifest that another file takes the place of meanwhile."""
    entry = CollectionEntry(Namespace("db", "a"), CollectionMetadata("a", "collection", "", {}, (ID_INDEX,)).encode(), "collection")  # fmt: skip
    archive, other = tmp_path / "x.archive", tmp_path / "y.archive"
    write(archive, [(entry, [{"_id": 1}])])
    write(other, [(entry, [{"_id": 2}])])
    rehearsed_file = hashlib.sha256(archive.read_bytes()).hexdigest()
    done = rehearsed(uri, archive)
    assert (done.record.sha256, done.recorded) == (rehearsed_file, False)

    def replaced(_at: object) -> None:
        if other.exists():
            other.replace(archive)

    with pytest.raises(UnprovenError):
        rehearsed(uri, archive, progress=replaced)
    assert SCRATCH not in filled.list_database_names()
