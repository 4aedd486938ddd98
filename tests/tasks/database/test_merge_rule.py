"""Which document stays when two have one `_id`: by a table (tables/merge.yaml) and by properties."""

from pathlib import Path
from typing import Any

import bson
import pytest
import yaml
from bson import Code, DatetimeMS, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp, json_util
from hypothesis import given
from hypothesis import strategies as st

from tasks.database.archive.metadata import CollectionMetadata
from tasks.database.element import Element, at_path, build, compare, elements, fields, id_of, key
from tasks.database.merge_rule import MergeRule, Verdict, decide, structural_differences
from tasks.domain.errors import UsageError

CASES = yaml.safe_load((Path(__file__).parent / "tables" / "merge.yaml").read_text())

values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(st.characters(codec="utf-8"), max_size=8),
        st.binary(max_size=8), st.builds(ObjectId), st.just(Decimal128("1.5")), st.just(Regex("a", "i")), st.just(MinKey()),
        st.just(MaxKey()), st.just(Code("f()", {"a": 1})), st.just(Code("f()")), st.just(Timestamp(1, 2)), st.just(Int64(5)),
        st.just(DatetimeMS(-5)), st.just(DBRef("c", 1)),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
documents = st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5), values, max_size=5)  # fmt: skip


def raw(text: str | None) -> bytes | None:
    options = json_util.JSONOptions(datetime_conversion=bson.codec_options.DatetimeConversion.DATETIME_MS)
    return None if text is None else bson.encode(json_util.loads(text, json_options=options))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_verdicts(case: dict[str, Any]) -> None:
    incoming = raw(case["incoming"])
    assert incoming is not None
    assert decide(raw(case["existing"]), incoming, MergeRule.parse(case["rule"])) == Verdict(case["verdict"])


@given(here=documents, there=documents)
def test_what_newest_takes_it_would_not_give_back(here: dict[str, Any], there: dict[str, Any]) -> None:
    left, right = bson.encode({**here, "_id": 1, "t": here.get("t")}), bson.encode({**there, "_id": 1})
    rule = MergeRule(kind="newest", field="t")
    if decide(left, right, rule) is Verdict.REPLACE:
        assert decide(right, left, rule) is Verdict.KEEP


@pytest.mark.parametrize(
    "text", ["", "mine", "newest", "newest:", "newest: ", "ours:field", "newest:a..b", "newest:.a"]
)
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(UsageError, match="no rule for merging"):
        MergeRule.parse(text)


@pytest.mark.parametrize("text", ["ours", "theirs", "newest:audit.updated"])
def test_a_rule_reads_back(text: str) -> None:
    assert str(MergeRule.parse(text)) == text


@given(document=documents)
def test_documents_come_apart_and_together_byte_for_byte(document: dict[str, Any]) -> None:
    whole = bson.encode(document)
    assert build(fields(whole)) == whole
    # The driver puts _id first.
    assert [name.decode() for name, _ in elements(whole)] == list(bson.decode(whole))
    for name, element in elements(whole):
        assert bson.encode({"v": element.decoded()}) == build({b"v": element})
        if name and b"." not in name:
            assert at_path(whole, name.decode()) == element


@given(document=documents, at=st.integers(0), bit=st.integers(0, 7))
def test_damaged_documents_are_refused_or_read_but_never_run_away(document: dict[str, Any], at: int, bit: int) -> None:
    whole = bytearray(bson.encode(document))
    whole[at % len(whole)] ^= 1 << bit
    try:
        list(elements(bytes(whole)))
    except ValueError:
        return


def element(value: Any) -> Element:
    return id_of(bson.encode({"_id": value}))


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (1, Int64(1), True), (1, 1.0, True), (Int64(1), Decimal128("1.00"), True), (0.0, -0.0, True), (float("nan"), Decimal128("NaN"), True),
        (1, "1", False), (1, True, False), (2**53, 2.0**53 + 2, False), ({"a": 1}, {"a": 1.0}, True), ({"a": 1, "b": 2}, {"b": 2, "a": 1}, False),
        (ObjectId("6b02ed8167d2329a4fcda052"), ObjectId("6b02ed8167d2329a4fcda052"), True), ("a", "a", True), ("a", "A", False),
    ],
)  # fmt: skip
def test_keys_are_equal_where_the_servers_index_says_so(left: Any, right: Any, *, same: bool) -> None:
    assert (key(element(left)) == key(element(right))) is same


@given(values=st.lists(st.floats() | st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3))
def test_numbers_have_one_order(values: list[float]) -> None:
    one, two, three = map(element, values)
    first, second, third = compare(one, two), compare(two, three), compare(one, three)
    assert first is not None
    assert second is not None
    assert third is not None
    assert compare(two, one) == -first
    if first <= 0 and second <= 0:
        assert third <= 0


def test_no_id_is_told() -> None:
    with pytest.raises(ValueError, match="no _id"):
        id_of(bson.encode({"a": 1}))


def test_what_a_merge_does_not_bring_is_listed() -> None:
    index = {"v": 2, "key": {"_id": 1}, "name": "_id_"}
    archive = CollectionMetadata(
        "c", "collection", "", {"capped": True, "size": 4096},
        (index, {"v": 2, "key": {"a": 1, "b": 1}, "name": "ab"}, {"v": 2, "key": {"x": 1}, "name": "x", "ns": "db.c", "background": True}, {"v": 2, "key": {"t": 1}, "name": "t"}),
    )  # fmt: skip
    present = CollectionMetadata(
        "c", "", "", {"validator": {"a": 1}, "size": 8192},
        (index, {"v": 2, "key": {"b": 1, "a": 1}, "name": "ab"}, {"v": 1, "key": {"x": 1}, "name": "x"}, {"v": 2, "key": {"u": 1}, "name": "u", "unique": True}),
    )  # fmt: skip
    assert structural_differences(archive, present) == [
        "The option capped is only in the archive; the database's stays.",
        "The option size differs; the database's stays.",
        "The option validator is only in the database; the database's stays.",
        "The index ab differs; the database's stays.",
        "The index t is only in the archive; the database's stays.",
        "The index u is only in the database; the database's stays.",
    ]
    assert structural_differences(archive, archive) == []
    assert structural_differences(CollectionMetadata("c", "view"), present)[0].startswith(
        "The archive's is a view, the"
    )
