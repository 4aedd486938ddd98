"""Merging into a real server's collection: what is written, what is refused, and that doing it again is harmless."""

from collections.abc import Iterator
from typing import Any

import bson
import pytest
from bson import Int64
from pymongo import MongoClient

from tasks.database.archive.format import Namespace
from tasks.database.fingerprint import read_content
from tasks.database.merge import MergeCounts, MergeRule, merge_collection, preview_merge
from tasks.domain.errors import DriftError

Client = MongoClient[dict[str, Any]]
OURS, THEIRS, NEWEST = MergeRule(kind="ours"), MergeRule(kind="theirs"), MergeRule(kind="newest", field="t")


def runs(*documents: dict[str, Any], size: int = 70) -> Iterator[bytes]:
    raws = [bson.encode(document) for document in documents]
    for start in range(0, len(raws), size):
        yield b"".join(raws[start : start + size])


def content(client: Client) -> dict[Any, dict[str, Any]]:
    return {document["_id"]: document for document in client.m.c.find()}


@pytest.fixture
def filled(client: Client, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr("tasks.database.merge._BATCH_DOCUMENTS", 100)
    client.m.c.insert_many({"_id": i, "t": 10, "from": "database"} for i in range(300))
    return client


def archive() -> list[dict[str, Any]]:
    """100 equal, 50 of another age each way, 100 that are not there."""
    equal = [{"_id": i, "t": 10, "from": "database"} for i in range(100)]
    older = [{"_id": i, "t": 9, "from": "archive"} for i in range(100, 150)]
    newer = [{"_id": i, "t": 11, "from": "archive"} for i in range(150, 200)]
    return equal + older + newer + [{"_id": i, "t": 1, "from": "archive"} for i in range(500, 600)]


@pytest.mark.parametrize(
    ("rule", "counts", "from_archive"),
    [
        (OURS, MergeCounts(inserted=100, kept=100, same=100), set(range(500, 600))),
        (THEIRS, MergeCounts(inserted=100, replaced=100, same=100), {*range(100, 200), *range(500, 600)}),
        (NEWEST, MergeCounts(inserted=100, replaced=50, kept=50, same=100), {*range(150, 200), *range(500, 600)}),
    ],
    ids=["ours", "theirs", "newest"],
)  # fmt: skip
def test_merging_does_what_was_shown_and_twice_is_once(
    filled: Client, rule: MergeRule, counts: MergeCounts, from_archive: set[int]
) -> None:
    before = read_content(filled, "m", "c")
    assert preview_merge(filled, "m", "c", runs(*archive()), rule) == counts
    assert read_content(filled, "m", "c") == before

    assert merge_collection(filled, "m", "c", runs(*archive()), rule) == counts

    found = content(filled)
    assert {i for i, document in found.items() if document["from"] == "archive"} == from_archive
    assert found.keys() == {*range(300), *range(500, 600)}
    after = read_content(filled, "m", "c")
    again = merge_collection(filled, "m", "c", runs(*archive()), rule)
    assert (again.inserted, again.replaced, again.documents) == (0, 0, 300)
    assert read_content(filled, "m", "c") == after


def test_an_interrupted_merge_is_whole_between_batches_and_goes_on(filled: Client) -> None:
    calls = 0

    def guard() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise DriftError("The lock is lost.")

    with pytest.raises(DriftError, match="The lock"):
        merge_collection(filled, "m", "c", runs(*archive()), THEIRS, guard=guard)
    halfway = content(filled)
    assert sum(document["from"] == "archive" for document in halfway.values()) == 100
    merge_collection(filled, "m", "c", runs(*archive()), THEIRS)
    assert sum(document["from"] == "archive" for document in content(filled).values()) == 200


def test_what_a_unique_index_refuses_is_told_and_the_rest_is_merged(filled: Client) -> None:
    filled.m.c.create_index([("secret", 1)], unique=True, sparse=True)
    filled.m.c.insert_many({"_id": f"here {i}", "secret": f"hunter{i}"} for i in range(12))
    incoming: list[dict[str, Any]] = [{"_id": f"there {i}", "secret": f"hunter{i}"} for i in range(12)]
    incoming += [{"_id": f"new {i}", "secret": f"other{i}"} for i in range(5)]
    incoming += [{"_id": 7, "t": 99, "secret": "hunter7"}, {"_id": 8, "t": 99}]
    counts = merge_collection(filled, "m", "c", runs(*incoming), THEIRS)
    assert (counts.inserted, counts.replaced, counts.refused, counts.documents) == (5, 1, 13, 19)
    assert len(counts.refusals) == 10
    found = content(filled)
    assert {i for i in found if str(i).startswith(("there", "new"))} == {f"new {i}" for i in range(5)}
    assert found[7]["from"] == "database"
    assert found[8]["t"] == 99

    problem = counts.problem(Namespace("m", "c"))
    assert problem is not None
    assert problem.happened == "13 of 19 documents could not be merged into m.c."
    assert '"there 0": another document holds its key of the unique index on secret' in problem.observed
    assert problem.observed.endswith("and 3 more")
    assert "hunter" not in str(problem)
    again = merge_collection(filled, "m", "c", runs(*incoming), THEIRS)
    assert (again.inserted, again.replaced, again.same, again.refused) == (0, 0, 6, 13)


def test_what_a_validator_refuses_is_told(client: Client) -> None:
    client.m.create_collection("c", validator={"a": {"$gt": 0}})
    counts = merge_collection(client, "m", "c", runs({"_id": 1, "a": 1}, {"_id": 2, "a": -1}), OURS)
    assert (counts.inserted, counts.refused) == (1, 1)
    assert counts.refusals[0] == ("2", "the collection's validator refuses it")
    assert counts.problem(Namespace("m", "c")) is not None


def test_ids_of_every_kind_find_their_document(client: Client) -> None:
    ids = [1, Int64(2), 3.0, "text", bson.ObjectId(), {"a": 1, "b": {"c": [1, 2]}}, None, True, b"\x01", bson.Decimal128("4.5"),
           bson.DatetimeMS(5), bson.Timestamp(1, 2), bson.MinKey(), "dotted.text"]  # fmt: skip
    client.m.c.insert_many({"_id": i, "n": 1} for i in ids)
    counts = merge_collection(client, "m", "c", runs(*({"_id": i, "n": 2} for i in ids)), THEIRS)
    assert counts == MergeCounts(replaced=len(ids))
    assert client.m.c.count_documents({"n": 2}) == len(ids)
    other_types = merge_collection(client, "m", "c", runs({"_id": 1.0, "n": 3}, {"_id": 2, "n": 3}, {"_id": Int64(3), "n": 3}), OURS)  # fmt: skip
    assert other_types == MergeCounts(kept=3)


def test_a_document_that_vanishes_in_between_is_no_silent_gap(filled: Client) -> None:
    def guard() -> None:
        filled.m.c.delete_one({"_id": 170})

    with pytest.raises(DriftError, match="vanished"):
        merge_collection(filled, "m", "c", runs({"_id": 170, "t": 11}), THEIRS, guard=guard)


def test_a_collection_that_is_not_there_is_made(client: Client) -> None:
    assert merge_collection(client, "m", "c", runs({"_id": 1}, {"_id": 2}), OURS) == MergeCounts(inserted=2)
    assert merge_collection(client, "m", "d", runs(), OURS) == MergeCounts()
