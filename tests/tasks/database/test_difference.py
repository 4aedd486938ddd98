"""What going back to a backup loses: the rule by a table (tables/difference.yaml), the look at a real database."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from pymongo import MongoClient

from tasks.database import difference
from tasks.database.connection import open_database
from tasks.database.difference import Difference, Held, compare, difference_markdown, duration, read_difference
from tasks.database.dump import dump
from tasks.database.manifest import Manifest, NamespaceRecord, load
from tasks.domain.errors import StoppedError

Client = MongoClient[dict[str, Any]]
CASES = yaml.safe_load((Path(__file__).parent / "tables" / "difference.yaml").read_text())
KNOWN = {"name", "then", "now", "inexact", "left_out", "differs", "same", "logs", "structural", "says"}
TAKEN = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
SEEN = TAKEN + timedelta(hours=26, minutes=5)
DB = "apinizerdb"
KINDS = {"v": "view", "t": "timeseries"}


def manifest(then: dict[str, Any], left_out: list[str]) -> Manifest:
    records = [
        NamespaceRecord(
            db=DB, collection=name, data=name, type=KINDS.get(count, "collection"), bytes=0, crc64="0", indexes=[],
            documents=0 if isinstance(count, str) else count,
        )
        for name, count in then.items()
    ]  # fmt: skip
    other = NamespaceRecord(
        db="other", collection="x", data="x", type="collection", bytes=0, crc64="0", indexes=[], documents=5
    )
    return Manifest(
        archive="x.archive", tool_version="1", apinizer_version="2025.04.3", server_version="8.0.4", database=DB,
        started=TAKEN, ended=TAKEN + timedelta(hours=1), duration_seconds=3600, read_concern="majority", gzip=True,
        size=1, sha256="0", namespaces=[*records, other], left_out=left_out,
    )  # fmt: skip


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in CASES])
def test_what_going_back_loses(case: dict[str, Any]) -> None:
    assert case.keys() <= KNOWN
    now = {
        name: Held(
            KINDS.get(count, "collection"), 0 if isinstance(count, str) else count, name not in case.get("inexact", ())
        )
        for name, count in case["now"].items()
    }
    found = compare(manifest(case["then"], case.get("left_out", [])), now, database=DB, now=SEEN)
    assert {one.name: one.change.value for one in found.collections} == case["differs"]
    assert [one.name for one in found.logs] == case.get("logs", [])
    assert found.same == case.get("same", found.same)
    assert found.structural is case.get("structural", found.structural)
    told = "\n".join(found.sentences())
    assert all(text in told for text in case.get("says", ())), told
    assert "lost: 1 day 2 h." in told
    assert "changed in their place" in told
    page = difference_markdown(found)
    assert told.splitlines()[0] in page
    assert all(f"| {name} |" in page for name in case["differs"])
    assert Difference.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min 0 s"), (7500, "2 h 5 min"), (86400, "1 day 0 h"), (270_000, "3 days 3 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_real_database_held_against_its_backup(uri: str, client: Client, tmp_path: Path) -> None:
    base = client[DB]
    base["settings"].insert_many([{"_id": i} for i in range(10)])
    base["dropped"].insert_one({"_id": 1})
    base["apinizer_log"].insert_one({"_id": 1})
    base.create_collection("seen", viewOn="settings", pipeline=[])
    with open_database(uri) as opened:
        made = dump(opened, DB, tmp_path, apinizer_version="2025.04.3", now=lambda: TAKEN)
        kept = load(made.archive)
        assert kept is not None
        first = read_difference(opened, kept, database=DB, now=SEEN)
        assert (first.collections, first.same, first.structural) == ((), 4, False)
        base["settings"].delete_many({"_id": {"$lt": 4}})
        base["settings"].insert_one({"_id": 100})
        base["dropped"].drop()
        base["seen"].drop()
        base["introduced_2025_08"].insert_many([{"_id": i} for i in range(7)])
        base["apinizer_log"].insert_many([{"_id": 2}, {"_id": 3}])
        found = read_difference(opened, kept, database=DB, now=SEEN)
    assert [(one.name, one.change.value, one.then, one.now, one.log) for one in found.collections] == [
        ("apinizer_log", "more documents", 1, 3, True),
        ("dropped", "gone", 1, None, False),
        ("introduced_2025_08", "new", None, 7, False),
        ("seen", "gone", None, None, False),
        ("settings", "fewer documents", 10, 7, False),
    ]
    assert found.structural
    assert (found.archive, found.taken, found.seen) == (made.archive.name, TAKEN, SEEN)


def test_large_collections_are_not_counted_one_by_one(
    uri: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(difference, "EXACTLY", 3)
    client[DB]["small"].insert_many([{"_id": i} for i in range(3)])
    client[DB]["large"].insert_many([{"_id": i} for i in range(4)])
    with open_database(uri) as opened:
        found = read_difference(opened, manifest({}, []), database=DB, now=SEEN)
    assert {one.name: (one.now, one.exact) for one in found.collections} == {"small": (3, True), "large": (4, False)}


def test_it_can_be_stopped(uri: str, client: Client) -> None:
    client[DB]["a"].insert_one({"_id": 1})
    with open_database(uri) as opened, pytest.raises(StoppedError):
        read_difference(opened, manifest({}, []), database=DB, now=SEEN, stop=lambda: True)
