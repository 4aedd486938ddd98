"""The way back by tables: what was, what the upgrade set, what is now; the steps back and the findings (rollbacks/*.yaml)."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.domain.errors import BlockedError, UsageError
from tasks.domain.inventory import Inventory
from tasks.domain.journal import Ended, Journal
from tasks.domain.plan import PlanRequest
from tasks.domain.rollback import RollbackPlan, rollback_plan
from tasks.domain.step import RolloutStep
from tasks.domain.version import Version
from tests.domain.installation import corrections_of, deployment_object, inventory_of
from tests.domain.recorded import BEGUN, facts_at, image_entry, rollback_journal, scale_entry, upgrade_journal

CASES = [
    pytest.param(case, id=f"{path.stem}: {case['name']}")
    for path in sorted((Path(__file__).parent / "rollbacks").glob("*.yaml"))
    for case in yaml.safe_load(path.read_text())
]
KNOWN = {
    "name", "before", "overrides", "set", "again", "now", "new", "request", "current", "running", "scaled", "abandoned",
    "without", "manager", "stages", "titles", "there", "replicas", "expected", "findings", "blocked", "says", "database",
    "refused", "to", "planned",
}  # fmt: skip


def journal_of(case: dict[str, Any], before: Inventory) -> Journal:
    """`set` are images by Deployment and container; `again` what a second try set, which found the images of the first."""
    entries = [image_entry(facts_at(before, at), images) for at, images in case.get("set", {}).items()]
    for at, images in case.get("again", {}).items():
        facts = facts_at(before, at)
        found = {c.name: c.image for c in facts.containers} | case["set"].get(at, {})
        entries.append(image_entry(facts, images, images=found, generation=3, replicas=9))
    request = PlanRequest.model_validate({"to": "2025.07.0"} | case.get("request", {}))
    said = case.get("current", "2025.04.3")
    journal = upgrade_journal(tuple(entries), request=request, to=request.to, current=Version(said) if said else None)
    return journal.model_copy(update={"planned": tuple(case.get("planned", ()))})


def world_now(case: dict[str, Any]) -> Inventory:
    """What was there, with the images that were set, then `now`'s changes (null: gone) and what is `new`."""
    found = []
    for one in case["before"]:
        changes = case.get("now", {}).get(one["at"], {})
        if changes is None:
            continue
        runs = one["runs"] if isinstance(one["runs"], list) else [{"name": "main", "image": one["runs"]}]
        images = {**case.get("set", {}).get(one["at"], {}), **case.get("again", {}).get(one["at"], {})}
        then = [{**c, "image": images.get(c["name"], c["image"])} for c in runs]
        found.append({**one, "runs": then, **changes})
    inventory = inventory_of([*found, *case.get("new", [])], corrections_of(case))
    uids = {
        one["at"]: changes["uid"]
        for one in case["before"]
        if "uid" in (changes := case.get("now", {}).get(one["at"]) or {})
    }
    return inventory.model_copy(
        update={
            "deployments": tuple(
                d.model_copy(update={"uid": uids.get(str(d.key), d.uid)}) for d in inventory.deployments
            )
        }
    )


def rolled_back(case: dict[str, Any]) -> RollbackPlan:
    before = inventory_of(case["before"], corrections_of(case))
    journal = journal_of(case, before)
    rollbacks = []
    for kind in ("abandoned", "scaled"):
        if kind in case:
            entries = tuple(scale_entry(facts_at(before, at), had) for at, had in case[kind].items())
            one = rollback_journal(journal, entries, id=f"{kind}-1")
            rollbacks.append(one if kind == "scaled" else one.end(BEGUN + timedelta(days=2), Ended.ABANDONED))
    return rollback_plan(
        journal,
        world_now(case),
        running=Version(case["running"]) if "running" in case else None,
        rollbacks=rollbacks,
        without=case.get("without", ()),
    )


def lines(step: RolloutStep | None) -> list[str]:
    if step is None:
        return []
    return [f"{step.key} {'+' * c.init}{c.container} {c.new}" for c in step.changes] or [f"{step.key} as it is"]


