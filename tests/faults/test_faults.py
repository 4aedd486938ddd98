"""A handful of what `make faults` does at every step: the run killed at a boundary, gone on with, and looked at."""

import pytest

from tests.faults.flow import UPGRADE
from tests.faults.killing import killing
from tests.faults.results import Case, Outcome
from tests.flows.world import MANAGER


def boundary(task: str, kind: str, what: str = "") -> dict[str, str]:
    name = f"{task} | {kind} {what}".strip()
    return {"at": f"{name} #1", "task": task, "kind": kind, "what": what}


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(boundary(f"ready: manager {MANAGER}", "migrating"), id="while it migrates"),
        pytest.param(
            boundary("set image: worker test/worker", "answered", "PATCH deployments/test/worker"), id="after a worker"
        ),
    ],
)
def test_killed_and_gone_on_with(line: dict[str, str]) -> None:
    act = killing(UPGRADE, line)
    outcome = Outcome(Case("upgrade killed", line["task"], line["kind"], "kill -9", act))
    act(outcome)
    assert outcome.good, (outcome.problems, outcome.told)
