"""Restores by the other engine, here and over a real SSH connection; `standin.py` says what it stands for."""

import subprocess
import sys
import textwrap
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bson
import pytest
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS
from pydantic import SecretStr
from pymongo import MongoClient
from pymongo.errors import AutoReconnect

from tasks.database.connection import open_database
from tasks.database.dump import dump
from tasks.database.merge_rule import MergeRule
from tasks.database.proof import prove
from tasks.database.restore.lock import hold
from tasks.database.restore.plan import RestoreRequest
from tasks.database.restore.progress import RestoreEvidence, RestoreProgress
from tasks.database.scope import Scope
from tasks.database.tools import restoring
from tasks.database.tools.address import Address
from tasks.database.tools.find import Tool, find
from tasks.database.tools.restoring import restore_with_tool
from tasks.domain.errors import (
    BlockedError,
    DamagedArchiveError,
    DriftError,
    StoppedError,
    TemporaryError,
    UnprovenError,
    UpgradeError,
    UsageError,
)
from tests.tasks.database.tools.conftest import FarSide, Installed
from tests.tasks.database.tools.test_dump_with_tool import ROOT, gone, kill_tree

Client = MongoClient[dict[str, Any]]
DB = "apinizerdb"
DOCUMENTS = 400
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
REQUEST = RestoreRequest(database=DB)


def native(uri: str, directory: Path) -> Path:
    """A proved backup of the database as it is now."""
    with open_database(uri) as client:
        archive = dump(client, Scope.of(DB), directory, apinizer_version="2025.04.3", now=lambda: NOW).archive
    prove(archive)
    return archive


def put_back(
    uri: str, archive: Path, request: RestoreRequest = REQUEST, *, ssh: str = "", **more: Any
) -> RestoreEvidence:
    tool = find("mongorestore", ssh)
    assert tool is not None
    return restore_with_tool(tool, SecretStr(uri), archive, request, **more)


def state(client: Client, database: str = DB) -> dict[str, tuple[Any, ...]]:
    """Everything of a database but the collections' identities."""
    found: dict[str, tuple[Any, ...]] = {}
    for info in client[database].list_collections():
        name = info["name"]
        if name.startswith("system."):
            continue
        collection = client[database].get_collection(name, codec_options=DEFAULT_RAW_BSON_OPTIONS)
        view = info["type"] == "view"
        documents = sorted(bytes(one.raw) for one in collection.find())
        indexes = [] if view else sorted(bson.encode(dict(one)) for one in client[database][name].list_indexes())
        found[name] = (info["type"], bson.encode(info.get("options", {})), documents, indexes)
    return found


@pytest.fixture
def then(client: Client) -> Client:
    """The database as the archive shall have it."""
    for name in ("api_proxy", "mit * Stern"):
        client[DB][name].insert_many([{"_id": i, "text": f"{name} {i} " * 20} for i in range(DOCUMENTS)])
    client[DB]["api_proxy"].create_index("text", name="by text")
    client[DB].create_collection("checked", validator={"$jsonSchema": {"required": ["a"]}}, validationLevel="moderate")
    client[DB].create_collection("seen", viewOn="api_proxy", pipeline=[{"$match": {"_id": {"$lt": 3}}}])
    client["another"]["x"].insert_one({"_id": 1})
    return client


@pytest.fixture
def archive(then: Client, uri: str, tmp_path: Path) -> Path:
    return native(uri, tmp_path / "then")


@pytest.fixture
def safety(then: Client, archive: Path, uri: str, tmp_path: Path) -> Path:
    """The database is changed as by an upgrade, and backed up so."""
    then[DB]["api_proxy"].update_many({"_id": {"$lt": 20}}, {"$set": {"new": True}})
    then[DB]["api_proxy"].drop_index("by text")
    then[DB]["checked"].drop()
    then[DB]["made_by_upgrade"].insert_one({"_id": 1})
    return native(uri, tmp_path / "safety")


