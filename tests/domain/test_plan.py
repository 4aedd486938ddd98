"""Plans by tables: an installation and a wish in, the steps in their order and the findings out (plans/*.yaml)."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.component import Component
from tasks.domain.errors import BlockedError, UsageError
from tasks.domain.inventory import Inventory
from tasks.domain.plan import Plan, PlanRequest, make_plan
from tasks.domain.step import RolloutStep
from tasks.domain.version import Version
from tests.domain.installation import corrections_of, inventory_of

CASES = [
    pytest.param(case, id=f"{path.stem}: {case['name']}")
    for path in sorted((Path(__file__).parent / "plans").glob("*.yaml"))
    for case in yaml.safe_load(path.read_text())
]
KNOWN = {
    "name", "deployments", "overrides", "request", "held", "running",
    "current", "manager", "stages", "titles", "unchanged", "findings", "blocked", "says", "refused", "interrupts",
}  # fmt: skip


def planned(case: dict[str, Any]) -> Plan:
    return make_plan(
        inventory_of(case["deployments"], corrections_of(case)),
        PlanRequest.model_validate(case["request"]),
        held=case.get("held", {}),
        running=Version(case["running"]) if "running" in case else None,
    )


def lines(step: RolloutStep | None) -> list[str]:
    if step is None:
        return []
    return [f"{step.key} {'+' * c.init}{c.container} {c.new}" for c in step.changes] or [f"{step.key} as it is"]


@pytest.mark.parametrize("case", CASES)
def test_the_plan(case: dict[str, Any]) -> None:
    assert case.keys() <= KNOWN, "the case asks for what is not looked at"
    if "refused" in case:
        with pytest.raises(UsageError, match=case["refused"]):
            planned(case)
        return
    plan = planned(case)
    texts = "\n".join(f"{f.what}\n{f.next}" for f in plan.findings)
    seen = {
        "current": str(plan.current),
        "manager": lines(plan.manager),
        "stages": {stage.title: [line for s in stage.steps for line in lines(s)] for stage in plan.stages},
        "titles": [stage.title for stage in plan.stages],
        "unchanged": list(plan.unchanged),
        "findings": [f.code for f in plan.findings],
        "says": [text for text in case.get("says", ()) if text in texts] or texts,
        "interrupts": sorted(str(s.key) for s in plan.steps if s.interrupts),
    }
    assert {k: v for k, v in seen.items() if k in case} == {k: case[k] for k in seen if k in case}
    assert list(seen["stages"]) == list(case.get("stages", seen["stages"])), "the order of the stages"
    assert bool(plan.blocked_by) == case.get("blocked", False)
    assert all(f.next for f in plan.blocked_by), "a finding that blocks says what to do"


def test_a_plan_that_is_blocked_says_why_and_what_to_do_about_each() -> None:
    case = {
        "deployments": [
            {"at": "apinizer/m", "runs": "apinizercloud/manager:2025.11.0", "pods": 0},
            {"at": "prod/w", "runs": "apinizercloud/worker:2025.04.3", "paused": True},
        ],
        "request": {"to": "2025.07.0"},
    }
    plan = planned(case)
    with pytest.raises(BlockedError) as caught:
        plan.require_allowed()
    assert caught.value.exit_code == 3
    assert caught.value.safe == "Nothing was changed."
    assert [line.split(":")[0] for line in caught.value.observed.splitlines()] == [
        "manager-stopped",
        "downgrade",
        "paused",
    ]
    assert len(caught.value.next.splitlines()) == 3
    planned(
        {**case, "deployments": [{"at": "apinizer/m", "runs": "apinizercloud/manager:2025.04.3"}]}
    ).require_allowed()


def test_a_step_remembers_what_was_judged() -> None:
    plan = planned(
        {"deployments": [{"at": "a/m", "runs": "apinizercloud/manager:2025.04.3"}], "request": {"to": "2025.04.4"}}
    )
    assert plan.manager is not None
    assert (plan.manager.uid, plan.manager.resource_version, plan.manager.replicas) == ("uid-a-m", "100", 1)
    assert [(c.old, c.new) for c in plan.manager.changes] == [
        ("apinizercloud/manager:2025.04.3", "apinizercloud/manager:2025.04.4")
    ]
    assert plan.manager.images == ("apinizercloud/manager:2025.04.4",)


def test_a_plan_and_its_inventory_survive_being_stored() -> None:
    inventory = inventory_of([{"cluster": "far", "at": "a/m", "runs": "apinizercloud/manager:2025.04.03"}])
    request = PlanRequest(to=Version("2025.04.05"), repositories={Component.PORTAL: "apiportal"})
    plan = make_plan(inventory, request, held={}, running=None)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert '"to":"2025.04.05"' in plan.model_dump_json()
    assert Inventory.model_validate_json(inventory.model_dump_json()) == inventory
    assert PlanRequest.model_validate(request.model_dump(mode="json")) == request


@pytest.mark.parametrize("wrong", [{"parallel": 0}, {"to": "soon"}, {"unknown": 1}])
def test_a_request_is_whole_and_spelt_right(wrong: dict[str, Any]) -> None:
    with pytest.raises((ValueError, UsageError)):
        PlanRequest.model_validate({"to": "2025.07.0", **wrong})


COMPONENTS = st.sampled_from(["worker", "cache", "portal", "integration"])
AT = st.builds(
    "{}/{}".format, st.sampled_from(["prod", "test", "dev", "apinizer"]), st.from_regex(r"[a-z]{3}", fullmatch=True)
)
VERSIONS = st.sampled_from(["2025.04.3", "2025.07.0", "2025.11.1"])
OTHERS = st.lists(st.tuples(AT, COMPONENTS, VERSIONS, st.integers(0, 5)), max_size=12, unique_by=lambda d: d[0])


@given(others=OTHERS, at=VERSIONS, together=st.booleans(), order=st.permutations(["prod", "test", "dev"]))
def test_every_deployment_is_a_step_once_or_left_as_it_is(
    *, others: list[tuple[str, str, str, int]], at: str, together: bool, order: list[str]
) -> None:
    """Whatever there is: nothing is forgotten, nothing comes twice, an environment is never in two stages."""
    found = [{"at": where, "runs": f"apinizercloud/{c}:{v}", "pods": n} for where, c, v, n in others]
    inventory = inventory_of([{"at": "core/manager", "runs": f"apinizercloud/manager:{at}"}, *found])
    wanted = tuple(e for e in order if e in inventory.environments)
    request = PlanRequest(to=Version("2025.11.1"), together=together, environments=wanted)
    plan = make_plan(inventory, request, held={}, running=None)
    steps = [str(s.key) for s in plan.steps]
    assert sorted([*steps, *plan.unchanged]) == sorted(str(d.key) for d in inventory.deployments)
    assert len(set(steps)) == len(steps)
    assert all(s.component is not Component.MANAGER for stage in plan.stages for s in stage.steps)
    assert all(change.new.endswith(":2025.11.1") for s in plan.steps for change in s.changes)
    assert not plan.blocked_by
    if not together:
        of_stage = [{s.key.namespace for s in stage.steps} for stage in plan.stages if stage.title.startswith("env")]
        assert all(len(namespaces) == 1 for namespaces in of_stage)
        taken = [namespace for namespaces in of_stage for namespace in namespaces]
        assert len(set(taken)) == len(taken)
        assert [n for n in taken if n in wanted] == [n for n in wanted if n in taken]
