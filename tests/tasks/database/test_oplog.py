"""The oplog applied: updates and entries by tables (tables/oplog_*.yaml), whole intervals against a real server."""

import random
from pathlib import Path
from typing import Any

import bson
import pytest
import yaml
from bson import Timestamp, json_util
from pymongo import MongoClient

from tasks.database.archive.format import Namespace
from tasks.database.archive.metadata import CollectionMetadata
from tasks.database.fingerprint import read_content
from tasks.database.oplog import apply_oplog
from tasks.database.oplog_entry import Command, Unfolder
from tasks.database.oplog_update import UnknownUpdateError, updated
from tasks.domain.errors import DriftError, UnprovenError

Client = MongoClient[dict[str, Any]]
TABLES = Path(__file__).parent / "tables"
UPDATES = yaml.safe_load((TABLES / "oplog_updates.yaml").read_text())
ENTRIES = yaml.safe_load((TABLES / "oplog_entries.yaml").read_text())
A, B = Namespace("live", "a"), Namespace("live", "b")
NAMES = {A: Namespace("live", "copy.a"), B: Namespace("live", "copy.b")}


def raw(text: str) -> bytes:
    return bson.encode(json_util.loads(text))


@pytest.mark.parametrize("case", UPDATES, ids=lambda case: case["name"])
def test_updates(case: dict[str, Any]) -> None:
    document, change = raw(case["document"]), raw(case["change"])
    if case["after"] == "refused":
        with pytest.raises(UnknownUpdateError):
            updated(document, change)
        return
    after = updated(document, change)
    assert json_util.loads(case["after"]) == bson.decode(after)
    assert after == raw(case["after"])
    assert list(bson.decode(updated(after, change))) == list(bson.decode(updated(updated(after, change), change)))


@pytest.mark.parametrize("case", ENTRIES, ids=lambda case: case["name"])
def test_entries(case: dict[str, Any]) -> None:
    unfolder = Unfolder()
    if case["gives"] == "refused":
        with pytest.raises(UnprovenError, match="oplog cannot be applied"):
            [unfolder.feed(raw(entry)) for entry in case["entries"]]
        return
    given = [
        [f"{one.name if isinstance(one, Command) else one.kind} {one.namespace.db}.{one.namespace.collection}" for one in unfolder.feed(raw(entry))]
        for entry in case["entries"]
    ]  # fmt: skip
    assert given == case["gives"]


def test_bytes_are_kept_that_the_driver_would_lose() -> None:
    """A symbol, undefined and a NaN with a payload pass an update of another field untouched."""
    odd = b"\x0es\0\x03\0\0\0ab\0" + b"\x06u\0" + b"\x01n\0\x01\0\0\0\0\0\xf8\x7f"
    inner = b"\x10_id\0\x01\0\0\0\x10a\0\x01\0\0\0" + odd
    document = (len(inner) + 5).to_bytes(4, "little") + inner + b"\0"
    after = updated(document, bson.encode({"$v": 2, "diff": {"u": {"a": 2}}}))
    assert after == document.replace(b"a\0\x01", b"a\0\x02", 1)


def entries_since(client: Client, since: Timestamp) -> list[bytes]:
    """The interval in runs of three entries, as an archive would give them."""
    found = [bson.encode(entry) for entry in client.local["oplog.rs"].find({"ts": {"$gt": since}})]
    return [b"".join(found[start : start + 3]) for start in range(0, len(found), 3)]


def newest(client: Client) -> Timestamp:
    ts = client.local["oplog.rs"].find_one(sort=[("$natural", -1)])
    assert ts is not None
    return ts["ts"]  # type: ignore[no-any-return]


def churn(client: Client, seed: int) -> None:
    """Writes of every kind to two collections, in a fixed random order."""
    dice = random.Random(seed)  # noqa: S311
    for turn in range(120):
        collection, chosen = client.live[dice.choice("ab")], {"_id": dice.randrange(40)}
        updates: list[Any] = [
            {"$set": {"s.t": turn, "list": [1, 2, {"x": turn}]}},
            {"$unset": {"s": 1}},
            {"$push": {"p": turn}},
            {"$pop": {"p": -1}},
            [{"$set": {"q": {"$add": ["$turn", 1]}}}],
        ]
        match dice.randrange(len(updates) + 2):
            case 0:
                collection.delete_one(chosen)
            case 1:
                collection.replace_one(chosen, {**chosen, "turn": turn}, upsert=True)
            case other:
                collection.update_one(chosen, updates[other - 2])


def copy(client: Client) -> None:
    for name in "ab":
        documents = list(client.live[name].find())
        client.live[f"copy.{name}"].drop()
        if documents:
            client.live[f"copy.{name}"].insert_many(documents)


def same(client: Client) -> bool:
    return all(read_content(client, "live", name) == read_content(client, "live", f"copy.{name}") for name in "ab")


@pytest.mark.parametrize("seed", range(4))
def test_a_copy_from_the_start_a_copy_from_the_middle_and_a_copy_from_the_end_become_what_is_there(
    client: Client, seed: int
) -> None:
    for name in "ab":
        client.live[name].insert_many({"_id": i, "turn": -1, "p": [i]} for i in range(20))
    since = newest(client)
    copy(client)
    churn(client, seed)
    interval = entries_since(client, since)
    assert not same(client)
    outcome = apply_oplog(client, interval, NAMES)
    assert same(client)
    assert outcome.inserted
    assert outcome.updated
    assert outcome.deleted

    # A dump reads each collection at another moment of the interval: here after the whole of it.
    apply_oplog(client, interval, NAMES)
    assert same(client)