@pytest.fixture(params=["here", "over ssh"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Installed]:
    """The destination, and the tools there."""
    if request.param == "here":
        return "", request.getfixturevalue("tools")
    far: FarSide = request.getfixturevalue("far_side")
    # The other machine is this one: its loopback is the same.
    monkeypatch.setattr(Address, "loopback", False)
    return far.ssh, far.tools


def test_the_database_is_as_it_was(
    then: Client, uri: str, archive: Path, tmp_path: Path, where: tuple[str, Installed]
) -> None:
    before = state(then)
    then[DB]["api_proxy"].update_many({"_id": {"$lt": 20}}, {"$set": {"new": True}})
    then[DB]["api_proxy"].drop_index("by text")
    then[DB]["checked"].drop()
    then[DB]["made_by_upgrade"].insert_one({"_id": 1})
    safety = native(uri, tmp_path / "safety")
    seen: list[RestoreProgress] = []
    evidence = put_back(uri, archive, ssh=where[0], safety=safety, progress=seen.append)
    extra = {"made_by_upgrade": state(then)["made_by_upgrade"]}
    assert state(then) == before | extra
    assert set(evidence.replaced) == {"api_proxy", "mit * Stern", "seen"}
    assert evidence.created == ("checked",)
    assert evidence.left == ("made_by_upgrade",)
    assert evidence.documents == 2 * DOCUMENTS
    assert {"prove", "load", "check"} <= {at.phase for at in seen}
    assert max(at.documents for at in seen) == 2 * DOCUMENTS
    assert list(where[1].temporary.iterdir()) == []
    assert then["another"]["x"].count_documents({}) == 1


def test_exact_drops_what_the_upgrade_made(
    then: Client, uri: str, archive: Path, safety: Path, tools: Installed
) -> None:
    evidence = put_back(uri, archive, REQUEST.model_copy(update={"exact": True}), safety=safety)
    assert evidence.dropped == ("made_by_upgrade",)
    assert set(state(then)) == {"api_proxy", "mit * Stern", "checked", "seen"}


def test_an_extra_that_is_written_to_meanwhile_is_not_dropped(
    then: Client, uri: str, archive: Path, safety: Path, tools: Installed
) -> None:
    exact = REQUEST.model_copy(update={"exact": True})
    then[DB]["made_by_upgrade"].replace_one({"_id": 1}, {"as": "many as before"})
    before = state(then)
    with pytest.raises(BlockedError, match="made_by_upgrade"):
        put_back(uri, archive, exact, safety=safety)
    assert state(then) == before
    assert not tools.started
    then[DB]["made_by_upgrade"].replace_one({"_id": 1}, {})
    written = threading.Event()

    def progress(at: RestoreProgress) -> None:
        if at.phase == "load" and not written.is_set():
            written.set()
            then[DB]["made_by_upgrade"].insert_one({"_id": "by another"})

    with pytest.raises((DriftError, BlockedError)) as caught:
        put_back(uri, archive, exact, safety=safety, progress=progress)
    assert written.is_set()
    assert "Start nothing" in caught.value.safe
    assert then[DB]["made_by_upgrade"].count_documents({}) == 2


def test_two_restores_at_once(then: Client, uri: str, archive: Path, safety: Path, tools: Installed) -> None:
    before = state(then)
    with hold(then, DB, "other.archive", stop=lambda: False), pytest.raises(BlockedError) as caught:
        put_back(uri, archive, safety=safety)
    assert "other.archive" in str(caught.value)
    assert caught.value.safe == "Nothing was changed."
    assert state(then) == before


@pytest.mark.parametrize("problem", [OSError(5, "Input/output error"), AutoReconnect("closed")])
def test_an_end_that_nobody_foresaw(
    then: Client, uri: str, archive: Path, safety: Path, tools: Installed, monkeypatch: pytest.MonkeyPatch,
    problem: Exception,
) -> None:  # fmt: skip
    def fail(*_: object) -> None:
        raise problem

    monkeypatch.setattr(restoring, "check", fail)
    with pytest.raises(UpgradeError) as caught:
        put_back(uri, archive, safety=safety)
    assert str(safety) in caught.value.safe


def test_a_selection_under_other_names(then: Client, uri: str, archive: Path, safety: Path, tools: Installed) -> None:
    before = state(then)
    request = RestoreRequest(database=DB, include=("mit [*] Stern",), rename={"mit * Stern": "then"})
    evidence = put_back(uri, archive, request)
    assert evidence.created == ("then",)
    after = state(then)
    assert after.pop("then")[2] == before["mit * Stern"][2]
    assert after == before


def test_into_another_database(then: Client, uri: str, archive: Path, tools: Installed) -> None:
    put_back(uri, archive, RestoreRequest(database="scratch", source_database=DB))
    assert state(then, "scratch") == state(then)


def test_without_a_safety_backup_nothing_is_replaced(
    then: Client, uri: str, archive: Path, safety: Path, tools: Installed
) -> None:
    before = state(then)
    with pytest.raises(BlockedError, match="in place"):
        put_back(uri, archive)
    unproved = archive.with_name("copy.archive")
    unproved.write_bytes(safety.read_bytes())
    with pytest.raises(BlockedError, match="in place") as caught:
        put_back(uri, archive, safety=unproved)
    assert "no manifest" in caught.value.observed
    assert caught.value.safe == "Nothing was changed."
    assert state(then) == before


def test_a_safety_backup_that_lacks_something_is_none(
    then: Client, uri: str, archive: Path, safety: Path, tools: Installed
) -> None:
    then[DB]["api_proxy"].insert_one({"_id": "later"})
    before = state(then)
    with pytest.raises(BlockedError, match="in place") as caught:
        put_back(uri, archive, safety=safety)
    assert "api_proxy" in caught.value.observed
    assert state(then) == before


def test_a_damaged_archive_changes_nothing(
    then: Client, uri: str, archive: Path, safety: Path, tools: Installed
) -> None:
    before = state(then)
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    with pytest.raises(DamagedArchiveError):
        put_back(uri, archive, safety=safety)
    assert state(then) == before


def test_a_merge_is_refused(then: Client, uri: str, archive: Path, tools: Installed) -> None:
    with pytest.raises(UsageError, match="cannot merge"):
        put_back(uri, archive, REQUEST.model_copy(update={"merge": MergeRule.parse("ours")}))


def test_documents_that_failed_are_a_failure_though_the_tool_ends_well(
    then: Client, uri: str, archive: Path, safety: Path, tools: Installed
) -> None:
    tools.behave(lose=3)
    with pytest.raises(UpgradeError, match="could not put every document back") as caught:
        put_back(uri, archive, safety=safety)
    assert "3 documents" in caught.value.observed
    assert str(safety) in caught.value.safe


def test_what_the_tool_forgot_is_found(then: Client, uri: str, archive: Path, safety: Path, tools: Installed) -> None:
    tools.behave(forget=1)
    with pytest.raises(UnprovenError, match="not as the archive has it"):
        put_back(uri, archive, safety=safety)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("(NotWritablePrimary) not primary", TemporaryError),
        ("(OutOfDiskSpace) available disk space", BlockedError),
    ],
)
def test_a_failure_in_the_middle(
    then: Client, uri: str, archive: Path, safety: Path, where: tuple[str, Installed], line: str, error: type[Exception]
) -> None:
    where[1].behave(fail=f"apinizerdb.x: error restoring from archive on stdin: {line}", after=1)
    with pytest.raises(error) as caught:
        put_back(uri, archive, ssh=where[0], safety=safety)
    assert str(safety) in str(caught.value)


