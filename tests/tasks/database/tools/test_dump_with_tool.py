"""Backups that the other engine writes, here and over a real SSH connection; `standin.py` says what it stands for."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pymongo import MongoClient

from tasks.database.archive.inlet import Inlet
from tasks.database.archive.reader import ArchiveReader
from tasks.database.dump import BackupEvidence, DumpProgress
from tasks.database.proof import prove
from tasks.database.scope import Scope
from tasks.database.tools.address import Address
from tasks.database.tools.dumping import dump_with_tool
from tasks.database.tools.find import Tool, find
from tasks.domain.errors import (
    BlockedError,
    NotFoundError,
    StoppedError,
    TemporaryError,
    UnauthorizedError,
    UpgradeError,
    UsageError,
)
from tests.tasks.database.tools.conftest import FarSide, Installed

Client = MongoClient[dict[str, Any]]
DB = "apinizerdb"
DOCUMENTS = 600
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def database(client: Client) -> Client:
    """Some collections of a few batches each, an empty one and a view."""
    for name in ("api_proxy", "mit Umlaut ü", "apinizer_log"):
        client[DB][name].insert_many([{"_id": i, "text": f"{name} {i} " * 20} for i in range(DOCUMENTS)])
    client[DB]["api_proxy"].create_index("text", name="by text")
    client[DB].create_collection("empty")
    client[DB].create_collection("seen", viewOn="api_proxy", pipeline=[{"$match": {"_id": {"$lt": 3}}}])
    client["another"]["x"].insert_one({"_id": 1})
    return client


def tool(ssh: str = "") -> Tool:
    found = find("mongodump", ssh)
    assert found is not None
    return found


def backup(uri: str, directory: Path, *, ssh: str = "", scope: Scope | str = DB, **options: Any) -> BackupEvidence:
    return dump_with_tool(
        tool(ssh), SecretStr(uri), scope, directory, apinizer_version="2025.04.3", now=lambda: NOW, **options
    )


def names(evidence: BackupEvidence) -> set[str]:
    with evidence.archive.open("rb") as file:
        return {str(entry.namespace) for entry in ArchiveReader(Inlet(file).pieces()).prelude().entries}


def gone(pid: int, *, seconds: float = 30.0) -> bool:
    """Whether the process ends, or is a zombie that only waits for its parent."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def kill_tree(worker: subprocess.Popen[bytes], *, also_children: bool) -> None:
    """Kill a process with signal 9, and first what it started, such as its ssh."""
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text(encoding="utf-8").split()
    for child in children if also_children else ():
        os.kill(int(child), signal.SIGKILL)
    worker.kill()
    worker.wait()