def test_a_copy_that_was_read_while_others_wrote(client: Client) -> None:
    client.live.a.insert_many({"_id": i, "turn": -1, "p": [i]} for i in range(20))
    since = newest(client)
    churn(client, 7)
    copy(client)
    churn(client, 8)
    assert not same(client)
    outcome = apply_oplog(client, entries_since(client, since), NAMES)
    assert same(client)
    assert outcome.passed_over


def test_only_what_was_asked_for_is_applied(client: Client) -> None:
    client.live.a.insert_one({"_id": 1})
    since = newest(client)
    client.live.a.insert_one({"_id": 2})
    client.live.other.insert_many([{"_id": 1}, {"_id": 2}])
    outcome = apply_oplog(client, entries_since(client, since), {A: Namespace("elsewhere", "x")})
    assert [d["_id"] for d in client.elsewhere.x.find()] == [2]
    assert outcome.elsewhere == {Namespace("live", "other"): 2}
    assert "other" not in client.elsewhere.list_collection_names()


def test_a_guard_that_refuses_leaves_whole_batches(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.database.oplog._BATCH_WRITES", 10)
    since = newest(client)
    client.live.a.insert_many({"_id": i} for i in range(100))
    interval, calls = entries_since(client, since), [0]

    def guard() -> None:
        calls[0] += 1
        if calls[0] == 4:
            raise DriftError("The lock is lost.")

    with pytest.raises(DriftError):
        apply_oplog(client, interval, NAMES, guard=guard)
    assert client.live["copy.a"].count_documents({}) == 30
    apply_oplog(client, interval, NAMES)
    assert same(client)


def test_indexes_of_the_interval_are_in_the_outcome(client: Client) -> None:
    client.live.a.insert_one({"_id": 1})
    since = newest(client)
    client.live.a.create_index([("x", 1)], name="x", unique=True)
    client.live.a.create_index([("y", 1)], name="y")
    client.live.a.drop_index("y")
    client.live.b.create_index("z")
    outcome = apply_oplog(client, entries_since(client, since), {A: NAMES[A]})
    id_index = {"v": 2, "key": {"_id": 1}, "name": "_id_"}
    old = {"v": 2, "key": {"y": 1}, "name": "y"}
    amended = outcome.amended(A, CollectionMetadata("a", "collection", "u", {}, (id_index, old)))
    assert [index["name"] for index in amended.indexes] == ["_id_", "x"]
    assert amended.indexes[1]["unique"] is True
    assert outcome.amended(B, amended) == CollectionMetadata("a", "collection", "u", {}, amended.indexes)


def test_the_servers_own_form_of_index_entries(client: Client) -> None:
    one = {
        "op": "c",
        "ns": "live.$cmd",
        "o": {"createIndexes": "a", "v": 2, "key": {"x": 1}, "name": "x", "sparse": True},
    }
    two = {
        "op": "c",
        "ns": "live.$cmd",
        "o": {"commitIndexBuild": "a", "indexes": [{"v": 2, "key": {"y": 1}, "name": "y"}]},
    }
    outcome = apply_oplog(client, [bson.encode(one) + bson.encode(two)], NAMES)
    assert outcome.indexes[A] == {"x": {"v": 2, "key": {"x": 1}, "name": "x", "sparse": True}, "y": {"v": 2, "key": {"y": 1}, "name": "y"}}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "taken"),
    [
        ({"drop": "a"}, False), ({"drop": "other"}, True), ({"dropDatabase": 1}, False), ({"convertToCapped": "a"}, False),
        ({"renameCollection": "live.other", "to": "live.a"}, False), ({"renameCollection": "live.a", "to": "live.x"}, False),
        ({"renameCollection": "live.x", "to": "live.y"}, True), ({"collMod": "a", "validator": {}}, False), ({"collMod": "a"}, True),
        ({"create": "a"}, True), ({"create": "new"}, True), ({"dropIndexes": "a", "index": "*"}, False), ({"dropIndexes": "a", "index": "x_1"}, True),
        ({"startIndexBuild": "a", "indexes": []}, True), ({"somethingNew": "a"}, False), ({"somethingNew": "other"}, True),
    ],
)  # fmt: skip
def test_commands(client: Client, change: dict[str, Any], *, taken: bool) -> None:
    entry = bson.encode({"op": "c", "ns": "live.$cmd", "o": change})
    if taken:
        apply_oplog(client, [entry], NAMES)
        return
    with pytest.raises(UnprovenError, match="cannot be applied") as caught:
        apply_oplog(client, [entry], NAMES)
    assert next(iter(change)) in caught.value.observed


def test_a_unique_index_that_only_the_end_fits(client: Client) -> None:
    """Two documents that swap a key: one by one they would collide."""
    client.live.a.create_index("k", unique=True)
    client.live.a.insert_many([{"_id": 1, "k": "x"}, {"_id": 2, "k": "y"}])
    since = newest(client)
    copy(client)
    client.live.a.update_one({"_id": 1}, {"$set": {"k": "z"}})
    client.live.a.update_one({"_id": 2}, {"$set": {"k": "x"}})
    client.live.a.update_one({"_id": 1}, {"$set": {"k": "y"}})
    apply_oplog(client, entries_since(client, since), NAMES)
    assert same(client)
