"""Who else writes during a restore: by a table (tables/change_events.yaml), and on servers with and without streams."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from pymongo import MongoClient
from pymongo.errors import AutoReconnect, OperationFailure

from tasks.database.batch import ReplyError
from tasks.database.change_event import Author, Own, author
from tasks.database.foreign_writes import ForeignWrites, watch_for_others
from tasks.domain.errors import DriftError, UnprovenError
from tests.tasks.database.conftest import _free_port as free_port
from tests.tasks.database.conftest import _server as server

Client = MongoClient[dict[str, Any]]
CASES = yaml.safe_load((Path(__file__).parent / "tables" / "change_events.yaml").read_text())
COPY = "apinizer-restore.0123456789ab.0001"
STRENGTHS = ["change stream", "operation counters", "counts"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_authors(case: dict[str, Any]) -> None:
    kind, collection, *to = case["event"]
    event: dict[str, Any] = {
        "operationType": kind,
        "ns": {"db": "w", "coll": collection} if collection else {"db": "w"},
    }
    if to:
        event["to"] = {"db": "w", "coll": to[0]}
    own = Own(frozenset(case.get("structure", ())), frozenset(case.get("data", ())), case.get("run", ""))
    assert author(event, own, frozenset(case.get("aging", ()))) == Author(case["author"])


@pytest.fixture(params=STRENGTHS)
def watched(client: Client, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ForeignWrites]:
    """A watch of each strength; the weaker ones as a server without streams, or without `top`, brings them about."""
    refuse_streams(monkeypatch, streams=request.param != "change stream", top=request.param == "counts")
    monkeypatch.setattr("tasks.database.foreign_writes._PAUSE", 0.1)
    client.w.api_proxy.insert_many({"_id": i} for i in range(20))
    client.w.apinizer_log.insert_one({"_id": 0})
    client.w.token.insert_many({"_id": i} for i in range(5))
    client.w.token.create_index("at", expireAfterSeconds=1)
    with watch_for_others(client, "w") as found:
        assert found.strength == request.param
        yield found


def refuse_streams(monkeypatch: pytest.MonkeyPatch, *, streams: bool, top: bool) -> None:
    from pymongo.synchronous.database import Database

    command = Database.command

    def refusing(self: Any, asked: Any, *rest: Any, **more: Any) -> Any:
        if top and asked == "top":
            raise OperationFailure("not authorized", 13)
        return command(self, asked, *rest, **more)

    def no_stream(*_rest: Any, **_more: Any) -> Any:
        raise OperationFailure("The $changeStream stage is only supported on replica sets", 40573)

    if streams:
        monkeypatch.setattr(Database, "watch", no_stream)
    monkeypatch.setattr(Database, "command", refusing)


def swap(client: Client, watched: ForeignWrites, target: str) -> None:
    client.w[COPY].insert_many({"_id": i, "new": True} for i in range(50))
    client.w[COPY].create_index("new")
    watched.own(target)
    client.w[COPY].rename(target, dropTarget=True)


def test_a_restore_by_itself_meets_nobody(client: Client, watched: ForeignWrites) -> None:
    swap(client, watched, "api_proxy")
    watched.settle()
    swap(client, watched, "made_new")
    watched.own("token")
    client.w.token.drop()
    watched.settle()
    assert watched.evidence()[0].startswith("Writes of others were watched" if watched.strength == "change stream" else "The server gives no change stream")  # fmt: skip


def test_a_document_of_others_ends_it(client: Client, watched: ForeignWrites) -> None:
    client.w[COPY].insert_many({"_id": i} for i in range(50))
    watched.settle()
    client.w.api_proxy.insert_one({"_id": "foreign"})
    with pytest.raises(DriftError) as caught:
        watched.settle()
    assert "api_proxy: 1 ×" in caught.value.observed
    assert COPY not in caught.value.observed


def test_a_write_into_what_was_swapped_ends_it(client: Client, watched: ForeignWrites) -> None:
    swap(client, watched, "api_proxy")
    watched.settle()
    client.w.api_proxy.insert_one({"_id": "foreign"})
    with pytest.raises(DriftError, match="Somebody else writes to the database w while"):
        watched.settle()


def test_a_collection_dropped_by_others_ends_it(client: Client, watched: ForeignWrites) -> None:
    client.w.token.drop()
    with pytest.raises(DriftError, match="token: 1 ×"):
        watched.settle()


def test_a_rename_of_another_restore_onto_what_was_announced_ends_it(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server of MongoDB's tells no drop of what stood under the new name (SERVER-53478): the rename has to."""
    take = ForeignWrites._take

    def as_mongodb(self: ForeignWrites, event: Any) -> None:
        take(self, None if event and event["operationType"] == "drop" else event)

    monkeypatch.setattr(ForeignWrites, "_take", as_mongodb)
    client.w.api_proxy.insert_one({"_id": 0})
    client.w[COPY].insert_one({"_id": 1})
    other = COPY.replace("0123456789ab", "ffffffffffff")
    client.w[other].insert_one({"_id": 2})
    with watch_for_others(client, "w", "0123456789ab") as watched:
        watched.own("api_proxy")
        client.w[COPY].rename("api_proxy", dropTarget=True)
        watched.settle()
        client.w[other].rename("api_proxy", dropTarget=True)
        with pytest.raises(DriftError) as caught:
            watched.settle()
        assert caught.value.observed == f"{other}: 1 × rename to api_proxy"


