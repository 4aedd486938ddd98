"""Whole restores against a real server: what is asked, what is refused before a write, what is gone on with."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import ObjectId
from pymongo import monitoring

from tasks.database.archive.format import CollectionEntry, Header, Namespace
from tasks.database.archive.metadata import CollectionMetadata
from tasks.database.archive.writer import ArchiveWriter
from tasks.database.connection import open_database
from tasks.database.manifest import load, manifest_path
from tasks.database.merge_rule import MergeRule
from tasks.database.proof import prove
from tasks.database.restore.look import look
from tasks.database.restore.names import is_own, own_of
from tasks.database.restore.plan import RestorePlan, RestoreRequest, Verb
from tasks.database.restore.progress import RestoreProgress
from tasks.database.restore.run import restore
from tasks.database.restore.state import require_none_half_done
from tasks.domain.errors import (
    BlockedError,
    DamagedArchiveError,
    DriftError,
    NotFoundError,
    StoppedError,
    UnprovenError,
    UpgradeError,
    UsageError,
)
from tests.tasks.database.restore.world import DB, Client, backup, picture, put_back

WRITES = {
    "insert",
    "update",
    "delete",
    "create",
    "createIndexes",
    "drop",
    "dropDatabase",
    "renameCollection",
    "collMod",
}


def ask(**fields: Any) -> RestoreRequest:
    return RestoreRequest(database=DB, **fields)


def planned(uri: str, archive: Path, request: RestoreRequest, safety: Path | None = None) -> RestorePlan:
    with open_database(uri) as client:
        return look(client, archive, request, safety)


@pytest.fixture
def small(client: Client, uri: str, tmp_path: Path) -> Path:
    """An archive of two collections, which the database still holds."""
    client[DB]["a"].insert_many([{"_id": i, "v": 1} for i in range(10)])
    client[DB]["b"].insert_many([{"_id": i, "v": 1} for i in range(5)])
    return backup(uri, tmp_path)


class _Seen(monitoring.CommandListener):
    def __init__(self) -> None:
        self.names: list[str] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.names.append(event.command_name)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Not asked for."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Not asked for."""


def refused(uri: str, archive: Path, request: RestoreRequest, kind: type[UpgradeError], text: str, **more: Any) -> None:
    """The restore refuses, and sends no command that writes."""
    seen = _Seen()
    with Client(uri, event_listeners=[seen]) as client, pytest.raises(kind) as caught:
        restore(client, archive, request, **more)
    assert type(caught.value) is kind
    assert text in str(caught.value)
    assert caught.value.safe.startswith("Nothing was changed")
    assert caught.value.next
    assert not WRITES.intersection(seen.names)


def test_a_plan_only_reads(small: Path, client: Client, uri: str) -> None:
    client[DB]["x"].insert_one({})
    before = picture(client)
    plan = planned(uri, small, ask())
    assert {a.target.collection: (a.verb, a.documents, a.documents_now) for a in plan.actions} == {
        "a": (Verb.REPLACE, 10, 10),
        "b": (Verb.REPLACE, 5, 5),
        "x": (Verb.LEAVE, 0, 1),
    }
    assert plan.refusal is None
    assert picture(client) == before


def test_selected_collections_and_another_name(small: Path, client: Client, uri: str) -> None:
    client[DB]["a"].delete_many({"_id": {"$gt": 3}})
    client[DB]["b"].delete_many({})
    now = picture(client)
    put_back(uri, small, ask(include=("a",), rename={"a": "a of then"}))
    after = picture(client)
    assert len(after.pop("a of then")[3]) == 10
    assert after == now


def test_into_another_database(small: Path, client: Client, uri: str) -> None:
    now = picture(client)
    put_back(uri, small, RestoreRequest(database="elsewhere", source_database=DB))
    assert picture(client, "elsewhere") == now
    assert picture(client) == now


def test_progress_goes_forward_to_its_end(small: Path, uri: str) -> None:
    told: list[RestoreProgress] = []
    evidence = put_back(uri, small, progress=told.append)
    phases = [one.phase for one in told]
    assert phases == sorted(phases, key=["prove", "load", "check", "index", "rename"].index)
    loads = [one for one in told if one.phase == "load"]
    assert loads[-1].documents == evidence.documents == 15
    assert loads[-1].bytes_done == loads[-1].bytes_expected == evidence.bytes


