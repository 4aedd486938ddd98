"""A user who may read and write but not modify collections, as one with the role readWrite."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.database.restore.names import own_of
from tasks.domain.errors import ForbiddenError
from tests.tasks.database.restore.world import DB, Client, backup, picture, put_back

# What the role readWrite has on a database (the server's builtin_roles.cpp); this server's readWrite has more.
ACTIONS = [
    "find", "insert", "update", "remove", "createCollection", "dropCollection", "createIndex", "dropIndex",
    "listCollections", "listIndexes", "renameCollectionSameDB", "collStats", "dbStats",
]  # fmt: skip


@pytest.fixture
def owner(login: Callable[..., str]) -> Iterator[Client]:
    """Who may do all; a user `writer` may read and write."""
    with Client(login()) as client:
        client.drop_database(DB)
        privileges = [{"resource": {"db": DB, "collection": ""}, "actions": ACTIONS}]
        client["admin"].command("createRole", "writing", privileges=privileges, roles=[])
        client["admin"].command("createUser", "writer", pwd="writer", roles=["writing"])
        yield client
        client["admin"].command("dropUser", "writer")
        client["admin"].command("dropRole", "writing")
        client.drop_database(DB)


def test_a_view_is_made_anew_where_it_may_not_be_changed(
    owner: Client, login: Callable[..., str], tmp_path: Path
) -> None:
    owner[DB]["a"].insert_one({"_id": 1})
    owner[DB].create_collection("seen", viewOn="a", pipeline=[{"$match": {"x": 1}}])
    before = picture(owner)
    archive = backup(login(), tmp_path)
    owner[DB].drop_collection("seen")
    owner[DB].create_collection("seen", viewOn="a", pipeline=[{"$match": {"x": 2}}])
    put_back(login("writer", "writer"), archive)
    assert picture(owner) == before


def test_a_right_that_is_needed_at_the_end_is_tried_at_the_beginning(
    owner: Client, login: Callable[..., str], tmp_path: Path
) -> None:
    options = {"clusteredIndex": {"key": {"_id": 1}, "unique": True}, "expireAfterSeconds": 3600}
    owner[DB].create_collection("aging", **options)
    owner[DB]["a"].insert_one({"_id": 1})
    archive = backup(login(), tmp_path)
    now = picture(owner)
    with pytest.raises(ForbiddenError, match="collMod") as caught:
        put_back(login("writer", "writer"), archive)
    assert "aging" in caught.value.observed
    assert "No collection was replaced" in caught.value.safe
    assert {name: one for name, one in picture(owner).items() if name not in own_of(picture(owner))} == now
    assert not any(".probe" in name or ".0000" in name for name in owner[DB].list_collection_names())
