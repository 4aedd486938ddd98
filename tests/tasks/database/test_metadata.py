"""Collection metadata as mongodump writes it."""

from typing import Any

import bson
import pytest
from bson import Int64, Regex
from bson.datetime_ms import DatetimeMS
from bson.son import SON

from tasks.database.archive.format import FormatError
from tasks.database.archive.metadata import EXACT, CollectionMetadata, decode

ID = {"v": 2, "key": {"_id": 1}, "name": "_id_"}

# Built by hand in the shape that mongodump writes: no spaces, every number typed, keys in the server's order.
TIME_SERIES = (
    '{"options":{"timeseries":{"timeField":"at","metaField":"api","bucketMaxSpanSeconds":{"$numberInt":"86400"}}},'
    '"indexes":[{"v":{"$numberInt":"2"},"key":{"api":{"$numberInt":"1"},"at":{"$numberDouble":"-1.0"}},"name":"api_at",'
    '"expireAfterSeconds":{"$numberLong":"60"}}],"uuid":"00112233445566778899aabbccddeeff",'
    '"collectionName":"traffic","type":"timeseries"}'
)


def test_text_of_the_specified_shape_is_written_again_byte_for_byte() -> None:
    assert decode(TIME_SERIES).encode() == TIME_SERIES


def test_empty_parts_are_left_out_but_never_the_indexes() -> None:
    assert CollectionMetadata("c").encode() == '{"indexes":[],"collectionName":"c"}'
    assert CollectionMetadata("ü", "view", "", {"viewOn": "c"}).encode() == (
        '{"options":{"viewOn":"c"},"indexes":[],"collectionName":"ü","type":"view"}'
    )
    assert CollectionMetadata("c", "collection", "ab" * 16).encode() == (
        f'{{"indexes":[],"uuid":"{"ab" * 16}","collectionName":"c","type":"collection"}}'
    )


INDEXES: dict[str, dict[str, Any]] = {
    "id": ID,
    "compound, order kept": {"v": 2, "key": SON([("z", 1), ("a", -1)]), "name": "z_1_a_-1", "unique": True},
    "double and long directions": {"v": 2, "key": {"a": 1.0, "b": Int64(-1)}, "name": "x"},
    "text (not known to the server here)": {
        "v": 2, "key": {"_fts": "text", "_ftsx": 1}, "name": "t", "weights": {"t": 1}, "default_language": "english",
        "language_override": "language", "textIndexVersion": 3,
    },
    "hashed (not known to the server here)": {"v": 2, "key": {"h": "hashed"}, "name": "h_hashed"},
    "2dsphere": {"v": 2, "key": {"l": "2dsphere"}, "name": "l", "2dsphereIndexVersion": 3},
    "2d": {"v": 2, "key": {"l": "2d"}, "name": "l2", "bits": 26, "min": -180.0, "max": 180.0},
    "wildcard": {"v": 2, "key": {"$**": 1}, "name": "$**_1", "wildcardProjection": {"secret": 0}},
    "expiring": {"v": 2, "key": {"e": 1}, "name": "e", "expireAfterSeconds": 2147483647},
    "partial": {"v": 2, "key": {"p": 1}, "name": "p", "partialFilterExpression": {"p": {"$gt": 1.5, "$exists": True}}},
    "collation": {"v": 2, "key": {"c": 1}, "name": "c", "collation": {"locale": "tr", "strength": 2, "version": "57.1"}},
    "sparse, hidden": {"v": 2, "key": {"s": 1}, "name": "s", "sparse": True, "hidden": True},
    "dots and dollars in names": {"v": 2, "key": {"a.b": 1}, "name": 'a.b$c "q" \\ é'},
    "clustered": {"v": 2, "key": {"_id": 1}, "name": "_id_", "unique": True, "clustered": True},
}  # fmt: skip


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES.keys())
def test_every_kind_of_index_comes_back_byte_for_byte(index: dict[str, Any]) -> None:
    raw = bson.encode(index)
    metadata = CollectionMetadata("c", indexes=(bson.decode(raw, EXACT),))
    assert metadata.comes_back()
    assert bson.encode(decode(metadata.encode()).indexes[0]) == raw


OPTIONS: dict[str, dict[str, Any]] = {
    "capped": {"capped": True, "size": Int64(1 << 40), "max": 10},
    "validator": {"validator": {"$jsonSchema": {"required": ["a"]}}, "validationLevel": "moderate", "validationAction": "warn"},
    "view": {"viewOn": "c", "pipeline": [{"$match": {"at": DatetimeMS(1 << 60), "name": Regex("^a", "i")}}]},
    "clustered": {"clusteredIndex": {"v": 2, "key": {"_id": 1}, "name": "n", "unique": True}},
    "images": {"changeStreamPreAndPostImages": {"enabled": True}, "expireAfterSeconds": Int64(60)},
}  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_options_come_back_byte_for_byte(options: dict[str, Any]) -> None:
    metadata = CollectionMetadata("c", options=options)
    assert metadata.comes_back()
    assert bson.encode(decode(metadata.encode()).options) == bson.encode(options)


def test_what_extended_json_cannot_tell_apart_is_known() -> None:
    query = {"validator": {"name": {"$regex": "^a", "$options": "i"}}}
    assert not CollectionMetadata("c", options=query).comes_back()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"indexes":{}}',
        '{"indexes":[1]}',
        '{"indexes":[{"name":"x"}]}',
        '{"indexes":[{"key":{"a":1}}]}',
        '{"indexes":[],"options":[]}',
        '{"indexes":[],"collectionName":5}',
        '{"indexes":[{"key":{"a":{"$numberInt":"x"}},"name":"a"}]}',
    ],
)
def test_damaged_texts_are_refused(text: str) -> None:
    with pytest.raises(FormatError):
        decode(text)