# --- exact


def test_exact_drops_what_the_safety_backup_holds(small: Path, client: Client, uri: str, tmp_path: Path) -> None:
    before = picture(client)
    client[DB]["new"].insert_many([{"_id": i} for i in range(3)])
    client[DB].create_collection("new view", viewOn="new", pipeline=[])
    client["other"]["x"].insert_one({})
    safety = backup(uri, tmp_path / "safety")
    refused(uri, small, ask(exact=True), BlockedError, "no backup of what is there now")
    refused(uri, small, ask(exact=True), BlockedError, "was not proved", safety=safety)
    prove(safety)
    client[DB]["new"].insert_one({"_id": 4})
    refused(uri, small, ask(exact=True), BlockedError, "4 documents now, 3 in the backup", safety=safety)
    client[DB]["new"].delete_one({"_id": 4})
    content = safety.read_bytes()
    safety.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused(uri, small, ask(exact=True), BlockedError, "not the one that was proved", safety=safety)
    safety.write_bytes(content)
    evidence = put_back(uri, small, ask(exact=True), safety=safety)
    assert picture(client) == before
    assert set(evidence.dropped) == {"new", "new view"}
    assert client["other"]["x"].count_documents({}) == 1


def test_exact_is_refused_where_nobody_knows_what_was_left_out(
    small: Path, client: Client, uri: str, tmp_path: Path
) -> None:
    client[DB]["new"].insert_one({})
    safety = backup(uri, tmp_path / "safety")
    prove(safety)
    manifest_path(small).unlink()
    refused(uri, small, ask(exact=True), BlockedError, "no manifest", safety=safety)


# --- refused before a write


