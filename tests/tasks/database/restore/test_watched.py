"""A restore whose watch for writes of others does not see any more replaces nothing."""

from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from tasks.database.batch import ReplyError
from tasks.database.foreign_writes import ForeignWrites
from tasks.database.restore.progress import RestoreProgress
from tasks.domain.errors import UnprovenError
from tests.tasks.database.restore.world import DB, backup, picture, put_back

Client = MongoClient[dict[str, Any]]


def test_a_watch_that_dies_ends_the_restore_before_anything_is_replaced(
    client: Client, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        client[DB][name].insert_many({"_id": i} for i in range(50))
    archive = backup(uri, tmp_path)
    client[DB]["a"].insert_one({"_id": "newer"})
    before = picture(client)
    written: list[str] = []

    def not_understood(_self: ForeignWrites, _event: object) -> None:
        raise ReplyError("the reply is no cursor's")

    def others(at: RestoreProgress) -> None:
        if at.phase == "load" and not written:
            written.append(at.collection)
            monkeypatch.setattr(ForeignWrites, "_take", not_understood)
            client[DB]["b"].insert_one({"_id": "foreign"})

    with pytest.raises(UnprovenError, match="not known whether somebody else wrote") as caught:
        put_back(uri, archive, progress=others, watch_others=True)
    assert "No collection was replaced" in caught.value.safe
    assert written
    now = picture(client)
    assert now["a"] == before["a"]
    assert len(now["b"][3]) == 51
