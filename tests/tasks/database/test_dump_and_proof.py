"""A backup of a real server's database, and its proof.

What SecantusDB cannot hold (text and hashed indexes, dollar signs in names, buckets of time series) is
tried on bytes built from the specification, in the tests of the archive and the metadata.
"""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import bson
import pytest
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from tasks.database import slot as slot_module
from tasks.database.archive.format import split
from tasks.database.archive.inlet import Inlet
from tasks.database.archive.metadata import decode
from tasks.database.archive.outlet import Outlet
from tasks.database.archive.reader import ArchiveReader, Documents
from tasks.database.connection import open_database
from tasks.database.dump import BackupEvidence, DumpProgress, dump
from tasks.database.manifest import load, manifest_path
from tasks.database.proof import prove
from tasks.database.slot import BACKUP, claim
from tasks.domain.errors import (
    BlockedError,
    DamagedArchiveError,
    NotFoundError,
    StoppedError,
    TemporaryError,
    UnauthorizedError,
    UnprovenError,
    UsageError,
)
from tasks.record import unfinished_file

Client = MongoClient[dict[str, Any]]
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
DB = "apinizerdb"


def backup(uri: str, directory: Path, **options: Any) -> BackupEvidence:
    with open_database(uri) as client:
        return dump(client, DB, directory, apinizer_version="2025.04.3", now=lambda: NOW, **options)


def contents(path: Path) -> tuple[dict[str, list[bytes]], dict[str, dict[str, Any]]]:
    """Documents and metadata of each collection of an archive."""
    with path.open("rb") as file:
        reader = ArchiveReader(Inlet(file).pieces())
        entries = reader.prelude().entries
        documents: dict[str, list[bytes]] = {entry.namespace.collection: [] for entry in entries}
        for item in reader.blocks():
            if isinstance(item, Documents):
                documents[item.namespace.collection].extend(split(item.data))
    return documents, {e.namespace.collection: json.loads(e.metadata) for e in entries}


def stored(client: Client, name: str) -> list[bytes]:
    """The documents of a collection as the server has them."""
    found = client[DB].get_collection(name, codec_options=DEFAULT_RAW_BSON_OPTIONS).find()
    return [bytes(document.raw) for document in found]


@pytest.fixture
def database(client: Client) -> Client:
    """A database with something of everything that the server knows."""
    db = client[DB]
    db["api_proxy"].insert_many(
        [{"_id": i, "name": f"proxy {i}", "at": NOW, "ü": [1, {"x": None}]} for i in range(3000)]
    )
    db["api_proxy"].create_index([("name", 1), ("_id", -1)], name="by name", unique=True)
    db["api_proxy"].create_index("at", expireAfterSeconds=2_000_000_000)
    db["api_proxy"].create_index([("place", "2dsphere")])
    db["api_proxy"].create_index("x", partialFilterExpression={"x": {"$gt": 1}})
    db["api_proxy"].create_index("c", collation={"locale": "tr", "strength": 2})
    db.create_collection("empty")
    db.create_collection("capped", capped=True, size=1 << 20, max=100)
    db["capped"].insert_many([{"n": i} for i in range(5)])
    db.create_collection("checked", validator={"$jsonSchema": {"required": ["a"]}}, validationLevel="moderate")
    db.create_collection("sorted", collation={"locale": "tr"})
    db.create_collection("some proxies", viewOn="api_proxy", pipeline=[{"$match": {"_id": {"$lt": 5}}}])
    for name in ("a.b.c", "mit Umlaut ü", "system.js", "n" * 200):
        db[name].insert_one({"_id": name})
    large: dict[str, Any] = {"_id": 1, "s": ""}
    db["large"].insert_one({"_id": 1, "s": "x" * (16 * 1024 * 1024 - len(bson.encode(large)))})
    return client


