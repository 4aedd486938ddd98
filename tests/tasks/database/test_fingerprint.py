"""Fingerprints: the same for the same documents in any order and any runs, another for anything else."""

import itertools
from typing import Any

import bson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymongo import MongoClient

from tasks.database.fingerprint import Fingerprint, read_content
from tasks.domain.errors import StoppedError

Client = MongoClient[dict[str, Any]]

raws = st.lists(st.builds(lambda n, t: bson.encode({"_id": n, "t": t}), st.integers(0, 9), st.text(max_size=8)), max_size=12)  # fmt: skip


def of(*runs: bytes) -> Fingerprint:
    found = Fingerprint()
    for run in runs:
        found.add(run)
    return found


@settings(max_examples=100, deadline=None)
@given(documents=raws, random=st.randoms(use_true_random=False), parts=st.integers(1, 5))
def test_order_and_runs_do_not_matter(documents: list[bytes], random: Any, parts: int) -> None:
    shuffled = random.sample(documents, len(documents))
    runs = [b"".join(shuffled[part::parts]) for part in range(parts)]
    whole = of(b"".join(documents))
    assert of(*runs) == whole
    assert (whole.documents, whole.bytes) == (len(documents), sum(map(len, documents)))
    merged = Fingerprint()
    for run in runs:
        merged.merge(of(run))
    assert merged == whole


@settings(max_examples=100, deadline=None)
@given(documents=raws.filter(bool), at=st.integers(0, 11))
def test_what_is_taken_out_leaves_the_rest(documents: list[bytes], at: int) -> None:
    gone = at % len(documents)
    found = of(*documents)
    found.take(documents[gone])
    assert found == of(*documents[:gone], *documents[gone + 1 :])


def test_any_changed_lost_or_doubled_document_tells() -> None:
    documents = [bson.encode({"_id": i, "t": "text"}) for i in range(5)]
    sets = [
        documents,
        documents[:-1],
        [*documents, documents[0]],
        [documents[0], documents[0], *documents[2:]],
        [documents[1], documents[1], *documents[2:]],
        [bson.encode({"_id": 0, "t": "Text"}), *documents[1:]],
        [bson.encode({"_id": 0, "t": "text", "u": 1}), *documents[1:]],
        [bson.encode({"_id": 0, "u": 1, "t": "text"}), *documents[1:]],
        [bson.encode({"_id": bson.Int64(0), "t": "text"}), *documents[1:]],
    ]
    values = [of(*one).value for one in sets]
    assert len(set(values)) == len(values)
    assert all(len(value) == 32 for value in values)


def test_a_known_value() -> None:
    """Manifests and state documents keep values: a change of the rule would make the old ones lie."""
    assert of(bson.encode({"_id": 1}), bson.encode({"_id": 2})).value == "31722c97fabffa98b0759e35e85fc331"
    assert Fingerprint().value == "0" * 32


@pytest.mark.parametrize(
    "run",
    [b"\0", b"\0\0\0\0\0", b"\x04\0\0\0\0", b"\xff\xff\xff\xff\0", bson.encode({"a": 1})[:-1], bson.encode({}) + b"\x06\0\0\0\0"],
)  # fmt: skip
def test_bytes_that_are_no_documents_are_refused(run: bytes) -> None:
    with pytest.raises(ValueError, match="no run of documents"):
        Fingerprint().add(run)


def test_a_wrong_count_is_refused() -> None:
    with pytest.raises(ValueError, match="1 documents came where 2"):
        Fingerprint().add(bson.encode({}), 2)


def test_two_collections_with_the_same_documents(client: Client) -> None:
    documents = [{"_id": i, "t": "x" * (i % 700)} for i in range(3000)]
    client.fp.one.insert_many(documents)
    client.fp.two.insert_many(list(reversed(documents)))
    client.fp.create_collection("empty")
    one, two = read_content(client, "fp", "one"), read_content(client, "fp", "two")
    assert one == two == of(*map(bson.encode, documents))
    client.fp.two.update_one({"_id": 1234}, {"$set": {"t": "y"}})
    assert read_content(client, "fp", "two") != one
    assert read_content(client, "fp", "empty") == read_content(client, "fp", "missing") == Fingerprint()


def test_reading_can_be_stopped(client: Client) -> None:
    client.fp.one.insert_many({"_id": i, "t": "x" * 1000} for i in range(500))
    calls = itertools.count()
    with pytest.raises(StoppedError):
        read_content(client, "fp", "one", stop=lambda: next(calls) == 1)
    assert next(calls) == 2
