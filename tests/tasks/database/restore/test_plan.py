"""The plan of a restore, by a table (plan.yaml)."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.database.archive.format import Namespace
from tasks.database.manifest import Manifest, NamespaceRecord, ProofRecord
from tasks.database.merge_rule import MergeRule
from tasks.database.restore.plan import (
    Archived,
    Present,
    Refusal,
    RestorePlan,
    RestoreRequest,
    Safety,
    make_restore_plan,
)
from tasks.database.restore.world import no_room
from tasks.domain import errors

CASES = yaml.safe_load((Path(__file__).parent / "plan.yaml").read_text())
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def manifest(*, sha256: str = "ab", proof: str = "", left_out: list[str] | None = None, **holds: int) -> Manifest:
    return Manifest(
        archive="x.archive", tool_version="1", apinizer_version="1", server_version="8", database="db",
        databases=["db"], left_out=left_out or [], started=NOW, ended=NOW, duration_seconds=1,
        read_concern="majority", gzip=True, size=1, sha256=sha256,
        namespaces=[
            NamespaceRecord(db="db", collection=name, data=name, type="collection", documents=count, bytes=1,
                            crc64="0", indexes=[]) for name, count in holds.items()
        ],
        proof=ProofRecord(proved_at=NOW, tool_version="1", sha256=proof, documents=1, bytes=1, indexes=1)
        if proof else None,
    )  # fmt: skip


def planned(case: dict[str, Any], *, world: tuple[Refusal, ...] = ()) -> RestorePlan:
    archived = [
        Archived(number=number, namespace=Namespace("db", name), kind="view" if count == "view" else "collection",
                 documents=0 if count == "view" else count)
        for number, (name, count) in enumerate(case["archive"].items())
    ]  # fmt: skip
    present = [
        Present(name=name, kind="view" if count == "view" else "collection", documents=0 if count == "view" else count)
        for name, count in case.get("now", {}).items()
    ]
    asked = {name: case[name] for name in ("include", "exclude", "rename", "exact") if name in case}
    request = RestoreRequest(
        database=case.get("database", "db"),
        source_database=case.get("source_database", "db"),
        merge=MergeRule.parse(case["merge"]) if "merge" in case else None,
        **asked,
    )
    safety = Safety(name="safety.archive", **case["safety"]) if "safety" in case else None
    return make_restore_plan(
        archived,
        manifest(**case["manifest"]) if "manifest" in case else None,
        present,
        request,
        safety,
        found=world,
        under_way=frozenset(case.get("under_way", ())),
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_plan(case: dict[str, Any]) -> None:
    plan = planned(case)
    if "refuses" in case:
        kind, text = case["refuses"]
        refusal = plan.refusal
        assert type(refusal) is getattr(errors, kind)
        assert text in str(refusal)
        assert refusal.safe == errors.NOTHING_CHANGED
        assert plan.refused
        assert plan.refused.needs_safety is case.get("needs_safety", False)
        return
    assert plan.refusal is None
    assert {action.target.collection: action.verb.value for action in plan.actions} == case["does"]
    assert set(case.get("says", [])) <= set(plan.sentences)


def test_what_only_this_engine_cannot_do_comes_last() -> None:
    case = {"archive": {"a": 1}, "now": {"new": 7}, "exact": True, "manifest": {}}
    room = Refusal(kind="blocked", happened="No room.", native_only=True)
    stranger = Refusal(kind="blocked", happened="Another installation.")
    first = planned(case, world=(room, stranger)).refused
    assert first == stranger
    second = planned(case, world=(room,)).refused
    assert second
    assert second.needs_safety
    assert planned(case, world=(room,)).native_only == room
    third = planned({**case, "now": {}}, world=(room,)).refused
    assert third == room


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (None, "no manifest"),
        (manifest(sha256="ab", a=1), "not proved"),
        (manifest(sha256="ab", proof="cd", a=1), "not the one that was proved"),
        (manifest(sha256="cd", proof="cd", a=1), "not the one that was proved"),
        (manifest(sha256="ab", proof="ab", a=1), ""),
    ],
)
def test_a_backup_is_relied_on_only_as_it_was_proved(found: Manifest | None, problem: str) -> None:
    safety = Safety.of(found, "db", "x", "ab")
    assert problem in safety.problem
    assert bool(safety.problem) is bool(problem)
    assert safety.holds == ({} if problem else {"a": 1})


def test_a_plan_survives_the_database_that_it_is_kept_in() -> None:
    plan = planned(CASES[5])
    assert RestorePlan.model_validate_json(plan.model_dump_json()) == plan


GB = 1_000_000_000


@pytest.mark.parametrize(
    ("statistics", "documents", "fits"),
    [
        ({}, 100 * GB, True),
        ({"fsTotalSize": 0.0, "fsUsedSize": 0.0}, 100 * GB, True),
        ({"fsTotalSize": 10.0 * GB, "fsUsedSize": 4.0 * GB}, 7 * GB, True),
        ({"fsTotalSize": 10.0 * GB, "fsUsedSize": 4.0 * GB}, 9 * GB, False),
        # A third is what this server makes of these documents.
        ({"fsTotalSize": 10.0 * GB, "fsUsedSize": 4.0 * GB, "dataSize": 9.0 * GB, "storageSize": 3.0 * GB}, 17 * GB, True),
        ({"fsTotalSize": 10.0 * GB, "fsUsedSize": 4.0 * GB, "dataSize": 9.0 * GB, "storageSize": 3.0 * GB}, 19 * GB, False),
        # Too little to learn from.
        ({"fsTotalSize": 10.0 * GB, "fsUsedSize": 4.0 * GB, "dataSize": 9e5, "storageSize": 9e4}, 9 * GB, False),
    ],
)  # fmt: skip
def test_room(statistics: dict[str, float], documents: int, fits: bool) -> None:  # noqa: FBT001
    refusal = no_room(statistics, documents)
    assert (refusal is None) is fits
    assert refusal is None or refusal.native_only
