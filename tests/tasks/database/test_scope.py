"""Which collections a backup takes, and what its manifest says of it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from tasks.database.archive.format import Namespace
from tasks.database.manifest import Manifest
from tasks.database.scope import Scope
from tasks.domain.errors import UsageError

CASES = yaml.safe_load((Path(__file__).parent / "tables" / "scope.yaml").read_text())
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def namespace(text: str) -> Namespace:
    return Namespace(*text.split(".", maxsplit=1))


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_what_is_taken(case: dict[str, Any]) -> None:
    scope = Scope.model_validate(case["scope"])
    scope.check()
    every = [*case["takes"], *case["leaves"]]
    assert [name for name in every if scope.takes(namespace(name))] == case["takes"]


def test_what_was_left_out_is_told_only_where_it_is_there() -> None:
    scope = Scope.of("apinizerdb", left_out=["apinizer_log", "audit_event"])
    there = [namespace(n) for n in ("apinizerdb.apinizer_log", "apinizerdb.x", "other.apinizer_log")]
    assert scope.left_out_of(there) == ["apinizerdb.apinizer_log"]
    assert scope.idle(there) == ["audit_event"]


@pytest.mark.parametrize(
    ("databases", "left_out"),
    [((), "apinizer_log"), (("a", "b"), "apinizer_log"), (("a", "b"), "c.x"), ((), "local.x")],
)
def test_a_collection_to_leave_out_that_is_not_clear(databases: tuple[str, ...], left_out: str) -> None:
    with pytest.raises(UsageError, match=left_out):
        Scope(databases=databases, left_out=(left_out,)).check()


def manifest(**fields: Any) -> Manifest:
    return Manifest.model_validate(
        {
            "archive": "x.archive", "tool_version": "1", "apinizer_version": "2025.04.3", "server_version": "7.0.0",
            "database": "apinizerdb", "started": NOW, "ended": NOW, "duration_seconds": 1, "read_concern": "majority",
            "gzip": True, "size": 1, "sha256": "00", "namespaces": [], **fields,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "database", "expected"),
    [
        ({"databases": []}, "apinizerdb", True),
        ({"databases": []}, "local", False),
        ({"databases": ["apinizerdb"]}, "apinizerdb", True),
        ({"databases": ["other"]}, "apinizerdb", False),
        ({"databases": ["apinizerdb"], "left_out": ["apinizerdb.apinizer_log"]}, "apinizerdb", False),
        ({"databases": [], "left_out": ["other.log"]}, "apinizerdb", True),
        ({"databases": [], "left_out": ["apinizerdb2.log"]}, "apinizerdb", True),
    ],
)
def test_whether_nothing_is_missing_on_purpose(fields: dict[str, Any], database: str, expected: bool) -> None:  # noqa: FBT001
    assert manifest(**fields).holds_all_of(database) is expected


def test_a_manifest_of_before_there_was_a_choice_is_of_its_one_database() -> None:
    found = manifest(collections_asked="all", engine="native")
    assert found.databases == ["apinizerdb"]
    assert found.holds_all_of("apinizerdb")
    assert not found.holds_all_of("other")


def test_an_engine_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match="engine"):
        manifest(engine="other")
