"""Which backups may go: a table, and what must hold whatever is asked."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.database.manifest import Manifest, SourceRecord
from tasks.database.retention import to_remove

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
TABLE = yaml.safe_load((Path(__file__).parent / "tables" / "retention.yaml").read_text())


@dataclass(frozen=True)
class One:
    age: int
    proved: bool
    manifest: bool = True
    needed: bool = False
    other: bool = False

    def stands_for(self, older: "One") -> bool:
        return self.other == older.other

    @property
    def taken(self) -> datetime:
        return NOW - timedelta(days=self.age)

    @property
    def archive(self) -> Path:
        return Path(f"/backups/{self.age}.archive")

    @property
    def sha256(self) -> str:
        return f"sum of {self.age}" if self.manifest else ""


def one(text: str) -> One:
    age, *flags = text.split()
    return One(int(age), "P" in flags, "M" not in flags, "N" in flags, "O" in flags)


@pytest.mark.parametrize("by", ["archive", "name", "sha256"])
@pytest.mark.parametrize("case", TABLE, ids=lambda case: case["name"])
def test_table(case: dict[str, Any], by: str) -> None:
    backups = [one(text) for text in case["backups"]]
    named = frozenset(
        {"archive": str(backup.archive), "name": backup.archive.name, "sha256": backup.sha256}[by]
        for backup, text in zip(backups, case["backups"], strict=True)
        if "J" in text.split()
    )
    for order in (backups, backups[::-1]):
        gone = to_remove(order, keep=case.get("keep"), days=case.get("days"), named=named, now=NOW)
        assert [backup.age for backup in gone] == case["gone"]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    backups=st.lists(st.builds(One, st.integers(0, 60), st.booleans(), st.booleans(), st.just(False), st.booleans()), max_size=8, unique_by=lambda b: b.age),
    keep=st.none() | st.integers(0, 4),
    days=st.none() | st.integers(0, 40),
    data=st.data(),
)  # fmt: skip
def test_what_is_needed_stays(backups: list[One], keep: int | None, days: int | None, data: st.DataObject) -> None:
    named = data.draw(st.sets(st.sampled_from([b.archive.name for b in backups]))) if backups else set()
    gone = to_remove(backups, keep=keep, days=days, named=frozenset(named), now=NOW)
    assert not {backup.archive.name for backup in gone} & named
    assert all(backup.manifest for backup in gone)
    left = [backup for backup in backups if backup not in gone]
    for backup in gone:
        assert any(other.proved and other.age < backup.age and other.stands_for(backup) for other in left)
    if keep and days is None:
        for kind in (False, True):
            proved = sorted(backup.age for backup in backups if backup.proved and backup.other is kind)
            assert not set(proved[:keep]) & {backup.age for backup in gone}
    assert to_remove(left, keep=keep, days=days, named=frozenset(named), now=NOW) == []


HERE, THERE = SourceRecord(hosts=["a:25080", "b:25080"], set_name="rs"), SourceRecord(hosts=["c:25080"], set_name="rs")


def manifest(databases: list[str], left_out: list[str], source: SourceRecord | None) -> Manifest:
    return Manifest(
        archive="x", tool_version="1", apinizer_version="2025.04.3", server_version="8.0.4", database="db", started=NOW,
        ended=NOW, duration_seconds=0, read_concern="majority", gzip=True, size=1, sha256="0", namespaces=[],
        databases=databases, left_out=left_out, source=source,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("newer", "older", "does"),
    [
        ((["db"], [], HERE), (["db"], [], HERE), True),
        ((["db"], [], HERE), (["other"], [], HERE), False),
        ((["db", "other"], [], HERE), (["other"], [], HERE), True),
        (([], [], HERE), (["db"], [], HERE), True),
        ((["db"], [], HERE), ([], [], HERE), False),
        ((["db"], ["db.log"], HERE), (["db"], [], HERE), False),
        ((["db"], [], HERE), (["db"], ["db.log"], HERE), True),
        ((["db"], [], THERE), (["db"], [], HERE), False),
        ((["db"], [], HERE.model_copy(update={"hosts": ["b:25080"]})), (["db"], [], HERE), True),
        ((["db"], [], HERE.model_copy(update={"set_name": ""})), (["db"], [], HERE), False),
        ((["db"], [], THERE.model_copy(update={"set_id": "1"})), (["db"], [], HERE.model_copy(update={"set_id": "1"})), True),
        ((["db"], [], HERE.model_copy(update={"set_id": "2"})), (["db"], [], HERE.model_copy(update={"set_id": "1"})), False),
        ((["db"], [], None), (["db"], [], None), True),
        ((["db"], [], HERE), (["db"], [], None), False),
    ],
)  # fmt: skip
def test_which_backup_can_stand_for_which(newer: tuple[Any, ...], older: tuple[Any, ...], *, does: bool) -> None:
    assert manifest(*newer).stands_for(manifest(*older)) is does