def test_everything_is_in_the_archive(database: Client, uri: str, tmp_path: Path) -> None:
    evidence = backup(uri, tmp_path)
    documents, metadata = contents(evidence.archive)
    expected = {info["name"]: info for info in database[DB].list_collections() if info["name"] != "system.views"}
    assert set(documents) == set(expected)
    for name, info in expected.items():
        text = decode(json.dumps(metadata[name]))
        assert text.type == info["type"], name
        assert bson.encode(text.options) == bson.encode(info.get("options", {})), name
        if info["type"] == "view":
            assert documents[name] == []
            assert text.indexes == ()
            continue
        assert documents[name] == stored(database, name), name
        wanted = database[DB].command("listIndexes", name)["cursor"]["firstBatch"]
        assert [bson.encode(index) for index in text.indexes] == [bson.encode(index) for index in wanted], name
        assert text.uuid == bytes(info["info"]["uuid"]).hex()
    assert len(documents["large"][0]) == 16 * 1024 * 1024


def test_manifest_says_what_is_there(database: Client, uri: str, tmp_path: Path) -> None:
    evidence = backup(uri, tmp_path)
    manifest = load(evidence.archive)
    assert manifest == evidence.manifest
    assert evidence.archive.name == "apinizer-backup--2025.04.3--2026-11-22--01.archive"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        evidence.archive.name,
        f"{evidence.archive.name}.json",
    ]
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    assert manifest.size == evidence.archive.stat().st_size
    by_name = {record.collection: record for record in manifest.namespaces}
    assert by_name["api_proxy"].documents == 3000
    assert by_name["api_proxy"].bytes == sum(map(len, stored(database, "api_proxy")))
    assert len(by_name["api_proxy"].indexes) == 6
    assert by_name["some proxies"].type == "view"
    assert (manifest.engine, manifest.point_in_time, manifest.read_concern) == ("native", False, "majority")
    assert manifest.proof is None


@pytest.mark.parametrize("gzip", [True, False])
def test_proof_is_recorded(database: Client, uri: str, tmp_path: Path, gzip: bool) -> None:  # noqa: FBT001
    evidence = backup(uri, tmp_path, gzip=gzip)
    proof = prove(evidence.archive, now=lambda: NOW)
    assert proof.against_manifest
    assert proof.unproven == []
    assert proof.gzip is gzip
    assert proof.documents == evidence.manifest.documents
    assert proof.namespaces == evidence.manifest.namespaces
    recorded = load(evidence.archive)
    assert recorded is not None
    assert recorded.proof is not None
    assert (recorded.proof.sha256, recorded.proof.proved_at) == (evidence.manifest.sha256, NOW)
    assert prove(evidence.archive).documents == proof.documents  # A proved manifest can be proved again.


def test_without_a_manifest_the_gaps_are_told(database: Client, uri: str, tmp_path: Path) -> None:
    evidence = backup(uri, tmp_path)
    evidence.manifest_file.unlink()
    proof = prove(evidence.archive)
    assert not proof.against_manifest
    assert len(proof.unproven) == 2
    assert not evidence.manifest_file.exists()


@pytest.fixture
def small(client: Client, uri: str, tmp_path: Path) -> BackupEvidence:
    client[DB]["a"].insert_many([{"_id": i, "text": f"text {i}"} for i in range(200)])
    client[DB]["b"].insert_many([{"_id": i} for i in range(20)])
    return backup(uri, tmp_path)


def test_any_changed_byte_is_refused(small: BackupEvidence) -> None:
    """Against the manifest: also in the gzip header, where no checksum of the archive's own reaches."""
    good = small.archive.read_bytes()
    random = Random(1)  # noqa: S311 - which bytes are tried
    for at in [*range(12), *random.sample(range(len(good)), 150), *range(len(good) - 9, len(good))]:
        changed = bytearray(good)
        changed[at] ^= 1 << random.randrange(8)
        small.archive.write_bytes(changed)
        with pytest.raises(DamagedArchiveError) as caught:
            prove(small.archive)
        assert small.archive.name in caught.value.happened
    small.archive.write_bytes(good)
    prove(small.archive)