@pytest.mark.parametrize("case", CASES)
def test_the_way_back(case: dict[str, Any]) -> None:
    assert case.keys() <= KNOWN, "the case asks for what is not looked at"
    if "refused" in case:
        with pytest.raises((UsageError, BlockedError), match=case["refused"]):
            rolled_back(case)
        return
    back = rolled_back(case)
    plan = back.plan
    texts = "\n".join(f"{f.what}\n{f.next}" for f in plan.findings)
    seen = {
        "to": str(plan.to),
        "manager": lines(plan.manager),
        "stages": {stage.title: [line for s in stage.steps for line in lines(s)] for stage in plan.stages},
        "titles": [stage.title for stage in plan.stages],
        "there": [str(step.key) for step in plan.there],
        "replicas": {str(key): count for key, count in back.replicas.items()},
        "expected": {str(one.key): str(one.expected) for one in back.returns},
        "findings": sorted(f.code for f in plan.findings),
        "blocked": [f.code for f in back.blocked_by],
        "database": back.database,
        "says": texts,
    }
    for name, wanted in case.items():
        if name == "says":
            assert all(text in texts for text in wanted), texts
        elif name in seen and name not in ("name", "running"):
            assert seen[name] == wanted, f"{name}: {texts}"
    if back.blocked_by:
        with pytest.raises(BlockedError) as raised:
            back.require_allowed()
        assert all(f.what in str(raised.value) for f in back.blocked_by)
        assert raised.value.safe == "Nothing was changed."
    else:
        back.require_allowed()
    every = [s.key for s in (*plan.steps, *plan.there)]
    assert sorted(map(str, every)) == sorted(str(one.key) for one in back.returns), (
        "each Deployment is in the plan once"
    )
    assert all(step.replicas == back.replicas[step.key] for step in plan.steps)


def test_the_old_images_come_from_the_journal_whatever_the_version_would_make_of_them() -> None:
    """Not one name of the plan is derived: every image that it sets is one that the journal recorded."""
    for parameters in CASES:
        case: Any = parameters.values[0]
        if "refused" in case:
            continue
        before = {c.image for d in inventory_of(case["before"], corrections_of(case)).deployments for c in d.containers}
        assert {image for step in rolled_back(case).plan.steps for image in step.images} <= before


def test_a_deployment_that_is_rolled_out_no_further_than_its_image_is_waited_for() -> None:
    before = [
        {"at": "apinizer/m", "runs": "apinizercloud/manager:2025.04.3"},
        {"at": "prod/w", "runs": "apinizercloud/worker:2025.04.3"},
    ]
    inventory = inventory_of(before)
    journal = upgrade_journal((image_entry(inventory.deployments[0], {"main": "apinizercloud/manager:2025.07.0"}),))
    unsettled = tuple(d.model_copy(update={"settled": d.key.name != "w"}) for d in inventory.deployments)
    plan = rollback_plan(journal, Inventory(deployments=unsettled)).plan
    assert [lines(s) for stage in plan.stages for s in stage.steps] == [["prod/w as it is"]]
    assert rollback_plan(journal, inventory).plan.stages == ()
    assert deployment_object(before[0])["spec"]["replicas"] == 1


def test_what_is_asked_of_a_plan() -> None:
    before = [
        {"at": "apinizer/m", "runs": "apinizercloud/manager:2025.04.3", "strategy": "Recreate", "pods": 2},
        {"at": "prod/w", "runs": "apinizercloud/worker:2025.04.3", "pods": 2},
        {"at": "test/w", "runs": "apinizercloud/worker:2025.04.3"},
        {"at": "test/c", "runs": "apinizercloud/cache:2025.04.3", "pods": 0, "strategy": "Recreate"},
    ]
    inventory = inventory_of(before)
    new = {d.key: d.main.image.replace("2025.04.3", "2025.07.0") for d in inventory.deployments}
    journal = upgrade_journal(tuple(image_entry(d, {"main": new[d.key]}) for d in inventory.deployments))
    now = inventory_of([{**one, "runs": str(one["runs"]).replace("2025.04.3", "2025.07.0")} for one in before])
    back = rollback_plan(journal, now)
    assert back.manager is not None
    assert back.manager.key == journal.manager
    assert (str(back.to), str(back.plan.current)) == ("2025.04.3", "2025.07.0")
    assert str(rollback_plan(journal, now, running=Version("2025.07.1")).plan.current) == "2025.07.1"
    assert {str(step.key): step.interrupts for step in back.plan.steps} == {
        "apinizer/m": True,
        "prod/w": False,
        "test/w": True,
        "test/c": False,
    }
    worker = facts_at(now, "prod/w").key
    assert back.of(worker).key == worker
    with pytest.raises(KeyError):
        back.of(worker.model_copy(update={"name": "other"}))


def test_what_is_recorded_of_another_deployment_scales_none() -> None:
    """A journal that was edited by hand, or of a Deployment that was made anew since."""
    (case,) = (case.values[0] for case in CASES if "one pod is up already" in str(case.id))
    before = inventory_of(case["before"], corrections_of(case))
    journal, worker = journal_of(case, before), facts_at(before, "prod/w")
    for uid, pods in ((worker.uid, 7), ("another", 0)):
        entry = scale_entry(worker.model_copy(update={"uid": uid}), 7)
        back = rollback_plan(journal, world_now(case), rollbacks=[rollback_journal(journal, (entry,))])
        assert back.replicas[worker.key] == pods
