"""Scaling as the steps of a flow: down, no pod left, watched, up again; what somebody else does is noticed."""

from collections.abc import Callable
from typing import Any

import pytest

from tasks.domain.component import Component
from tasks.domain.errors import DriftError, StoppedError
from tests.domain.recorded import upgrade_journal
from tests.flows.world import MANAGER, OLD, World, eventually

WORKER = "prod/worker-prod"


@pytest.fixture
def scaled(run: object, world: World) -> Callable[..., dict[str, Any]]:
    """Run a flow that scales the workers of `prod` down and up; `meanwhile` happens while they are at 0."""
    from prefect import flow

    from tasks.cluster.scaling_steps import (
        ask_replicas,
        find_scalers,
        no_pods_left,
        replicas_watched,
        scale_down,
        scale_up,
    )
    from tasks.cluster.session import connected, session
    from tasks.domain.step import RolloutStep
    from tasks.record.run_record import recorded
    from tasks.record.run_steps import take_lock

    @flow(name="scaling")
    def scaling(meanwhile: Callable[[], object]) -> dict[str, Any]:
        with session("tested"), recorded("tested") as record:
            take_lock("tested", "scaling")
            inventory = connected("tested").inventory()
            assert inventory.manager is not None
            record.create(upgrade_journal(id=record.id, manager=inventory.manager.key, backup=None))
            worker = next(d for d in inventory.of(Component.WORKER) if str(d.key) == WORKER)
            scalers = find_scalers("tested", [worker])
            with replicas_watched("tested"):
                had = scale_down("tested", worker)
                went = no_pods_left("tested", [worker], 60)
                ask_replicas("tested")
                meanwhile()
                ask_replicas("tested")
            step = RolloutStep(
                key=worker.key,
                uid=worker.uid,
                resource_version=worker.resource_version,
                component=worker.component,
                changes=(),
                replicas=worker.replicas,
            )
            count = scale_up("tested", step, had, 60)
            assert record.journal is not None
            entries = [(e.before.replicas if e.before else None, e.replicas) for e in record.journal.entries]
            return {"scalers": scalers, "had": had, "went": went, "count": count, "entries": entries}

    return lambda meanwhile=lambda: None: scaling(meanwhile)


def test_down_to_nothing_and_up_again(scaled: Callable[..., dict[str, Any]], world: World) -> None:
    before = {p["metadata"]["name"] for p in world.pods() if p["metadata"]["namespace"] == "prod"}

    def none_is_there() -> None:
        assert not [p for p in world.pods() if p["metadata"]["name"].startswith("worker-prod")]

    done = scaled(none_is_there)
    assert done["scalers"] == ()
    assert (done["had"], done["count"], done["entries"]) == (2, 2, [(2, 0), (0, 1), (1, 2)])
    assert set(done["went"]) <= before
    assert eventually(world.settled)
    assert all(OLD in answer for answer in world.answered().values())


def test_somebody_scales_it_up_meanwhile(scaled: Callable[..., dict[str, Any]], world: World) -> None:
    with pytest.raises(DriftError) as raised:
        scaled(lambda: world.change(world.path(WORKER), {"spec": {"replicas": 1}}))
    assert "worker-prod wants 1 pod" in raised.value.observed
    assert world.get(world.path(WORKER))["spec"]["replicas"] == 1, "it is left as found"


def test_when_the_run_is_over_nothing_is_scaled(scaled: Callable[..., dict[str, Any]], world: World) -> None:
    """A step that still waits in a thread when its flow has ended."""
    from prefect import flow

    from tasks.cluster.scaling_steps import ask_replicas, scale_down
    from tasks.cluster.session import connected, session

    scaled()
    generations = world.generations()
    with pytest.raises(StoppedError, match="run has ended"):
        ask_replicas("tested")

    @flow(name="late")
    def late() -> None:
        with session("tested"):
            (manager,) = [d for d in connected("tested").inventory().deployments if str(d.key) == MANAGER]
            scale_down("tested", manager)

    with pytest.raises(StoppedError, match="run has ended"):
        late()
    assert world.generations() == generations