@pytest.mark.parametrize("strength", STRENGTHS)
def test_a_watch_that_ended_is_told_and_is_no_success(
    client: Client, monkeypatch: pytest.MonkeyPatch, strength: str
) -> None:
    refuse_streams(monkeypatch, streams=strength != "change stream", top=strength == "counts")
    monkeypatch.setattr("tasks.database.foreign_writes._PAUSE", 0.1)

    def not_understood(*_rest: Any) -> None:
        raise ReplyError("the reply is no cursor's")

    client.w.api_proxy.insert_one({"_id": 0})
    with watch_for_others(client, "w") as watched:
        method = "_take" if strength == "change stream" else "_weigh"
        monkeypatch.setattr(ForeignWrites, method, not_understood)
        client.w.api_proxy.insert_one({"_id": "foreign"})
        with pytest.raises(UnprovenError, match="not known whether somebody else wrote") as caught:
            watched.settle()
        assert "ReplyError" in caught.value.observed
        with pytest.raises(UnprovenError):
            watched.check()


def test_a_watch_that_gets_no_answer_is_told(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_stream: Any) -> None:
        raise AutoReconnect("connection closed")

    monkeypatch.setattr("tasks.database.foreign_writes._SILENCE", 0.5)
    monkeypatch.setattr("pymongo.synchronous.change_stream.ChangeStream.try_next", away)
    with watch_for_others(client, "w") as watched:
        time.sleep(1.5)
        with pytest.raises(UnprovenError, match="did not answer the watch"):
            watched.check()


def test_a_last_look_without_an_answer_is_no_success(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_stream: Any) -> None:
        raise AutoReconnect("connection closed")

    monkeypatch.setattr("pymongo.synchronous.change_stream.ChangeStream.try_next", away)
    with watch_for_others(client, "w") as watched, pytest.raises(UnprovenError, match="not answered within 1 seconds"):
        watched.settle(1)


