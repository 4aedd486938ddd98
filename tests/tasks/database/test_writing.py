"""Empty timestamps: which documents hold one, and whether a server can be told to leave them."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import bson
import pytest
from bson import Timestamp
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from tasks.database import writing
from tasks.database.archive.format import Namespace
from tasks.database.merge import MergeRule, merge_collection
from tasks.database.oplog import apply_oplog
from tasks.database.writing import holds_empty_timestamp, keeps_empty_timestamps, verbatim
from tasks.domain.errors import UnprovenError

Client = MongoClient[dict[str, Any]]
EMPTY = Timestamp(0, 0)


@pytest.fixture(autouse=True)
def _not_asked_yet() -> None:
    """Clients of one server are equal, and what one was told holds for the others."""
    writing._takes.clear()


@pytest.mark.parametrize(
    ("holds", "document"),
    [
        (True, {"_id": 1, "at": EMPTY}),
        (True, {"_id": 1, "": 1, "x": "text", "at": EMPTY, "end": 1}),
        (False, {"_id": EMPTY, "at": Timestamp(0, 1)}),
        (False, {"_id": 1, "at": Timestamp(1, 0)}),
        (False, {"_id": 1, "under": {"at": EMPTY}, "list": [EMPTY]}),
        (False, {"_id": 1, "looks": b"\x11at\x00" + bytes(8)}),
        (False, {"_id": 1, "number": 0, "long": bson.Int64(0)}),
    ],
    ids=lambda value: "" if isinstance(value, bool) else str(value),
)
def test_which_documents_a_server_changes(holds: object, document: dict[str, Any]) -> None:
    assert holds_empty_timestamp(bson.encode(document)) is holds


def test_a_server_that_knows_the_option_is_asked_once(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch_commands(monkeypatch, asked.append)
    with Client(uri) as client:
        assert verbatim(client, "c", [bson.encode({"at": EMPTY})]) == {"bypassEmptyTsReplacement": True}
        assert keeps_empty_timestamps(client)
        assert len(asked) == 1
        assert client.admin.list_collection_names(filter={"name": {"$regex": "^apinizer"}}) == []


def test_a_server_that_does_not_know_it_gets_no_document_that_it_would_change(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch_commands(monkeypatch, unknown_field)
    with Client(uri) as client:
        assert verbatim(client, "w.c", [bson.encode({"_id": 1, "at": Timestamp(1, 1)})]) == {}
        with pytest.raises(UnprovenError, match=r"would change documents of w\.c") as caught:
            verbatim(client, "w.c", [bson.encode({"_id": 1, "at": EMPTY}), bson.encode({"_id": 2})])
    assert "At least 1 hold an empty timestamp" in caught.value.observed


def test_a_server_that_is_away_is_asked_again(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stepped_down(_sent: Any) -> None:
        raise OperationFailure("not primary", 10107)

    with Client(uri) as client:
        with monkeypatch.context() as away:
            monkeypatch_commands(away, stepped_down)
            with pytest.raises(OperationFailure):
                keeps_empty_timestamps(client)
        assert keeps_empty_timestamps(client)


def unknown_field(_sent: Any) -> None:
    raise OperationFailure("BSON field 'insert.bypassEmptyTsReplacement' is an unknown field.", 40415)


def monkeypatch_commands(monkeypatch: pytest.MonkeyPatch, seen: Callable[[Any], None]) -> None:
    """Let `seen` meet every command with the option, as an older server would."""
    from pymongo.synchronous.database import Database

    command = Database.command

    def watched(self: Any, asked: Any, *rest: Any, **more: Any) -> Any:
        if isinstance(asked, dict) and "bypassEmptyTsReplacement" in asked:
            seen(asked)
        return command(self, asked, *rest, **more)

    monkeypatch.setattr(Database, "command", watched)


def sent_commands(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The commands that write, as they are sent from now on."""
    from pymongo.synchronous.database import Database

    command, sent = Database.command, list[dict[str, Any]]()

    def watched(self: Any, asked: Any, *rest: Any, **more: Any) -> Any:
        if isinstance(asked, dict) and next(iter(asked)) in {"insert", "update"}:
            sent.append(asked)
        return command(self, asked, *rest, **more)

    monkeypatch.setattr(Database, "command", watched)
    return sent


