"""What is put in place is what was checked; a restore that is gone on with looks again at what is there."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tasks.database.archive.format import Namespace
from tasks.database.batch import ReplyError
from tasks.database.merge_rule import MergeRule
from tasks.database.proof import prove
from tasks.database.restore.names import own_of
from tasks.database.restore.plan import RestoreRequest
from tasks.database.restore.progress import RestoreProgress
from tasks.database.restore.state import require_none_half_done
from tasks.domain.errors import BlockedError, StoppedError, TemporaryError, UnprovenError, UpgradeError
from tests.tasks.database.restore.test_run import written
from tests.tasks.database.restore.world import DB, Client, Wire, backup, picture, put_back


def ask(**fields: Any) -> RestoreRequest:
    return RestoreRequest(database=DB, **fields)


@pytest.fixture
def archive(client: Client, uri: str, tmp_path: Path) -> Path:
    for name in "abc":
        client[DB][name].insert_many([{"_id": i, "v": name} for i in range(20)])
    return backup(uri, tmp_path)


def copies(client: Client) -> list[str]:
    return sorted(name for name in own_of(client[DB].list_collection_names()) if not name.endswith(".state"))


def once_in(phase: str, act: Callable[[], object], collection: str = "") -> Callable[[RestoreProgress], None]:
    """Tells progress; does `act` when the restore is first in `phase`."""
    done: list[object] = []

    def progress(at: RestoreProgress) -> None:
        if at.phase == phase and collection in {"", at.collection} and not done:
            done.append(act())

    return progress


def ended_after(client: Client, count: int) -> Callable[[], None]:
    """A guard that ends the restore when `count` collections are in their place."""

    def guard() -> None:
        for name in own_of(client[DB].list_collection_names()):
            if name.endswith(".state"):
                state = (client[DB][name].find_one() or {})["state"]
                if len(state.partition('"done":[')[2].partition("]")[0].replace(",", " ").split()) == count:
                    raise TemporaryError("The worker died.")

    return guard


# --- what is put in place


def test_a_copy_that_was_made_anew_is_found_out(archive: Path, client: Client, uri: str, wire: Wire) -> None:
    """Right before its rename, when nobody looks at it any more."""
    before = picture(client)

    def exchange(_name: str) -> bool:
        name = copies(client)[0]
        client[DB].drop_collection(name)
        client[DB].create_collection(name)
        return False

    wire.arm(("renameCollection", 1), exchange)
    with pytest.raises(UnprovenError, match="not what the archive holds") as caught:
        put_back(wire.uri, archive)
    assert "Start nothing" in caught.value.safe
    wire.arm(None)
    put_back(uri, archive)
    assert picture(client) == before


def test_a_copy_that_is_another_one_takes_no_place(archive: Path, client: Client, uri: str) -> None:
    before = picture(client)

    def exchange() -> None:
        name = copies(client)[1]
        client[DB].drop_collection(name)
        client[DB][name].insert_many([{"_id": i, "v": "b", "more": 1} for i in range(20)])

    with pytest.raises(UnprovenError, match="not the one that was checked"):
        put_back(uri, archive, progress=once_in("rename", exchange))
    assert {name: one for name, one in picture(client).items() if name in "abc"} == before
    put_back(uri, archive)
    assert picture(client) == before


def test_what_is_made_in_its_place_is_what_was_checked(client: Client, uri: str, tmp_path: Path) -> None:
    client[DB].create_collection("sorted", collation={"locale": "tr"})
    client[DB]["sorted"].insert_many([{"_id": i} for i in range(20)])
    before = picture(client)
    archive = backup(uri, tmp_path)

    def empty() -> None:
        for name in copies(client):
            client[DB][name].delete_many({"_id": 3})

    with pytest.raises(UnprovenError, match="when that was checked"):
        put_back(uri, archive, progress=once_in("rename", empty))
    put_back(uri, archive)
    assert picture(client) == before


@pytest.mark.parametrize("problem", [ReplyError("no cursor"), OSError(5, "Input/output error"), ValueError("secret")])
def test_what_nobody_foresaw_says_what_is_safe(archive: Path, client: Client, uri: str, problem: Exception) -> None:
    before = picture(client)

    def fail() -> None:
        raise problem

    for phase, safe in (("load", "No collection was replaced"), ("rename", "Start nothing on this database")):
        with pytest.raises(UpgradeError, match="not foreseen") as caught:
            put_back(uri, archive, progress=once_in(phase, fail, "b" if phase == "rename" else ""))
        assert safe in caught.value.safe
        assert type(problem).__name__ in caught.value.observed
        assert "secret" not in str(caught.value)
    put_back(uri, archive)
    assert picture(client) == before


def test_a_stop_is_heard_while_an_index_is_built(client: Client, uri: str, wire: Wire, tmp_path: Path) -> None:
    client[DB]["a"].insert_one({"_id": 1, "v": 1})
    client[DB]["a"].create_index("v")
    archive = backup(uri, tmp_path)
    building, ended = threading.Event(), threading.Event()
    waited: list[bool] = []

    def build(_name: str) -> bool:
        building.set()
        waited.append(ended.wait(60))
        return True

    wire.arm(("createIndexes", 0), build)
    with pytest.raises(StoppedError):
        put_back(wire.uri, archive, stop=building.is_set)
    assert not waited
    ended.set()


def test_a_document_archived_twice_and_sent_twice(client: Client, wire: Wire, tmp_path: Path) -> None:
    documents = [{"_id": 1, "v": "same"}, {"_id": 2}, {"_id": 1, "v": "same"}, {"_id": 3}]
    archive = written(tmp_path / "x.archive", {Namespace(DB, "a"): documents})
    cut: list[str] = []
    for number in range(2):
        wire.arm(("insert", number), lambda name: not cut.append(name), after=True)
        put_back(wire.uri, archive)
        assert client[DB]["a"].count_documents({}) == 3
    assert cut


# --- going on


def test_what_came_between_goes_where_the_restore_is_exact(
    archive: Path, client: Client, uri: str, tmp_path: Path
) -> None:
    before = picture(client)
    client[DB]["extra"].insert_one({"_id": 1})
    first, second = (tmp_path / name for name in ("first", "second"))
    safety = backup(uri, first)
    prove(safety)
    with pytest.raises(TemporaryError):
        put_back(uri, archive, ask(exact=True), safety=safety, guard=ended_after(client, 1))
    client[DB]["made between"].insert_one({"_id": 1})
    with pytest.raises(BlockedError, match="would drop"):
        put_back(uri, archive, ask(exact=True), safety=safety)
    safety = backup(uri, second)
    prove(safety)
    evidence = put_back(uri, archive, ask(exact=True), safety=safety)
    assert set(evidence.dropped) == {"extra", "made between"}
    assert picture(client) == before


def test_what_was_made_between_is_said_to_be_replaced(archive: Path, client: Client, uri: str) -> None:
    before = picture(client)
    client[DB].drop_collection("c")
    client[DB].drop_collection("a")
    with pytest.raises(TemporaryError):
        put_back(uri, archive, guard=ended_after(client, 1))
    client[DB]["c"].insert_one({"_id": "mine"})
    evidence = put_back(uri, archive)
    assert (evidence.created, set(evidence.replaced)) == (("a",), {"b", "c"})
    assert picture(client) == before


def test_what_a_merge_could_not_do_is_told_after_a_retry(client: Client, uri: str, tmp_path: Path) -> None:
    for name in "ab":
        client[DB][name].insert_one({"_id": 1, "k": 1})
        client[DB][name].create_index("k", unique=True)
    archive = backup(uri, tmp_path)
    for name in "ab":
        client[DB][name].delete_many({})
        client[DB][name].insert_one({"_id": 2, "k": 1})
    request = ask(merge=MergeRule.parse("theirs"))
    with pytest.raises(TemporaryError):
        put_back(uri, archive, request, guard=ended_after(client, 1))
    with pytest.raises(UpgradeError, match="Documents of 2 collections could not be merged") as caught:
        put_back(uri, archive, request)
    assert f"{DB}.a" in caught.value.observed
    assert f"{DB}.b" in caught.value.observed
    assert not own_of(client[DB].list_collection_names())


def test_fewer_documents_of_somebody_else_are_not_taken_for_aged(client: Client, uri: str, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    client[DB]["a"].insert_many([{"_id": i, "at": now, "v": "archive"} for i in range(20)])
    client[DB]["a"].create_index("at", expireAfterSeconds=365 * 24 * 3600)
    client[DB]["b"].insert_one({"_id": 1})
    before = picture(client)
    archive = backup(uri, tmp_path)
    with pytest.raises(TemporaryError):
        put_back(uri, archive, guard=ended_after(client, 1))
    client[DB]["a"].delete_many({})
    client[DB]["a"].insert_many([{"_id": i, "at": now, "v": "of a manager"} for i in range(5)])
    evidence = put_back(uri, archive)
    assert any("a was changed after" in note for note in evidence.notes)
    assert picture(client) == before


def test_a_half_done_restore_stays_half_done_while_it_loads_anew(archive: Path, client: Client, uri: str) -> None:
    """Until all is in its place, no other restore and no backup may begin."""
    before = picture(client)
    with pytest.raises(TemporaryError):
        put_back(uri, archive, guard=ended_after(client, 2))
    client[DB]["a"].insert_one({"_id": "of a manager"})
    reached = threading.Event()
    with pytest.raises(StoppedError) as caught:
        put_back(uri, archive, progress=once_in("load", reached.set), stop=reached.is_set)
    assert "Start nothing on this database" in caught.value.safe
    with pytest.raises(BlockedError, match="interrupted while it put collections"):
        put_back(uri, archive, ask(include=("b",)))
    loaded: set[str] = set()
    put_back(uri, archive, progress=lambda at: loaded.add(at.collection) if at.phase == "load" else None)
    assert loaded == {"a"}
    assert picture(client) == before


def test_a_half_done_restore_can_be_given_up_for_the_backup_of_before(
    archive: Path, client: Client, uri: str, tmp_path: Path
) -> None:
    for name in "abc":
        client[DB][name].update_many({}, {"$set": {"v": "of now"}})
    before = picture(client)
    safety = backup(uri, tmp_path / "safety")
    with pytest.raises(TemporaryError):
        put_back(uri, archive, guard=ended_after(client, 1))
    with pytest.raises(BlockedError, match="--give-up"):
        put_back(uri, safety)
    reached = threading.Event()
    with pytest.raises(StoppedError) as caught:
        put_back(uri, safety, ask(give_up=True), progress=once_in("load", reached.set), stop=reached.is_set)
    assert "start nothing on this database" in caught.value.safe
    # It is half of each still.
    with pytest.raises(BlockedError, match="interrupted while it put collections"):
        put_back(uri, archive)
    with pytest.raises(BlockedError, match="interrupted while it put collections"):
        require_none_half_done(client, DB)
    put_back(uri, safety)
    assert picture(client) == before
    require_none_half_done(client, DB)


def test_the_same_archive_asked_for_otherwise_gives_the_former_up(archive: Path, client: Client, uri: str) -> None:
    before = picture(client)
    client[DB]["b"].update_many({}, {"$set": {"v": "of now"}})
    client[DB]["c"].update_many({}, {"$set": {"v": "of now"}})
    with pytest.raises(TemporaryError):
        put_back(uri, archive, guard=ended_after(client, 1))
    evidence = put_back(uri, archive, ask(include=("b",), give_up=True))
    assert any("Given up" in note for note in evidence.notes)
    assert picture(client)["b"] == before["b"]
    assert picture(client).keys() == before.keys()
    assert client[DB]["c"].find_one({"v": "of now"})


# --- what an exact restore drops


@pytest.fixture
def exact(archive: Path, client: Client, uri: str, tmp_path: Path) -> tuple[Path, Path]:
    """The archive, and the proved backup of what is there now: a log and a view are not in the archive."""
    client[DB]["audit_event"].insert_one({"_id": 1, "v": "held"})
    client[DB].create_collection("seen", viewOn="a", pipeline=[])
    safety = backup(uri, tmp_path / "safety")
    prove(safety)
    return archive, safety


def test_what_the_backup_does_not_hold_is_found_before_anything_is_replaced(
    exact: tuple[Path, Path], client: Client, uri: str
) -> None:
    """As many documents, but another one."""
    archive, safety = exact
    client[DB]["audit_event"].update_one({}, {"$set": {"v": "written after the backup"}})
    with pytest.raises(BlockedError, match="does not hold as it is now") as caught:
        put_back(uri, archive, ask(exact=True), safety=safety)
    assert "No collection was replaced" in caught.value.safe
    client[DB]["audit_event"].update_one({}, {"$set": {"v": "held"}})
    client[DB].drop_collection("seen")
    client[DB].create_collection("seen", viewOn="a", pipeline=[{"$match": {"x": 1}}])
    with pytest.raises(BlockedError, match="would drop seen"):
        put_back(uri, archive, ask(exact=True), safety=safety)


def test_what_is_written_at_the_last_moment_is_not_dropped(exact: tuple[Path, Path], client: Client, uri: str) -> None:
    archive, safety = exact
    extra = client[DB]["audit_event"]
    progress = once_in("drop", lambda: extra.insert_one({"_id": 2}), "audit_event")
    with pytest.raises(BlockedError, match="would drop audit_event"):
        put_back(uri, archive, ask(exact=True), safety=safety, progress=progress)
    assert extra.count_documents({}) == 2
    extra.delete_one({"_id": 2})
    evidence = put_back(uri, archive, ask(exact=True), safety=safety)
    assert set(evidence.dropped) == {"audit_event", "seen"}
    assert not {"audit_event", "seen"}.intersection(client[DB].list_collection_names())
    assert not own_of(client[DB].list_collection_names())


def test_what_was_set_aside_when_it_died_is_compared_again(exact: tuple[Path, Path], client: Client, uri: str) -> None:
    archive, safety = exact

    def aside() -> list[str]:
        return [name for name in client[DB].list_collection_names() if name.endswith(".extra")]

    def guard() -> None:
        if aside():
            raise TemporaryError("The worker died.")

    with pytest.raises(TemporaryError):
        put_back(uri, archive, ask(exact=True), safety=safety, guard=guard)
    (name,) = aside()
    client[DB][name].insert_one({"_id": 3})
    with pytest.raises(BlockedError, match="would drop audit_event"):
        put_back(uri, archive, ask(exact=True), safety=safety)
    assert not aside()
    assert client[DB]["audit_event"].count_documents({}) == 2
    client[DB]["audit_event"].delete_one({"_id": 3})
    with pytest.raises(TemporaryError):
        put_back(uri, archive, ask(exact=True), safety=safety, guard=guard)
    put_back(uri, archive, ask(give_up=True, include=("a",)))
    assert client[DB]["audit_event"].count_documents({}) == 1
    put_back(uri, archive, ask(exact=True), safety=safety)
    assert not {"audit_event", name}.intersection(client[DB].list_collection_names())


def test_what_is_replaced_unheld_is_told(archive: Path, client: Client, uri: str, tmp_path: Path) -> None:
    safety = backup(uri, tmp_path / "safety")
    prove(safety)
    client[DB]["b"].insert_one({"_id": "more"})
    evidence = put_back(uri, archive, safety=safety)
    assert any("b held 21 documents when it was replaced, 20 are in the backup" in note for note in evidence.notes)
    assert not any("a held" in note for note in evidence.notes)
