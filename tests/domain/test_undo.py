"""One component alone: to the version that the running manager answers, and to no other."""

from typing import Any

import pytest

from tasks.domain.component import Component
from tasks.domain.errors import BlockedError, UsageError
from tasks.domain.journal import Journal
from tasks.domain.plan import PlanRequest
from tasks.domain.undo import Undo, undo_step
from tasks.domain.version import Version
from tests.domain.installation import inventory_of
from tests.domain.recorded import image_entry, upgrade_journal

OWN = "nexus.local:5000/own"
INVENTORY = inventory_of(
    [
        {"at": "apinizer/m", "runs": "apinizercloud/manager:2025.04.3"},
        {"at": "prod/w", "runs": "apinizercloud/worker:2025.07.0", "pods": 2},
        {"at": "test/w", "runs": "apinizercloud/worker:2025.04.3"},
        {"at": "apinizer/p", "runs": "apinizercloud/apiportal:2025.07.0"},
        {"at": "apinizer/i", "runs": "apinizercloud/integration:2025.07.0", "paused": True},
        {
            "at": "prod/c",
            "runs": [
                {"name": "main", "image": "apinizercloud/cache:2025.07.0"},
                {"name": "warm", "image": "apinizercloud/cache:2025.07.0", "init": True},
            ],
        },
    ]
)
OLD = "2025.04.3"


def undone(what: str, to: str = OLD, *, running: str | None = OLD, **options: Any) -> Undo:
    request = PlanRequest.model_validate({"to": to} | options.pop("request", {}))
    return undo_step(INVENTORY, what, request, running=Version(running) if running else None, **options)


def images(undo: Undo) -> list[str]:
    return [f"{'+' * c.init}{c.container} {c.new}" for c in undo.step.changes]


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("prod/w", ["main apinizercloud/worker:2025.04.3"]),
        ("apinizer/p", ["main apinizercloud/portal:2025.04.3"]),
        ("portal", ["main apinizercloud/portal:2025.04.3"]),
        ("prod/c", ["main apinizercloud/cache:2025.04.3", "+warm apinizercloud/cache:2025.04.3"]),
        ("test/w", []),
    ],
)
def test_to_the_version_of_the_running_manager(what: str, expected: list[str]) -> None:
    undo = undone(what)
    assert images(undo) == expected
    assert undo.plan.steps == (undo.step,)
    assert (undo.plan.to, undo.plan.manager, undo.plan.migrates) == (Version(OLD), None, False)


@pytest.mark.parametrize(
    ("what", "to", "running", "happened", "told"),
    [
        ("prod/w", OLD, "2025.07.0", "cannot go back to 2025.04.3 alone: the database is at 2025.07.0", "rollback"),
        ("prod/w", "2025.07.0", OLD, "cannot go to 2025.07.0 alone: the database is at 2025.04.3", "upgrade --to 2025"),
        ("prod/w", OLD, None, "Which version the database accepts is not known", "apinizer/m does not answer"),
        ("apinizer/m", OLD, OLD, "The manager apinizer/m cannot go back alone", "apinizer-upgrade rollback"),
        ("manager", OLD, None, "The manager apinizer/m cannot go back alone", "apinizer-upgrade rollback"),
    ],
)
def test_to_no_other_version(what: str, to: str, running: str | None, happened: str, told: str) -> None:
    with pytest.raises(BlockedError) as raised:
        undone(what, to, running=running)
    assert happened in raised.value.happened
    assert told in str(raised.value)
    assert raised.value.observed
    assert raised.value.next
    assert raised.value.safe == "Nothing was changed."


@pytest.mark.parametrize(
    ("what", "told"), [("worker", "prod/w, test/w"), ("prod/x", "apinizer/m"), ("gateway", "prod/w")]
)
def test_a_name_that_is_none_or_several(what: str, told: str) -> None:
    with pytest.raises(UsageError) as raised:
        undone(what)
    assert told in raised.value.observed


def recorded(before: str, after: str, **changes: Any) -> Journal:
    worker = next(d for d in INVENTORY.deployments if str(d.key) == "prod/w")
    return upgrade_journal((image_entry(worker, {"main": after}, images={"main": before}),), **changes)


def test_a_recorded_image_of_that_version_wins_over_a_name_that_is_made() -> None:
    known = recorded(f"{OWN}/apinizer-worker:{OLD}", f"{OWN}/apinizer-worker:2025.07.0")
    undo = undone("prod/w", journals=[known])
    assert (images(undo), undo.recorded) == ([f"main {OWN}/apinizer-worker:{OLD}"], known.id)
    other = recorded("apinizercloud/worker:2025.04.2", "apinizercloud/worker:2025.07.0")
    undo = undone("prod/w", journals=[other])
    assert (images(undo), undo.recorded) == (["main apinizercloud/worker:2025.04.3"], "")


def test_a_repository_that_the_sources_disagree_about_is_asked_for() -> None:
    with pytest.raises(UsageError) as raised:
        undone("portal", "2025.04.5", running="2025.04.5")
    assert "--repository portal=NAME" in raised.value.next
    assert images(undone("portal", "2025.04.5", running="2025.04.5", held={"portal": True, "apiportal": False})) == [
        "main apinizercloud/portal:2025.04.5"
    ]
    said = {"repositories": {Component.PORTAL: "apiportal"}}
    assert images(undone("portal", "2025.04.5", running="2025.04.5", request=said)) == [
        "main apinizercloud/apiportal:2025.04.5"
    ]


def test_another_prefix_is_taken() -> None:
    assert images(undone("prod/w", request={"prefix": OWN})) == [f"main {OWN}/worker:{OLD}"]


def test_what_a_plan_would_say_of_it_is_said() -> None:
    undo = undone("integration")
    assert [f.code for f in undo.plan.blocked_by] == ["paused"]
    assert "downgrade" not in {f.code for f in undone("prod/w").findings}
    with pytest.raises(BlockedError):
        undo.plan.require_allowed()


def test_what_was_recorded_of_another_deployment_is_not_this_ones() -> None:
    other = next(d for d in INVENTORY.deployments if str(d.key) == "test/w")
    known = upgrade_journal((image_entry(other, {"main": f"{OWN}/worker:{OLD}"}),))
    assert undone("prod/w", journals=[known]).recorded == ""


def test_a_manager_beside_another_component_makes_it_the_managers() -> None:
    both = [
        {"name": "portal", "image": "apinizercloud/portal:2025.04.3"},
        {"name": "manager", "image": "apinizercloud/manager:2025.04.3"},
    ]
    inventory = inventory_of([{"at": "apinizer/all", "runs": both}])
    with pytest.raises(BlockedError, match="cannot go back alone"):
        undo_step(inventory, "apinizer/all", PlanRequest(to=Version(OLD)), running=Version(OLD))