def test_any_changed_byte_of_documents_is_refused_without_a_manifest(client: Client, uri: str, tmp_path: Path) -> None:
    client[DB]["a"].insert_many([{"_id": i, "text": f"text {i}"} for i in range(30)])
    evidence = backup(uri, tmp_path, gzip=False)
    evidence.manifest_file.unlink()
    good = evidence.archive.read_bytes()
    first = good.index(stored(client, "a")[0])
    for at in range(first, len(good)):
        changed = bytearray(good)
        changed[at] ^= 1 << (at % 8)
        evidence.archive.write_bytes(changed)
        with pytest.raises(DamagedArchiveError):
            prove(evidence.archive)


def test_every_shorter_or_longer_file_is_refused(small: BackupEvidence) -> None:
    good = small.archive.read_bytes()
    for data in [good[: len(good) * part // 50] for part in range(50)] + [good[:-1], good + b"\0", good + good]:
        small.archive.write_bytes(data)
        with pytest.raises(DamagedArchiveError):
            prove(small.archive)


def test_another_backup_under_the_manifest_is_refused(small: BackupEvidence, client: Client, uri: str) -> None:
    client[DB]["a"].delete_one({"_id": 3})
    client[DB].create_collection("new")
    other = backup(uri, small.archive.parent)
    small.archive.write_bytes(other.archive.read_bytes())
    with pytest.raises(DamagedArchiveError) as caught:
        prove(small.archive)
    assert "200 documents" in caught.value.observed
    assert "199 documents" in caught.value.observed
    assert f"{DB}.new: the manifest says nothing" in caught.value.observed


@pytest.mark.parametrize("text", ["", "{}", "not json", '{"format": "something else"}'])
def test_a_damaged_manifest_is_refused(small: BackupEvidence, text: str) -> None:
    small.manifest_file.write_text(text)
    with pytest.raises(DamagedArchiveError, match="manifest"):
        prove(small.archive)


def test_what_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="directory"):
        prove(tmp_path)
    with pytest.raises(NotFoundError):
        prove(tmp_path / "none.archive")
    (tmp_path / "x.archive").write_bytes(b"PK\x03\x04")
    with pytest.raises(UsageError, match="a zip file"):
        prove(tmp_path / "x.archive")


def test_a_newer_format_is_not_called_damaged(tmp_path: Path) -> None:
    head = {"concurrent_collections": 4, "version": "0.2", "server_version": "9.0.0", "tool_version": "200.0"}
    path = tmp_path / "newer.archive"
    path.write_bytes(bytes.fromhex("6de29981") + bson.encode(head) + b"\xff" * 4)
    with pytest.raises(UnprovenError, match="not known here") as caught:
        prove(path)
    assert not isinstance(caught.value, DamagedArchiveError)
    assert "'0.2'" in caught.value.observed


def test_a_proof_can_be_stopped(small: BackupEvidence) -> None:
    with pytest.raises(StoppedError):
        prove(small.archive, stop=lambda: True)


def test_numbers_go_up_and_nothing_is_overwritten(small: BackupEvidence, uri: str) -> None:
    before = small.archive.read_bytes()
    again = backup(uri, small.archive.parent)
    assert again.archive.name.endswith("--02.archive")
    assert small.archive.read_bytes() == before


def test_a_number_published_between_the_look_and_the_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = claim(tmp_path, "1", NOW.date()).archive
    (tmp_path / f".{first.name}.partial").unlink()
    first.write_bytes(b"published")
    numbers = iter([1, 2])
    monkeypatch.setattr(slot_module, "next_number", lambda *_: next(numbers))
    assert claim(tmp_path, "1", NOW.date()).archive != first
    assert first.read_bytes() == b"published"


def test_two_claims_never_meet(tmp_path: Path) -> None:
    one, two = claim(tmp_path, "1", NOW.date()), claim(tmp_path, "1", NOW.date())
    assert one.archive != two.archive
    one.archive.write_bytes(b"somebody else's")
    with pytest.raises(FileExistsError):
        one.publish()
    assert one.archive.read_bytes() == b"somebody else's"
    two.discard()
    assert not two.partial.exists()


def visible(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def test_stopped_in_the_middle(client: Client, uri: str, tmp_path: Path) -> None:
    client[DB]["a"].insert_many([{"_id": i} for i in range(1000)])
    asked = iter([False, True])
    seen: list[DumpProgress] = []
    with pytest.raises(StoppedError):
        backup(uri, tmp_path, stop=lambda: next(asked), progress=seen.append)
    assert [progress.documents for progress in seen] == [101]  # The first batch, and then no more.
    assert visible(tmp_path) == []


def test_a_collection_dropped_meanwhile(client: Client, uri: str, tmp_path: Path) -> None:
    client[DB]["a"].insert_many([{"_id": i} for i in range(1000)])
    client[DB]["b"].insert_one({})
    with pytest.raises(TemporaryError) as caught:
        backup(uri, tmp_path, progress=lambda _: client[DB].drop_collection("b"))
    assert "b" in caught.value.observed
    assert visible(tmp_path) == []


def test_a_collection_made_meanwhile_is_said(client: Client, uri: str, tmp_path: Path) -> None:
    client[DB]["a"].insert_one({})
    evidence = backup(uri, tmp_path, progress=lambda _: client[DB]["late"].insert_one({}))
    assert any("late" in note for note in evidence.manifest.notes)


def test_not_an_empty_backup_of_a_database_that_is_not_there(client: Client, uri: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=DB):
        backup(uri, tmp_path)
    assert visible(tmp_path) == []


def test_wrong_password_leaves_nothing(login: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(UnauthorizedError):
        backup(login(password="wrong"), tmp_path)
    assert visible(tmp_path) == []


def test_the_server_dies_in_the_middle(mortal: tuple[str, int], tmp_path: Path) -> None:
    uri, pid = mortal
    with MongoClient[dict[str, Any]](uri) as filler:
        for start in range(0, 30_000, 5000):  # More than one batch of 16 MiB.
            filler[DB]["a"].insert_many([{"_id": start + i, "text": "x" * 1000} for i in range(5000)])
    seen: list[DumpProgress] = []

    def kill(progress: DumpProgress) -> None:
        seen.append(progress)
        if len(seen) == 2:
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(TemporaryError), open_database(uri, timeout=2) as client:
        dump(client, DB, tmp_path, apinizer_version="1", progress=kill)
    assert 101 < seen[-1].documents < 30_000
    assert visible(tmp_path) == []


def test_killed_leaves_nothing_that_looks_like_a_backup(client: Client, uri: str, tmp_path: Path) -> None:
    client[DB]["a"].insert_many([{"_id": i} for i in range(1000)])
    program = (
        "import os, sys, time\nfrom pathlib import Path\n"
        "from tasks.database.connection import open_database\nfrom tasks.database.dump import dump\n"
        "def wait(_):\n    os.write(1, b'middle\\n')\n    time.sleep(600)\n"
        f"with open_database(sys.argv[1]) as c: dump(c, {DB!r}, Path(sys.argv[2]), apinizer_version='1', progress=wait)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, uri, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "middle\n"
    child.kill()
    child.wait()
    child.stdout.close()
    assert [name for name in visible(tmp_path) if not (name.startswith(".") and name.endswith(".partial"))] == []
    assert backup(uri, tmp_path).archive.exists()


def test_a_directory_that_cannot_be_written(client: Client, uri: str, tmp_path: Path) -> None:
    client[DB]["a"].insert_one({})
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        backup(uri, tmp_path / "file")
    with pytest.raises(UsageError, match="cannot be written"):
        backup(uri, Path("/proc/backups"))


def test_a_directory_is_made(client: Client, uri: str, tmp_path: Path) -> None:
    client[DB]["a"].insert_one({})
    assert backup(uri, tmp_path / "x" / "y").archive.exists()


def test_no_room(client: Client, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client[DB]["a"].insert_one({})
    monkeypatch.setattr(unfinished_file, "RESERVE", 1 << 60)
    with pytest.raises(BlockedError, match="no room"):
        backup(uri, tmp_path)
    assert visible(tmp_path) == []


def test_a_slow_disk_holds_the_reading_back() -> None:
    """What bounds the memory: only two blocks wait, the next `write` blocks until one is on its way."""
    reading, writing = os.pipe()
    handed: list[int] = []
    with os.fdopen(writing, "wb", buffering=0) as slow, Outlet(slow, gzip=False) as outlet:

        def hand_over() -> None:
            for number in range(6):
                outlet.write(bytes(4 << 20))
                handed.append(number)

        thread = threading.Thread(target=hand_over)
        thread.start()
        with os.fdopen(reading, "rb") as other_end:  # Closed whatever happens, which ends the writing.
            thread.join(1.5)
            assert thread.is_alive()
            assert len(handed) <= 3
            assert len(other_end.read(24 << 20)) == 24 << 20
        thread.join(30)
        assert len(handed) == 6


def test_a_file_that_takes_a_part_of_a_write_gets_the_rest(tmp_path: Path) -> None:
    """The last write that meets a limit is cut by the kernel without an error: it must not pass as written."""
    program = (
        "import resource, sys\nfrom tasks.database.archive.outlet import Outlet\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "with open(sys.argv[1], 'wb', buffering=0) as file, Outlet(file, gzip=False) as outlet:\n"
        "    outlet.write(bytes(1500))\n"
        "    outlet.finish()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "File too large" in done.stderr


def test_the_disk_fills_up_while_writing(tmp_path: Path) -> None:
    """/dev/full answers every write with ENOSPC."""
    with Path("/dev/full").open("wb", buffering=0) as full, Outlet(full, gzip=False) as outlet:
        outlet.write(b"x" * 4096)
        with pytest.raises(OSError, match="No space left") as caught:
            outlet.finish()
    error = BACKUP.full(caught.value, tmp_path)
    assert isinstance(error, BlockedError)
    assert "ran full" in error.happened


def test_a_file_that_may_not_grow_fails_clearly(client: Client, uri: str, tmp_path: Path) -> None:
    """The process's own file size limit stands for a full disk, in the middle of a real dump."""
    client[DB]["a"].insert_many([{"_id": i, "b": os.urandom(2000)} for i in range(1000)])
    program = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from tasks.database.connection import open_database\nfrom tasks.database.dump import dump\n"
        "from tasks.domain.errors import BlockedError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "try:\n"
        f"    with open_database(sys.argv[1]) as c: dump(c, {DB!r}, Path(sys.argv[2]), apinizer_version='1')\n"
        "except BlockedError as error: print(error.happened)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, uri, str(tmp_path)], capture_output=True, text=True, timeout=120, check=True
    )
    assert "ran full" in done.stdout
    assert visible(tmp_path) == []


class TestWithoutMajority:
    """A server that has no read concern majority: its answer is given here, for no server at hand lacks it."""

    def test_local_is_used_and_said(
        self, client: Client, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client[DB]["a"].insert_many([{"_id": i} for i in range(300)])
        from pymongo.synchronous.database import Database

        real = Database.command

        def answer(self: Any, command: Any, *arguments: Any, **options: Any) -> Any:
            if isinstance(command, dict) and command.get("readConcern", {}).get("level") == "majority":
                raise OperationFailure("no majority here", 148)
            return real(self, command, *arguments, **options)

        monkeypatch.setattr(Database, "command", answer)
        evidence = backup(uri, tmp_path)
        assert evidence.manifest.read_concern == "local"
        assert any("majority" in note for note in evidence.manifest.notes)
        assert evidence.manifest.documents == 300


def test_cursors_are_closed_when_stopped(client: Client, uri: str, tmp_path: Path) -> None:
    client[DB]["a"].insert_many([{"_id": i} for i in range(1000)])

    def open_cursors() -> int:
        return int(client["admin"].command("serverStatus")["metrics"]["cursor"]["open"]["total"])

    before = open_cursors()
    with pytest.raises(StoppedError):
        backup(uri, tmp_path, stop=lambda: True)
    for _ in range(50):
        if open_cursors() <= before:
            break
        time.sleep(0.1)
    assert open_cursors() <= before


def test_manifest_is_beside_the_archive() -> None:
    assert manifest_path(Path("/b/x.archive")) == Path("/b/x.archive.json")
