"""Batches cut out of raw replies, against the driver's own decoding."""

from datetime import UTC, datetime
from typing import Any

import bson
import pytest
from bson import Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.database.batch import ReplyError, cut

values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(st.characters(codec="utf-8"), max_size=20),
        st.binary(max_size=20), st.builds(ObjectId), st.just(Decimal128("1.5")), st.just(Regex("a", "i")), st.just(MinKey()),
        st.just(MaxKey()), st.just(Code("f()", {"a": 1})), st.just(Code("f()")), st.just(Timestamp(1, 2)), st.just(Int64(5)),
        st.just(datetime(2026, 1, 1, tzinfo=UTC)), st.just(DBRef("c", 1)),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
documents = st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5), values, max_size=4)  # fmt: skip


def reply(documents: list[dict[str, Any]], *, cursor: int = 0, batch: str = "firstBatch", **more: Any) -> bytes:
    return bson.encode({**more, "cursor": {batch: documents, "id": Int64(cursor), "ns": "db.c"}, "ok": 1.0})


@settings(max_examples=150, deadline=None)
@given(found=st.lists(documents, max_size=12), extra=documents, cursor=st.integers(0, 2**63 - 1))
def test_documents_are_cut_out_byte_for_byte(found: list[dict[str, Any]], extra: dict[str, Any], cursor: int) -> None:
    batch = cut(reply(found, cursor=cursor, batch="nextBatch", **{f"x{k}": v for k, v in extra.items()}))
    assert batch.documents == b"".join(bson.encode(document) for document in found)
    assert (batch.count, batch.cursor, batch.namespace) == (len(found), cursor, "db.c")


def test_indexes_of_several_digits() -> None:
    found = [{"_id": i} for i in range(1234)]
    assert cut(reply(found)).documents == b"".join(bson.encode(document) for document in found)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        bson.encode({}),
        bson.encode({"ok": 1.0}),
        bson.encode({"cursor": {"id": Int64(0)}}),
        bson.encode({"cursor": {"firstBatch": []}}),
        bson.encode({"cursor": {"firstBatch": [1], "id": Int64(0)}}),
        bson.encode({"cursor": "text", "ok": 1.0}),
    ],
)
def test_other_replies_are_refused(raw: bytes) -> None:
    with pytest.raises(ReplyError):
        _ = cut(raw).documents


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, 10_000), value=st.integers(0, 255), length=st.integers(0, 10_000))
def test_damaged_replies_end_in_an_error_or_a_batch(at: int, value: int, length: int) -> None:
    """Never an endless loop, never another kind of exception."""
    raw = bytearray(reply([{"_id": i, "t": "text"} for i in range(20)]))
    raw[at % len(raw)] = value
    try:
        _ = cut(bytes(raw[: length % (len(raw) + 1) or None])).documents
    except ReplyError:
        return
