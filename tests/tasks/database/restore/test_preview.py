"""A merge shown before it is done: all collections in one reading of the archive, which can be stopped."""

from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from tasks.database.archive.format import Namespace
from tasks.database.archive.inlet import Inlet
from tasks.database.archive.metadata import CollectionMetadata
from tasks.database.merge_rule import MergeRule
from tasks.database.restore.preview import Merging, would_merge, would_replace
from tasks.domain.errors import StoppedError

Client = MongoClient[dict[str, Any]]
INDEX = {"v": 2, "key": {"_id": 1}, "name": "_id_"}


@pytest.fixture
def interleaved(tmp_path: Path, archive: Any, client: Client) -> Path:
    """Three collections of 30 documents, a part of each in turn; the database holds a third of each, one changed."""
    file = tmp_path / "x.archive"
    file.write_bytes(archive({name: [{"_id": i, "v": 1} for i in range(30)] for name in "abc"}, rounds=3))
    for name in "abc":
        client["w"][name].insert_many({"_id": i, "v": 1} for i in range(9))
        client["w"][name].insert_one({"_id": 9, "v": name})
    return file


def merging(*names: str) -> list[Merging]:
    return [
        Merging(Namespace("w", name), Namespace("db", name), CollectionMetadata(name, "collection", "", {}, (INDEX,)))
        for name in names
    ]


def test_all_collections_are_judged_in_one_reading(
    interleaved: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings, pieces = [0], Inlet.pieces

    def counted(self: Inlet) -> Any:
        readings[0] += 1
        return pieces(self)

    monkeypatch.setattr(Inlet, "pieces", counted)
    told = list(would_merge(client, interleaved, merging("a", "c"), MergeRule(kind="theirs")))
    assert told == [f"{n}, theirs: 20 inserted, 1 replaced, 0 kept as they are, 9 equal." for n in "ac"]
    assert readings == [1]
    assert client["w"]["a"].count_documents({}) == 10


def test_it_can_be_stopped(interleaved: Path, client: Client) -> None:
    asked = [0]

    def stop() -> bool:
        asked[0] += 1
        return asked[0] == 4

    with pytest.raises(StoppedError):
        list(would_merge(client, interleaved, merging("a", "b", "c"), MergeRule(kind="ours"), stop=stop))
    assert asked == [4]


def test_what_is_replaced_alone_is_shown_where_its_structure_differs(interleaved: Path, client: Client) -> None:
    """Collections of another version among those of this one."""
    client["w"]["a"].update_one({"_id": 3}, {"$set": {"migrated": True}})
    client["w"]["a"].update_many({}, {"$unset": {"v": ""}})
    client["w"]["a"].create_index("migrated", name="by_migration")
    told = list(would_replace(client, interleaved, merging("a", "b")))
    assert [line for line in told if line.startswith("b:")] == []
    text = "\n".join(told)
    assert "a: documents of the archive have fields that those of now have not: v." in text
    assert "a: documents of now have fields that those of the archive have not: migrated." in text
    assert "by_migration" in text
    assert "it will be as in the archive" in text