def test_what_is_no_use_is_refused_before_a_write(small: Path, client: Client, uri: str, tmp_path: Path) -> None:
    good = small.read_bytes()
    refused(uri, tmp_path, ask(), UsageError, "directory")
    refused(uri, tmp_path / "none", ask(), NotFoundError, "no archive")
    refused(uri, small, ask(source_database="other"), NotFoundError, "does not hold the database other")
    refused(uri, small, ask(include=("nothing",)), UsageError, "include nothing")
    refused(uri, small, RestoreRequest(database="a b", source_database=DB), UsageError, "no name of a database")
    for changed in (good[: len(good) // 2], good[:40] + bytes([good[40] ^ 8]) + good[41:]):
        small.write_bytes(changed)
        refused(uri, small, ask(), DamagedArchiveError, "damaged")
    newer = tmp_path / "newer.archive"
    head = {"concurrent_collections": 4, "version": "0.2", "server_version": "9.0.0", "tool_version": "200.0"}
    newer.write_bytes(bytes.fromhex("6de29981") + bson.encode(head) + b"\xff" * 4)
    refused(uri, newer, ask(), UnprovenError, "not known here")


def test_an_archive_of_another_installation(client: Client, uri: str, tmp_path: Path) -> None:
    client[DB]["api_proxy"].insert_many([{"_id": ObjectId()} for _ in range(50)])
    archive = backup(uri, tmp_path)
    client[DB]["api_proxy"].delete_many({})
    client[DB]["api_proxy"].insert_many([{"_id": ObjectId(f"6b02ed8167d2329a4f{number:06x}")} for number in range(50)])
    client[DB].drop_collection("renewed")
    client[DB]["api_proxy"].rename("renewed")
    client[DB]["renewed"].rename("api_proxy")  # Its UUID is another one, as in another installation.
    refused(uri, archive, ask(), BlockedError, "another installation")
    put_back(uri, archive, ask(other_installation=True))
    assert len(picture(client)["api_proxy"][3]) == 50


# --- merging


def test_merging_is_shown_and_done(small: Path, client: Client, uri: str) -> None:
    client[DB]["a"].delete_many({"_id": {"$lt": 4}})
    client[DB]["a"].update_one({"_id": 5}, {"$set": {"v": 9}})
    client[DB]["a"].insert_one({"_id": "mine"})
    client[DB]["b"].drop()
    request = ask(merge=MergeRule.parse("newest:v"))
    plan = planned(uri, small, request)
    assert any("4 inserted, 0 replaced, 1 kept" in sentence for sentence in plan.sentences)
    evidence = put_back(uri, small, request)
    assert evidence.merged == ("a",)
    assert evidence.created == ("b",)
    found = {one["_id"]: one.get("v") for one in client[DB]["a"].find()}
    assert found == {**dict.fromkeys(range(10), 1), 5: 9, "mine": None}
    assert not any(is_own(name) for name in client[DB].list_collection_names())


def test_what_a_merge_could_not_do_is_told_at_the_end(small: Path, client: Client, uri: str) -> None:
    client[DB]["a"].delete_many({})
    client[DB]["a"].insert_one({"_id": "holder", "v": 1})
    client[DB]["a"].create_index("v", unique=True)
    with pytest.raises(UpgradeError, match="10 of 10 documents could not be merged"):
        put_back(uri, small, ask(merge=MergeRule.parse("ours"), include=("a",)))
    assert client[DB]["a"].count_documents({}) == 1
    assert not any(is_own(name) for name in client[DB].list_collection_names())


# --- ended in the middle


def stop_in(phase: str) -> tuple[Callable[[RestoreProgress], None], Callable[[], bool]]:
    reached = threading.Event()

    def progress(at: RestoreProgress) -> None:
        if at.phase == phase:
            reached.set()

    return progress, reached.is_set


def test_stopped_while_loading_and_gone_on_with(small: Path, client: Client, uri: str) -> None:
    client[DB]["a"].delete_many({})
    now = picture(client)
    progress, stop = stop_in("load")
    with pytest.raises(StoppedError) as caught:
        put_back(uri, small, progress=progress, stop=stop)
    assert "No collection was replaced" in caught.value.safe
    assert {name: one for name, one in picture(client).items() if not is_own(name)} == now
    plan = planned(uri, small, ask())
    assert any("interrupted (loading)" in sentence for sentence in plan.sentences)
    assert not any(is_own(action.target.collection) for action in plan.actions)
    put_back(uri, small)
    assert len(picture(client)["a"][3]) == 10


def test_what_was_ready_is_not_loaded_again(small: Path, client: Client, uri: str) -> None:
    progress, stop = stop_in("index")
    with pytest.raises(StoppedError):
        put_back(uri, small, progress=progress, stop=lambda: stop() and ready(client) == 1)
    assert ready(client) == 1
    loaded: list[str] = []
    put_back(uri, small, progress=lambda at: loaded.append(at.collection) if at.phase == "load" else None)
    assert set(loaded) == {"b"}


def ready(client: Client) -> int:
    states = [name for name in client[DB].list_collection_names() if name.endswith(".state")]
    found = client[DB][states[0]].find_one() if states else None
    return found["state"].count('"fingerprint"') if found else 0


@pytest.fixture
def half_done(small: Path, client: Client, uri: str) -> Path:
    """A restore that ended between two renames: `a` is restored, `b` is not yet."""
    for name in "ab":
        client[DB][name].update_many({}, {"$set": {"v": 2}})
    asked = 0

    def guard() -> None:
        nonlocal asked
        done = list(client[DB]["a"].find({"v": 1}))
        asked += bool(done)
        if asked > 1:
            raise BlockedError("A manager appeared.")

    with pytest.raises(BlockedError) as caught:
        put_back(uri, small, guard=guard)
    assert "Start nothing on this database" in caught.value.safe
    assert client[DB]["a"].find_one()["v"] == 1  # type: ignore[index]
    assert client[DB]["b"].find_one()["v"] == 2  # type: ignore[index]
    return small


def test_a_half_done_restore_comes_before_any_other(half_done: Path, client: Client, uri: str, tmp_path: Path) -> None:
    other = backup(uri, tmp_path / "other")
    refused(uri, other, ask(), BlockedError, "interrupted while it put collections")
    refused(uri, half_done, ask(include=("b",)), BlockedError, "interrupted while it put collections")
    put_back(uri, half_done)
    assert [len(picture(client)[name][3]) for name in "ab"] == [10, 5]
    assert not client[DB]["b"].count_documents({"v": 2})
    put_back(uri, other)


def test_nothing_else_begins_on_a_half_done_database(half_done: Path, client: Client, uri: str) -> None:
    with pytest.raises(BlockedError, match="interrupted while it put collections"):
        require_none_half_done(client, DB)
    put_back(uri, half_done)
    require_none_half_done(client, DB)


def test_a_state_of_another_form_is_nobodys_to_remove(
    half_done: Path, client: Client, uri: str, tmp_path: Path
) -> None:
    (name,) = (name for name in client[DB].list_collection_names() if name.endswith(".state"))
    client[DB][name].update_one({}, {"$set": {"state": '{"form": 2}'}})
    other = backup(uri, tmp_path / "other")
    for archive in (half_done, other):
        refused(uri, archive, ask(), BlockedError, "another version")
    with pytest.raises(BlockedError, match="another version"):
        require_none_half_done(client, DB)
    client[DB][name].drop()
    put_back(uri, half_done)


def test_what_was_written_to_a_half_done_restore_does_not_stay(half_done: Path, client: Client, uri: str) -> None:
    client[DB]["a"].insert_one({"_id": "by a manager that was started too early"})
    evidence = put_back(uri, half_done)
    assert client[DB]["a"].count_documents({}) == 10
    assert any("changed after it was put in its place" in note for note in evidence.notes)


def test_what_another_archives_restore_left_is_told_and_removed(
    small: Path, client: Client, uri: str, tmp_path: Path
) -> None:
    progress, stop = stop_in("index")
    with pytest.raises(StoppedError):
        put_back(uri, small, progress=progress, stop=stop)
    left = [name for name in client[DB].list_collection_names() if is_own(name)]
    client[DB]["a"].insert_one({"_id": "more"})
    other = tmp_path / "other"
    archive = backup(uri, other)
    plan = planned(uri, archive, ask())
    assert any(all(name in sentence for name in left) for sentence in plan.sentences)
    put_back(uri, archive)
    assert not any(is_own(name) for name in client[DB].list_collection_names())


def test_writes_of_others_end_it(small: Path, client: Client, uri: str) -> None:
    wrote = threading.Event()

    def progress(at: RestoreProgress) -> None:
        if at.phase == "check" and not wrote.is_set():
            client[DB]["b"].insert_one({"_id": "a manager's"})
            wrote.set()

    with pytest.raises(DriftError, match="Somebody else writes") as caught:
        put_back(uri, small, progress=progress, watch_others=True)
    assert "b: " in caught.value.observed
    evidence = put_back(uri, small, watch_others=True)
    assert client[DB]["b"].count_documents({}) == 5
    assert any("change stream" in note for note in evidence.notes)


# --- odd archives


class _Sink(list[bytes]):
    def write(self, data: bytes) -> None:
        self.append(data)


def written(path: Path, contents: dict[Namespace, list[dict[str, Any]]], *, series: str = "") -> Path:
    """An archive; `series` names the one that is a time series, as a server from 8.3 on gives it."""
    sink = _Sink()
    index = {"v": 2, "key": {"_id": 1}, "name": "_id_"}
    entries = [
        CollectionEntry(
            n,
            CollectionMetadata(
                n.collection,
                *(
                    ("timeseries", "", {"timeseries": {"timeField": "t"}}, ())
                    if n.collection == series
                    else ("collection", "", {}, (index,))
                ),
            ).encode()
            if n.db
            else "",
            "",
        )
        for n in contents
    ]
    writer = ArchiveWriter(sink, Header("8.0.4", "test"), entries)
    for namespace, documents in contents.items():
        writer.begin(namespace)
        writer.documents(namespace, b"".join(map(bson.encode, documents)), len(documents))
        writer.end(namespace)
    path.write_bytes(b"".join(sink))
    return path


def test_a_document_that_was_archived_twice(client: Client, uri: str, tmp_path: Path) -> None:
    """A backup of a database that is written may meet a document again: what it met later stays."""
    documents = [{"_id": 1, "v": "same"}, {"_id": 2, "v": 1}, {"_id": 1, "v": "same"}, {"_id": 2, "v": 2}, {"_id": 3}]
    archive = written(tmp_path / "x.archive", {Namespace(DB, "a"): documents})
    put_back(uri, archive)
    assert list(client[DB]["a"].find(sort=[("_id", 1)])) == [{"_id": 1, "v": "same"}, {"_id": 2, "v": 2}, {"_id": 3}]


def test_a_time_series_that_is_excluded_stands_in_nobodys_way(client: Client, uri: str, tmp_path: Path) -> None:
    contents = {Namespace(DB, "a"): [{"_id": 1}], Namespace(DB, "metrics"): [{"_id": 1, "t": datetime.now(UTC)}]}
    archive = written(tmp_path / "x.archive", contents, series="metrics")
    refused(uri, archive, ask(), UnprovenError, "Time series cannot be restored natively here: metrics")
    assert any("engine mongodump" in sentence for sentence in planned(uri, archive, ask()).sentences)
    put_back(uri, archive, ask(exclude=("metrics",)))
    assert client[DB]["a"].count_documents({}) == 1


def test_an_archive_with_an_oplog_is_one_point_in_time(client: Client, uri: str, tmp_path: Path) -> None:
    now = bson.Timestamp(1, 1)
    wall = datetime(2026, 11, 22, tzinfo=UTC)
    entries = [
        {"ts": now, "t": 1, "v": 2, "op": "i", "ns": f"{DB}.a", "o": {"_id": 9, "v": 1}, "wall": wall},
        {"ts": now, "t": 1, "v": 2, "op": "u", "ns": f"{DB}.a", "o2": {"_id": 1},
         "o": {"$v": 2, "diff": {"u": {"v": 7}}}, "wall": wall},
        {"ts": now, "t": 1, "v": 2, "op": "d", "ns": f"{DB}.a", "o": {"_id": 2}, "wall": wall},
    ]  # fmt: skip
    contents = {
        Namespace(DB, "a"): [{"_id": 1, "v": 1}, {"_id": 2, "v": 1}],
        Namespace(DB, "b"): [{"_id": 1}],
        Namespace("", "oplog"): entries,
    }
    archive = written(tmp_path / "x.archive", contents)
    for _ in range(2):
        put_back(uri, archive)
        assert list(client[DB]["a"].find(sort=[("_id", 1)])) == [{"_id": 1, "v": 7}, {"_id": 9, "v": 1}]
        assert client[DB]["b"].count_documents({}) == 1


def test_a_server_that_changes_documents_is_found_out(small: Path, client: Client, uri: str) -> None:
    """A copy that is not what the archive holds, by whatever: here somebody writes into it."""

    def progress(at: RestoreProgress) -> None:
        copies = [name for name in own_of(client[DB].list_collection_names()) if not name.endswith("state")]
        if at.phase == "load" and copies:
            client[DB][copies[0]].update_one({"_id": 3}, {"$set": {"v": 3}})

    before = picture(client)
    with pytest.raises(UnprovenError, match="is not what the archive holds") as caught:
        put_back(uri, small, progress=progress)
    assert "No collection was replaced" in caught.value.safe
    assert {name: one for name, one in picture(client).items() if not is_own(name)} == before
    put_back(uri, small)
    assert picture(client) == before


def test_the_archive_that_was_proved_is_the_one_that_is_loaded(small: Path, client: Client, uri: str) -> None:
    client[DB]["a"].insert_one({"_id": "new"})
    before = picture(client)
    content = small.read_bytes()
    other = backup(uri, small.parent / "other").read_bytes()

    with pytest.raises(DamagedArchiveError, match="changed while"):
        put_back(uri, small, guard=lambda: small.write_bytes(other) and None)
    assert {name: one for name, one in picture(client).items() if not is_own(name)} == before
    small.write_bytes(content)
    assert load(small)


def test_nothing_that_expires_is_lost_before_it_was_counted(client: Client, uri: str, tmp_path: Path) -> None:
    client[DB]["a"].insert_many([{"_id": i, "at": datetime(2020, 1, 1, tzinfo=UTC)} for i in range(10)])
    client[DB]["a"].create_index("at", expireAfterSeconds=0)
    archive = backup(uri, tmp_path)
    held = load(archive)
    assert held
    evidence = put_back(uri, archive)
    assert evidence.documents == held.documents
    assert client[DB]["a"].index_information()["at_1"]["expireAfterSeconds"] == 0


@pytest.fixture(autouse=True)
def _no_other_databases(client: Client) -> Iterator[None]:
    yield
    client.drop_database("elsewhere")