def test_a_merge_and_an_oplog_write_empty_timestamps_as_they_are(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.w.c.insert_many([{"_id": 1, "at": Timestamp(5, 5)}, {"_id": 2}])
    assert keeps_empty_timestamps(client)
    sent = sent_commands(monkeypatch)
    run = b"".join(bson.encode({"_id": i, "at": EMPTY}) for i in range(1, 4))
    merge_collection(client, "w", "c", [run], MergeRule(kind="theirs"))
    assert [next(iter(one)) for one in sent] == ["insert", "update"]
    assert all(one["bypassEmptyTsReplacement"] is True for one in sent)

    sent.clear()
    entry = {"op": "i", "ns": "w.c", "o": {"_id": 9, "at": EMPTY}, "ts": Timestamp(1, 1)}
    apply_oplog(client, [bson.encode(entry)], {Namespace("w", "c"): Namespace("w", "c")})
    assert [next(iter(one)) for one in sent] == ["update"]
    assert sent[0]["bypassEmptyTsReplacement"] is True
    assert {d["_id"]: d.get("at") for d in client.w.c.find()} == dict.fromkeys((1, 2, 3, 9), EMPTY)


def test_a_server_that_would_change_a_document_gets_none_of_its_batch(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch_commands(monkeypatch, unknown_field)
    with pytest.raises(UnprovenError, match=r"would change documents of w\.c"):
        merge_collection(client, "w", "c", [bson.encode({"_id": 1, "at": EMPTY})], MergeRule(kind="theirs"))
    assert client.w.c.count_documents({}) == 0


def test_an_oplog_is_applied_by_a_user_who_may_not_pass_over_a_validator(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pymongo.synchronous.database import Database

    command, refusals = Database.command, list[int]()

    def without_the_right(self: Any, asked: Any, *rest: Any, **more: Any) -> Any:
        if isinstance(asked, dict) and asked.get("bypassDocumentValidation"):
            refusals.append(1)
            raise OperationFailure("not authorized", 13)
        return command(self, asked, *rest, **more)

    monkeypatch.setattr(Database, "command", without_the_right)
    monkeypatch.setattr("tasks.database.oplog._BATCH_WRITES", 2)
    entries = [
        bson.encode({"op": "i", "ns": "w.c", "o": {"_id": i, "n": i}, "ts": Timestamp(1, i + 1)}) for i in range(6)
    ]
    outcome = apply_oplog(client, entries, {Namespace("w", "c"): Namespace("w", "c")})
    assert outcome.inserted == client.w.c.count_documents({}) == 6
    assert refusals == [1]


@pytest.mark.parametrize("act", ["merge", "oplog"])
def test_large_documents_that_are_there_are_not_all_kept_at_once(client: Client, act: str) -> None:
    large = 2 * 1024 * 1024
    for i in range(48):
        client.w.c.insert_one({"_id": i, "text": "x" * large})
    tracemalloc.start()
    try:
        if act == "merge":
            run = b"".join(bson.encode({"_id": i}) for i in range(48))
            assert merge_collection(client, "w", "c", [run], MergeRule(kind="ours")).kept == 48
        else:
            run = b"".join(
                bson.encode({"op": "u", "ns": "w.c", "o2": {"_id": i}, "o": {"$v": 2, "diff": {"i": {"n": i}}}, "ts": Timestamp(1, i + 1)})
                for i in range(48)
            )  # fmt: skip
            assert apply_oplog(client, [run], {Namespace("w", "c"): Namespace("w", "c")}).updated == 48
            assert client.w.c.count_documents({"n": {"$exists": True}}) == 48
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 48 * large
