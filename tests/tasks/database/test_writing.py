"""Empty timestamps: which documents hold one, and whether a server can be told to leave them."""

from collections.abc import Callable
from typing import Any

import bson
import pytest
from bson import Timestamp
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from tasks.database import writing
from tasks.database.writing import holds_empty_timestamp, keeps_empty_timestamps, verbatim
from tasks.domain.errors import UnprovenError

Client = MongoClient[dict[str, Any]]
EMPTY = Timestamp(0, 0)


@pytest.fixture(autouse=True)
def _not_asked_yet() -> None:
    """Clients of one server are equal, and what one was told holds for the others."""
    writing._takes.clear()


@pytest.mark.parametrize(
    ("holds", "document"),
    [
        (True, {"_id": 1, "at": EMPTY}),
        (True, {"_id": 1, "": 1, "x": "text", "at": EMPTY, "end": 1}),
        (False, {"_id": EMPTY, "at": Timestamp(0, 1)}),
        (False, {"_id": 1, "at": Timestamp(1, 0)}),
        (False, {"_id": 1, "under": {"at": EMPTY}, "list": [EMPTY]}),
        (False, {"_id": 1, "looks": b"\x11at\x00" + bytes(8)}),
        (False, {"_id": 1, "number": 0, "long": bson.Int64(0)}),
    ],
    ids=lambda value: "" if isinstance(value, bool) else str(value),
)
def test_which_documents_a_server_changes(holds: object, document: dict[str, Any]) -> None:
    assert holds_empty_timestamp(bson.encode(document)) is holds


def test_a_server_that_knows_the_option_is_asked_once(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch_commands(monkeypatch, asked.append)
    with Client(uri) as client:
        assert verbatim(client, "c", [bson.encode({"at": EMPTY})]) == {"bypassEmptyTsReplacement": True}
        assert keeps_empty_timestamps(client)
        assert len(asked) == 1
        assert client.admin.list_collection_names(filter={"name": {"$regex": "^apinizer"}}) == []


def test_a_server_that_does_not_know_it_gets_no_document_that_it_would_change(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch_commands(monkeypatch, unknown_field)
    with Client(uri) as client:
        assert verbatim(client, "w.c", [bson.encode({"_id": 1, "at": Timestamp(1, 1)})]) == {}
        with pytest.raises(UnprovenError, match=r"would change documents of w\.c") as caught:
            verbatim(client, "w.c", [bson.encode({"_id": 1, "at": EMPTY}), bson.encode({"_id": 2})])
    assert "At least 1 hold an empty timestamp" in caught.value.observed


def test_a_server_that_is_away_is_asked_again(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stepped_down(_sent: Any) -> None:
        raise OperationFailure("not primary", 10107)

    with Client(uri) as client:
        with monkeypatch.context() as away:
            monkeypatch_commands(away, stepped_down)
            with pytest.raises(OperationFailure):
                keeps_empty_timestamps(client)
        assert keeps_empty_timestamps(client)


def unknown_field(_sent: Any) -> None:
    raise OperationFailure("BSON field 'insert.bypassEmptyTsReplacement' is an unknown field.", 40415)


def monkeypatch_commands(monkeypatch: pytest.MonkeyPatch, seen: Callable[[Any], None]) -> None:
    """Let `seen` meet every command with the option, as an older server would."""
    from pymongo.synchronous.database import Database

    command = Database.command

    def watched(self: Any, asked: Any, *rest: Any, **more: Any) -> Any:
        if isinstance(asked, dict) and "bypassEmptyTsReplacement" in asked:
            seen(asked)
        return command(self, asked, *rest, **more)

    monkeypatch.setattr(Database, "command", watched)