def running(words: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if words in text:
            found.append(text)
    return found


@pytest.fixture(params=["here", "over ssh"])
def where(request: pytest.FixtureRequest) -> tuple[str, Installed]:
    """The destination, and the tools there."""
    if request.param == "here":
        return "", request.getfixturevalue("tools")
    far: FarSide = request.getfixturevalue("far_side")
    return far.ssh, far.tools


def test_what_is_found(tools: Installed, far_side: FarSide) -> None:
    assert find("mongorestore") == Tool("mongorestore", "100.9.4")
    far_side.tools.behave(version="r4.0.3")
    old = find("mongodump", far_side.ssh)
    assert old == Tool("mongodump", "r4.0.3", far_side.ssh)
    with pytest.raises(UsageError, match="too old"):
        old.refuse_old()


def test_nothing_is_found(far_side: FarSide, monkeypatch: pytest.MonkeyPatch) -> None:
    (far_side.tools.folder / "mongodump").unlink()
    assert find("mongodump", far_side.ssh) is None
    assert find("mongodump") is None


@pytest.mark.parametrize("gzip", [True, False])
def test_the_archive_is_as_the_native_one(
    database: Client, uri: str, tmp_path: Path, where: tuple[str, Installed], *, gzip: bool
) -> None:
    seen: list[DumpProgress] = []
    evidence = backup(uri, tmp_path, ssh=where[0], gzip=gzip, progress=seen.append)
    proof = prove(evidence.archive)
    assert proof.against_manifest
    assert proof.gzip is gzip
    manifest = evidence.manifest
    assert (manifest.engine, manifest.tool_version, manifest.point_in_time) == ("mongodump", "mongodump 100.9.4", False)
    assert (manifest.databases, manifest.left_out, manifest.collections_asked) == ([DB], [], "all")
    counts = {record.collection: record.documents for record in manifest.namespaces}
    assert counts == {
        "api_proxy": DOCUMENTS,
        "mit Umlaut ü": DOCUMENTS,
        "apinizer_log": DOCUMENTS,
        "empty": 0,
        "seen": 0,
    }
    assert next(r.indexes for r in manifest.namespaces if r.collection == "api_proxy") == ["_id_", "by text"]
    assert evidence.archive.name == "apinizer-backup--2025.04.3--2026-11-22--01.archive"
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert (seen[-1].documents, seen[-1].collections_done, seen[-1].collections) == (3 * DOCUMENTS, 5, 5)


def test_collections_left_out(database: Client, uri: str, tmp_path: Path, tools: Installed) -> None:
    database[DB]["apinizer-restore.0123456789ab.0001"].insert_one({"_id": 1})
    evidence = backup(uri, tmp_path, scope=Scope.of(DB, left_out=(f"{DB}.apinizer_log", "empty")))
    assert names(evidence) == {f"{DB}.api_proxy", f"{DB}.mit Umlaut ü", f"{DB}.seen"}
    assert evidence.manifest.left_out == [f"{DB}.apinizer_log", f"{DB}.empty"]
    assert not evidence.manifest.holds_all_of(DB)
    assert evidence.manifest.collections_asked == "some"


def test_a_whole_server_comes_with_its_oplog_where_it_has_one(
    database: Client, uri: str, tmp_path: Path, tools: Installed
) -> None:
    evidence = backup(uri, tmp_path, scope=Scope())
    assert {f"{DB}.api_proxy", "another.x"} <= names(evidence)
    assert evidence.manifest.databases == []
    replicated = bool(database.admin.command("hello").get("setName"))
    assert evidence.manifest.point_in_time is replicated
    if replicated:
        assert evidence.manifest.oplog is not None
        assert evidence.manifest.oplog.documents >= 1
        assert evidence.manifest.oplog.first <= evidence.manifest.oplog.last
    else:
        assert evidence.manifest.notes


def test_two_databases_are_refused(database: Client, uri: str, tmp_path: Path, tools: Installed) -> None:
    with pytest.raises(UsageError, match="mongodump cannot take"):
        backup(uri, tmp_path, scope=Scope(databases=(DB, "another")))


def test_a_server_that_only_the_far_side_reaches(database: Client, uri: str, tmp_path: Path, far_side: FarSide) -> None:
    """Its address is the far side's own loopback."""
    evidence = backup(uri, tmp_path, ssh=far_side.ssh)
    assert "cannot be seen from" in evidence.manifest.notes[0]
    assert prove(evidence.archive).documents == 3 * DOCUMENTS


def test_a_server_that_this_side_reaches_too_is_looked_at(
    database: Client, uri: str, tmp_path: Path, far_side: FarSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Address, "loopback", False)
    with pytest.raises(NotFoundError):
        backup(uri, tmp_path, ssh=far_side.ssh, scope="nothing")
    assert not far_side.tools.started
    assert backup(uri, tmp_path, ssh=far_side.ssh).manifest.notes == []


def test_a_disk_that_fills_up(
    database: Client, uri: str, tmp_path: Path, tools: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = iter([1 << 40])
    monkeypatch.setattr("tasks.record.unfinished_file._WATCH_EVERY", 1)
    monkeypatch.setattr("tasks.record.unfinished_file.free_bytes", lambda _: next(free, 0))
    with pytest.raises(BlockedError, match="ran full"):
        backup(uri, tmp_path)
    assert gone(tools.pid())
    assert list(tmp_path.iterdir()) == []


def test_a_collection_that_is_dropped_meanwhile(database: Client, uri: str, tmp_path: Path, tools: Installed) -> None:
    """mongodump archives it as an empty one, and says nothing."""
    tools.behave(pause=0.3)
    dropped: list[str] = []

    def progress(at: DumpProgress) -> None:
        if at.documents and not dropped:
            dropped.append("mit Umlaut ü")
            database[DB].drop_collection(dropped[0])

    with pytest.raises(TemporaryError, match="dropped or changed") as caught:
        backup(uri, tmp_path, progress=progress)
    assert "mit Umlaut" in caught.value.observed
    assert list(tmp_path.iterdir()) == []


def test_no_password_can_be_seen(
    login: Callable[..., str], locked_address: str, tmp_path: Path, where: tuple[str, Installed]
) -> None:
    password = "p%40ss w:rd/ü?#[]@x"  # ODD_PASSWORD of the server's fixture
    with MongoClient[dict[str, Any]](login()) as client:
        client[DB].drop_collection("secretly")
        client[DB]["secretly"].insert_many([{"_id": i} for i in range(DOCUMENTS)])
    where[1].behave(pause=1.5)
    shown: list[str] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            for path in (*Path("/proc").glob("[0-9]*/cmdline"), *Path("/proc").glob("[0-9]*/environ")):
                try:
                    text = path.read_bytes().decode(errors="replace")
                except OSError:
                    continue
                if password in text or login().rpartition("@")[0] in text:
                    shown.append(text)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        evidence = backup(login(), tmp_path, ssh=where[0])
    finally:
        done.set()
        watcher.join()
    assert shown == []
    assert list(where[1].temporary.iterdir()) == []
    assert next(r.documents for r in evidence.manifest.namespaces if r.collection == "secretly") == DOCUMENTS
    assert password not in evidence.manifest_file.read_text(encoding="utf-8")


def test_a_wrong_password(login: Callable[..., str], tmp_path: Path, tools: Installed) -> None:
    with pytest.raises(UnauthorizedError) as caught:
        backup(login(password="not-it-at-all"), tmp_path)
    assert "not-it-at-all" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_password_that_only_the_tool_meets(
    login: Callable[..., str], tmp_path: Path, far_side: FarSide
) -> None:
    with pytest.raises(UnauthorizedError, match="refused the login") as caught:
        backup(login(password="not-it-at-all"), tmp_path, ssh=far_side.ssh)
    assert "not-it-at-all" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("after", [0, 2])
def test_a_failure_leaves_nothing(
    database: Client, uri: str, tmp_path: Path, where: tuple[str, Installed], after: int
) -> None:
    where[1].behave(fail="archive writer: write: no space left on device", after=after)
    with pytest.raises(BlockedError, match="mongodump") as caught:
        backup(uri, tmp_path, ssh=where[0])
    assert "removed" in caught.value.safe
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_archive_is_no_backup(database: Client, uri: str, tmp_path: Path, tools: Installed) -> None:
    tools.behave(junk="Hello, this is no archive")
    with pytest.raises(TemporaryError, match="not a whole archive"):
        backup(uri, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_such_database(database: Client, uri: str, tmp_path: Path, tools: Installed) -> None:
    with pytest.raises(NotFoundError):
        backup(uri, tmp_path, scope="nothing")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("deaf", [False, True])
def test_stopped(database: Client, uri: str, tmp_path: Path, where: tuple[str, Installed], *, deaf: bool) -> None:
    where[1].behave(pause=1, deaf=deaf)
    documents = 0

    def progress(at: DumpProgress) -> None:
        nonlocal documents
        documents = at.documents

    with pytest.raises(StoppedError):
        backup(uri, tmp_path, ssh=where[0], progress=progress, stop=lambda: documents > 0)
    assert gone(where[1].pid())
    assert list(tmp_path.iterdir()) == []


def test_killed_here_nothing_goes_on_there(
    database: Client, uri: str, tmp_path: Path, where: tuple[str, Installed]
) -> None:
    ssh, installed = where
    # Silent for ten minutes: no broken pipe would end it.
    installed.behave(after=1, stall=600)
    config = tmp_path / "uri.json"
    config.write_text(json.dumps(uri), encoding="utf-8")
    script = textwrap.dedent(f"""
        import json, sys
        from pathlib import Path
        sys.path.insert(0, {str(ROOT)!r})
        from pydantic import SecretStr
        from tasks.database.tools.dumping import dump_with_tool
        from tasks.database.tools.find import Tool
        uri = json.loads(Path({str(config)!r}).read_text())
        dump_with_tool(Tool("mongodump", "100.9.4", {ssh!r}), SecretStr(uri), {DB!r}, Path({str(tmp_path / "b")!r}),
                       apinizer_version="1", progress=lambda at: print(at.documents, flush=True))
    """)
    worker = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert worker.stdout
    assert worker.stdout.readline()
    pid = installed.pid()
    assert not gone(pid, seconds=0.2)
    kill_tree(worker, also_children=bool(ssh))
    assert gone(pid)
    assert list(installed.temporary.iterdir()) == []
    assert [path.name for path in (tmp_path / "b").iterdir() if not path.name.startswith(".")] == []
    assert not running(f"--db={DB}")


def test_a_connection_that_is_lost_in_the_middle(database: Client, uri: str, tmp_path: Path, far_side: FarSide) -> None:
    far_side.tools.behave(after=1, stall=600)

    def cut() -> None:
        parent = far_side.tools.pid()
        time.sleep(1)
        while "sshd" not in (Path(f"/proc/{parent}/comm").read_text(encoding="utf-8")):
            parent = int(Path(f"/proc/{parent}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGKILL)

    cutter = threading.Thread(target=cut)
    cutter.start()
    with pytest.raises(TemporaryError, match="over SSH"):
        backup(uri, tmp_path, ssh=far_side.ssh)
    cutter.join()
    assert gone(far_side.tools.pid())
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_machine(uri: str, tmp_path: Path, far_side: FarSide) -> None:
    far_side.forget_host()
    with pytest.raises(UsageError, match="cannot be reached over SSH") as caught:
        find("mongodump", far_side.ssh)
    assert f"ssh {far_side.ssh} true" in caught.value.next


def test_a_machine_with_another_key(far_side: FarSide) -> None:
    far_side.change_host()
    with pytest.raises(BlockedError) as caught:
        find("mongodump", far_side.ssh)
    assert "ssh-keygen -R" in caught.value.next


def test_a_refused_key(far_side: FarSide) -> None:
    far_side.lock_out()
    with pytest.raises(UnauthorizedError) as caught:
        find("mongodump", far_side.ssh)
    assert "BatchMode" in caught.value.next


def test_a_machine_that_is_down(far_side: FarSide) -> None:
    config = far_side.folder / "config"
    config.write_text(config.read_text(encoding="utf-8").replace(f"Port {far_side.port}", "Port 1"), encoding="utf-8")
    with pytest.raises(TemporaryError, match="cannot be reached over SSH"):
        find("mongodump", far_side.ssh)


def test_no_such_machine(far_side: FarSide) -> None:
    with pytest.raises(TemporaryError):
        find("mongodump", "no-such-machine.invalid")


def test_a_certificate_of_this_machine_is_none_of_the_other(tmp_path: Path, far_side: FarSide) -> None:
    with pytest.raises(UsageError, match="certificates"):
        backup("mongodb://db1/?tls=true&tlsCAFile=/etc/ca.pem", tmp_path, ssh=far_side.ssh)


def test_errors_are_this_projects_own() -> None:
    with pytest.raises(UpgradeError):
        Tool("mongodump", "").refuse_old()