def test_the_guard_ends_the_tool(
    then: Client, uri: str, archive: Path, safety: Path, where: tuple[str, Installed]
) -> None:
    where[1].behave(pause=4)
    calls: list[float] = []

    def guard() -> None:
        calls.append(time.monotonic())
        if where[1].started:
            raise BlockedError("A manager pod appeared.")

    with pytest.raises(BlockedError, match="manager pod") as caught:
        put_back(uri, archive, ssh=where[0], safety=safety, guard=guard)
    assert gone(where[1].pid())
    assert str(safety) in caught.value.safe
    assert len(calls) > 1


def test_killed_here_nothing_goes_on_there(
    then: Client, uri: str, archive: Path, tmp_path: Path, where: tuple[str, Installed]
) -> None:
    ssh, installed = where
    # All is sent, and the tool is silent: only the end of its input can tell it.
    installed.behave(after=1, stall=600)
    script = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(ROOT)!r})
        from pydantic import SecretStr
        from tasks.database.restore.plan import RestoreRequest
        from tasks.database.tools.address import Address
        from tasks.database.tools.find import Tool
        from tasks.database.tools.restoring import restore_with_tool
        Address.loopback = False
        restore_with_tool(Tool("mongorestore", "100.9.4", {ssh!r}), SecretStr({uri!r}), Path({str(archive)!r}),
                          RestoreRequest(database="scratch", source_database={DB!r}),
                          progress=lambda at: at.phase == "load" and print(at.collection, flush=True))
    """)
    worker = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert worker.stdout
    assert worker.stdout.readline()
    pid = installed.pid()
    assert not gone(pid, seconds=0.5)
    kill_tree(worker, also_children=bool(ssh))
    assert gone(pid)
    assert list(installed.temporary.iterdir()) == []


def test_stopped(then: Client, uri: str, archive: Path, safety: Path, where: tuple[str, Installed]) -> None:
    where[1].behave(pause=4)
    loading = threading.Event()

    def progress(at: RestoreProgress) -> None:
        if at.phase == "load":
            loading.set()

    with pytest.raises(StoppedError) as caught:
        put_back(uri, archive, ssh=where[0], safety=safety, progress=progress, stop=loading.is_set)
    assert gone(where[1].pid())
    assert "Start nothing" in caught.value.safe


def test_somebody_else_writes(then: Client, uri: str, archive: Path, safety: Path, tools: Installed) -> None:
    tools.behave(pause=2)
    written = threading.Event()

    def progress(at: RestoreProgress) -> None:
        if at.phase == "load" and not written.is_set():
            written.set()
            then[DB]["made_by_upgrade"].insert_one({"_id": "by another"})

    with pytest.raises(DriftError):
        put_back(uri, archive, safety=safety, progress=progress)
    assert gone(tools.pid())


def test_an_old_tool_is_not_started(uri: str, archive: Path) -> None:
    with pytest.raises(UsageError, match="too old"):
        restore_with_tool(Tool("mongorestore", "100.2.0"), SecretStr(uri), archive, REQUEST)


def test_a_loopback_address_is_another_machines_there(uri: str, archive: Path, far_side: FarSide) -> None:
    with pytest.raises(UsageError, match="this machine's own"):
        put_back(uri, archive, ssh=far_side.ssh)
