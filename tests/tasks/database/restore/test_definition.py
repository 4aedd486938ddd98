"""Definitions: what is sent to make a collection again, and which differences count."""

from typing import Any

import pytest
from bson import Int64

from tasks.database.restore.definition import (
    index_differences,
    indexes_for_create,
    mendable,
    mending,
    option_differences,
    options_for_create,
)

ID = {"v": 2, "key": {"_id": 1}, "name": "_id_"}


@pytest.mark.parametrize(
    ("archived", "sent"),
    [
        ({"v": 2, "key": {"a": 1}, "name": "a_1", "ns": "db.c", "background": True}, {"v": 2, "key": {"a": 1}, "name": "a_1"}),
        ({"v": 1, "key": {"a": -1.0}, "name": "a"}, {"v": 1, "key": {"a": -1.0}, "name": "a"}),
        ({"v": 0, "key": {"a": 1}, "name": "a"}, {"key": {"a": 1}, "name": "a"}),
        ({"key": {"a": "yes", "b": True, "c": 0, "d": float("nan"), "e": None}, "name": "a", "dropDups": True},
         {"key": {"a": 1, "b": 1, "c": 1, "d": 1, "e": 1}, "name": "a"}),
        ({"v": 2, "key": {"a": "hashed"}, "name": "a"}, {"v": 2, "key": {"a": "hashed"}, "name": "a"}),
        (
            {"v": 2, "key": {"_fts": "text", "_ftsx": 1}, "name": "t", "weights": {"a": 10, "b": 1},
             "default_language": "turkish", "language_override": "language", "textIndexVersion": 3},
            {"v": 2, "key": {"_fts": "text", "_ftsx": 1}, "name": "t", "weights": {"a": 10, "b": 1},
             "default_language": "turkish", "language_override": "language", "textIndexVersion": 3},
        ),
    ],
)  # fmt: skip
def test_an_index_is_asked_for_as_it_was(archived: dict[str, Any], sent: dict[str, Any]) -> None:
    assert indexes_for_create([ID, archived]) == [sent]


def test_what_comes_by_itself_is_not_asked_for() -> None:
    clustered = {"v": 2, "key": {"_id": 1}, "name": "by id", "unique": True, "clustered": True}
    assert indexes_for_create([clustered]) == []
    assert index_differences([clustered], [clustered]) == []


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({"uuid": "x", "autoIndexId": True, "flags": 1, "temp": True}, {}),
        ({"capped": False, "size": 0}, {}),
        ({"capped": True, "size": 4096, "max": 5}, {"capped": True, "size": 4096, "max": 5}),
        ({"timeseries": {"timeField": "t"}, "expireAfterSeconds": 5}, {"timeseries": {"timeField": "t"}}),
        (
            {"validator": {"a": 1}, "validationLevel": "moderate"},
            {"validator": {"a": 1}, "validationLevel": "moderate"},
        ),
    ],
)
def test_options_of_a_copy(options: dict[str, Any], sent: dict[str, Any]) -> None:
    assert options_for_create(options, with_expiry=False) == sent


INDEX = {"v": 2, "key": {"a": 1, "b": 1}, "name": "x"}


@pytest.mark.parametrize(
    ("wanted", "found", "told"),
    [
        (INDEX, INDEX, []),
        (INDEX, {**INDEX, "ns": "db.c", "key": {"a": 1.0, "b": Int64(1)}}, []),
        ({**INDEX, "unique": 1}, {**INDEX, "unique": True}, []),
        ({**INDEX, "sparse": False}, INDEX, []),
        (INDEX, {**INDEX, "2dsphereIndexVersion": 3}, []),
        (INDEX, {**INDEX, "unique": True}, ["The index x differs in unique."]),
        (INDEX, {**INDEX, "expireAfterSeconds": 0}, ["The index x differs in expireAfterSeconds."]),
        ({**INDEX, "expireAfterSeconds": 0}, INDEX, ["The index x differs in expireAfterSeconds."]),
        (INDEX, {**INDEX, "key": {"a": -1, "b": 1}}, ["The index x differs in key."]),
        (INDEX, {**INDEX, "key": {"b": 1, "a": 1}}, ["The index x differs in key."]),
        (INDEX, {**INDEX, "name": "y"}, ["The index x is missing.", "The index y is not in the archive."]),
        (
            {**INDEX, "partialFilterExpression": {"a": {"$gt": 1}}},
            {**INDEX, "partialFilterExpression": {"a": {"$gt": 2}}},
            ["The index x differs in partialFilterExpression."],
        ),
    ],
)
def test_differences_of_indexes(wanted: dict[str, Any], found: dict[str, Any], told: list[str]) -> None:
    assert index_differences([ID, wanted], [ID, found]) == told


@pytest.mark.parametrize(
    ("wanted", "found", "odd", "mended"),
    [
        ({}, {}, [], {}),
        ({"capped": True, "size": 4096}, {"capped": True, "size": Int64(4096)}, [], {}),
        ({"validator": {"a": 1}}, {"validator": {"a": 1}, "validationLevel": "strict"}, [], {}),
        ({"validator": {"a": 1}}, {}, ["validator"], {"validator": {"a": 1}}),
        ({}, {"validator": {"a": 1}}, ["validator"], {"validator": {}}),
        (
            {"expireAfterSeconds": 5, "timeseries": {}},
            {"timeseries": {}},
            ["expireAfterSeconds"],
            {"expireAfterSeconds": 5},
        ),
        ({"collation": {"locale": "tr"}}, {}, ["collation"], {}),
        ({"collation": {"locale": "tr"}, "validator": {"a": 1}}, {}, ["collation", "validator"], {}),
        ({}, {"capped": True, "size": 1}, ["capped"], {}),
    ],
)
def test_differences_of_options(
    wanted: dict[str, Any], found: dict[str, Any], odd: list[str], mended: dict[str, Any]
) -> None:
    assert option_differences(wanted, found) == odd
    assert mending(wanted, found) == mended


def test_what_could_be_set_later() -> None:
    assert mendable({"validator": {"a": 1}, "validationAction": "warn"})
    assert not mendable({"validator": {"a": 1}, "collation": {"locale": "tr"}})