def test_a_log_that_is_never_silent_does_not_hide_the_last_look(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then no look is without an event: their times tell that all before was seen."""
    monkeypatch.setattr("tasks.database.foreign_writes._SETTLED_POLLS", 1_000_000)
    done = threading.Event()

    def log() -> None:
        while not done.wait(0.02):
            client.w.apinizer_log.insert_one({"at": 1})

    writing = threading.Thread(target=log)
    with watch_for_others(client, "w") as watched:
        writing.start()
        try:
            watched.settle()
            client.w.api_proxy.insert_one({"_id": "foreign"})
            with pytest.raises(DriftError, match="api_proxy: 1 × insert"):
                watched.settle()
        finally:
            done.set()
            writing.join()


def test_logs_are_named_and_do_not_end_it(client: Client, watched: ForeignWrites) -> None:
    client.w.apinizer_log.insert_one({"_id": 1})
    watched.settle()
    assert any(line.startswith("apinizer_log was written by others meanwhile") for line in watched.evidence())


def test_what_went_with_a_log_that_was_replaced_is_told(client: Client, watched: ForeignWrites) -> None:
    for i in range(3):
        client.w.apinizer_log.insert_one({"_id": f"before {i}"})
    watched.settle()
    swap(client, watched, "apinizer_log")
    watched.settle()
    client.w.apinizer_log.insert_one({"_id": "after"})
    watched.settle()
    line = next(line for line in watched.evidence() if line.startswith("apinizer_log was written by others meanwhile"))
    assert "since the last backup" in line
    assert line.endswith("went with the old collection when it was replaced.")
    if watched.strength == "change stream":
        assert "(4 changes): 3 of them, and" in line


def test_what_the_server_removes_by_age_does_not_end_it(client: Client, watched: ForeignWrites) -> None:
    client.w.token.delete_one({"_id": 1})
    if watched.strength == "operation counters":
        # A removal by age is no operation that is counted: one that is was somebody's.
        with pytest.raises(DriftError, match="token: 1 ×"):
            watched.settle()
        return
    watched.settle()


def test_a_merge_is_announced_and_said(client: Client, watched: ForeignWrites) -> None:
    watched.own("api_proxy", data=True)
    client.w.api_proxy.insert_one({"_id": "ours"})
    watched.settle()
    assert "Writes of others to api_proxy could not be told from this run's own." in watched.evidence()


def test_an_update_is_seen_where_operations_are_counted(client: Client, watched: ForeignWrites) -> None:
    client.w.api_proxy.update_one({"_id": 1}, {"$set": {"a": 1}})
    if watched.strength == "counts":
        watched.settle()
        return
    with pytest.raises(DriftError, match="api_proxy: 1 ×"):
        watched.settle()


def test_checking_asks_nobody(client: Client, watched: ForeignWrites, monkeypatch: pytest.MonkeyPatch) -> None:
    client.w.api_proxy.insert_one({"_id": "foreign"})
    with pytest.raises(DriftError):
        watched.settle()
    watched.close()

    def no_server(*_rest: Any, **_more: Any) -> Any:
        raise AssertionError("the server was asked")

    monkeypatch.setattr("pymongo.synchronous.database.Database.command", no_server)
    with pytest.raises(DriftError):
        watched.check()


def test_what_is_written_while_the_watch_was_cut_off_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server stops and comes back; others write before the watch, which waits for long, looks again."""
    monkeypatch.setattr("tasks.database.foreign_writes._PAUSE", 6.0)
    port = free_port()
    uri = f"mongodb://127.0.0.1:{port}/?directConnection=true"
    with ExitStack() as lasting:
        client = lasting.enter_context(Client(uri, socketTimeoutMS=1500, serverSelectionTimeoutMS=1500))
        with server(str(tmp_path), port):
            client.w.api_proxy.insert_one({"_id": 0})
            watched = lasting.enter_context(watch_for_others(client, "w"))
        time.sleep(3)
        watched.check()
        with server(str(tmp_path), port):
            client.w.api_proxy.insert_one({"_id": "foreign"})
            with pytest.raises(DriftError, match="api_proxy: 1 × insert"):
                watched.settle(60)


@pytest.mark.parametrize("code", [286, 10334])
def test_a_stream_that_cannot_go_on_is_made_up_for_by_what_was_there_at_the_start(
    client: Client, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """What others wrote while the server's oplog ran away from the stream is found by comparing counts."""
    monkeypatch.setattr("tasks.database.foreign_writes._PAUSE", 0.1)
    client.w.api_proxy.insert_many({"_id": i} for i in range(3))
    client.w.apinizer_log.insert_one({"_id": 0})
    lost = threading.Event()

    def try_next(_stream: Any) -> None:
        if not lost.is_set():
            client.w.api_proxy.insert_one({"_id": "foreign"})
            client.w.apinizer_log.insert_one({"_id": 1})
            lost.set()
        raise OperationFailure("no resume point in the oplog, or an event that is too large", code)

    monkeypatch.setattr("pymongo.synchronous.change_stream.ChangeStream.try_next", try_next)
    with watch_for_others(client, "w") as watched:
        assert lost.wait(30)
        with pytest.raises(DriftError, match="api_proxy: 1 ×"):
            watched.settle(60)
        assert watched.strength == "counts"
        assert any(f"broke off (code {code})" in line for line in watched.evidence())


def test_a_server_that_stalls_is_followed_on(mortal: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped server answers nothing; what was written once it goes on is told."""
    monkeypatch.setattr("tasks.database.foreign_writes._PAUSE", 0.1)
    uri, pid = mortal
    with Client(uri, socketTimeoutMS=1500, serverSelectionTimeoutMS=1500) as client:
        client.w.api_proxy.insert_one({"_id": 0})
        with watch_for_others(client, "w") as watched:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(3)
            watched.check()
            os.kill(pid, signal.SIGCONT)
            eventually(lambda: client.w.api_proxy.insert_one({"_id": "foreign"}))
            with pytest.raises(DriftError, match="api_proxy: 1 × insert"):
                watched.settle(60)
        assert "foreign-writes" not in {thread.name for thread in threading.enumerate()}


def eventually(act: Callable[[], object]) -> None:
    from pymongo.errors import DuplicateKeyError, PyMongoError

    for _ in range(40):
        try:
            act()
        except DuplicateKeyError:
            return
        except PyMongoError:
            time.sleep(0.5)
        else:
            return
    raise AssertionError("the server did not come back")
