"""A database, its backup, and the database again: byte for byte, through the wire."""

from pathlib import Path
from typing import Any

import bson
import pytest

from tests.tasks.database.restore.world import DB, Client, backup, picture, put_back


@pytest.fixture
def everything(client: Client) -> Client:
    """A database with something of all that the server knows."""
    db = client[DB]
    db["api_proxy"].insert_many([{"_id": i, "name": f"proxy {i}", "ü": [1, {"x": None}]} for i in range(3000)])
    db["api_proxy"].create_index([("name", 1), ("_id", -1)], name="by name", unique=True)
    db["api_proxy"].create_index("at", expireAfterSeconds=2_000_000_000)
    db["api_proxy"].create_index([("place", "2dsphere")])
    db["api_proxy"].create_index([("flat", "2d")])
    db["api_proxy"].create_index([("$**", 1)])
    db["api_proxy"].create_index("x", partialFilterExpression={"x": {"$gt": 1}})
    db["api_proxy"].create_index("y", sparse=True, hidden=True)
    db["api_proxy"].create_index("c", collation={"locale": "tr", "strength": 2})
    db.create_collection("empty")
    db.create_collection("capped", capped=True, size=1 << 20, max=100)
    db["capped"].insert_many([{"n": i} for i in range(50)])
    db.create_collection("checked", validator={"$jsonSchema": {"required": ["a"]}}, validationLevel="moderate")
    db["checked"].with_options().insert_one({"b": 1}, bypass_document_validation=True)
    db.create_collection("sorted", collation={"locale": "tr"})
    db["sorted"].insert_many([{"_id": word} for word in ("ı", "i", "a")])
    db.create_collection("clustered", clusteredIndex={"key": {"_id": 1}, "unique": True})
    db["clustered"].insert_many([{"_id": i} for i in range(20)])
    db.create_collection("with images", changeStreamPreAndPostImages={"enabled": True})
    db.create_collection("some proxies", viewOn="api_proxy", pipeline=[{"$match": {"_id": {"$lt": 5}}}])
    db.create_collection("sorted view", viewOn="sorted", pipeline=[], collation={"locale": "tr"})
    for name in ("a.b.c", "mit Umlaut ü", "system.js", "n" * (255 - len(DB) - 1)):
        db[name].insert_one({"_id": name})
    return client


@pytest.mark.parametrize("gzip", [True, False])
def test_all_comes_back_into_an_empty_server(everything: Client, uri: str, tmp_path: Path, gzip: bool) -> None:  # noqa: FBT001
    before = picture(everything)
    archive = backup(uri, tmp_path, gzip=gzip)
    everything.drop_database(DB)
    evidence = put_back(uri, archive)
    assert picture(everything) == before
    assert set(evidence.created) == set(before)
    assert evidence.documents == 3000 + 50 + 1 + 3 + 20 + 4


def test_all_comes_back_over_what_the_upgrade_changed(everything: Client, uri: str, tmp_path: Path) -> None:
    before = picture(everything)
    archive = backup(uri, tmp_path)
    db = everything[DB]
    db["api_proxy"].update_many({}, {"$set": {"new": 1}})
    db["api_proxy"].drop_indexes()
    db["api_proxy"].create_index("new")
    db["empty"].insert_one({})
    db.drop_collection("capped")
    db["capped"].insert_one({"no": "cap"})
    db.command("collMod", "checked", validator={})
    db.drop_collection("some proxies")
    db["some proxies"].insert_one({"a": "collection in the place of a view"})
    db.command("collMod", "sorted view", viewOn="empty", pipeline=[{"$match": {}}])
    db.drop_collection("a.b.c")
    db.create_collection("a.b.c", viewOn="empty", pipeline=[])
    db["system.js"].insert_one({"_id": "another"})
    db["made by the upgrade"].insert_one({"_id": 1})
    new = picture(everything)["made by the upgrade"]
    evidence = put_back(uri, archive)
    assert picture(everything) == before | {"made by the upgrade": new}
    assert set(evidence.replaced) == set(before)
    assert evidence.left == ("made by the upgrade",)
    assert any("made by the upgrade" in note for note in evidence.notes)


def test_documents_as_large_as_a_server_takes(client: Client, uri: str, tmp_path: Path) -> None:
    db = client[DB]
    db["large"].insert_one({"_id": 0})
    large: dict[str, Any] = {"_id": 1, "s": ""}
    db["large"].insert_one({"_id": 1, "s": "x" * (16 * 1024 * 1024 - len(bson.encode(large)))})
    archive = backup(uri, tmp_path)
    before = picture(client)
    client.drop_database(DB)
    put_back(uri, archive)
    assert picture(client) == before
    assert max(map(len, before["large"][3])) == 16 * 1024 * 1024
