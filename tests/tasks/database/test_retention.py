"""Which backups may go: a table, and what must hold whatever is asked."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.database.retention import to_remove

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
TABLE = yaml.safe_load((Path(__file__).parent / "tables" / "retention.yaml").read_text())


@dataclass(frozen=True)
class One:
    age: int
    proved: bool
    manifest: bool = True
    needed: bool = False

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
    return One(int(age), "P" in flags, "M" not in flags, "N" in flags)


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
    backups=st.lists(st.builds(One, st.integers(0, 60), st.booleans(), st.booleans()), max_size=8, unique_by=lambda b: b.age),
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
        assert any(other.proved and other.age < backup.age for other in left)
    if keep:
        proved = sorted(backup.age for backup in backups if backup.proved)
        if days is None:
            assert not set(proved[:keep]) & {backup.age for backup in gone}
    assert to_remove(left, keep=keep, days=days, named=frozenset(named), now=NOW) == []
