"""Only a whole run that began after the first look, and failed, says that a manager fails for good."""

from collections.abc import Mapping
from typing import Any

import pytest

from tasks.cluster.crash_again import Runs, Standing, failed_again, standing

IMAGES = {"manager": "apinizercloud/manager:2025.08.0"}
WAITS, RUNS_NOW, ENDED = {"waiting": {"reason": "CrashLoopBackOff"}}, {"running": {}}, {"terminated": {"exitCode": 1}}
CASES: list[tuple[str, Mapping[str, Runs], Mapping[str, Runs], bool]] = [
    ("the same crash", {"a": Runs(2)}, {"a": Runs(2)}, False),
    ("started again", {"a": Runs(2)}, {"a": Runs(2, going_on=True)}, False),
    ("failed again", {"a": Runs(2)}, {"a": Runs(3)}, True),
    ("the run of the first look ended", {"a": Runs(2, going_on=True)}, {"a": Runs(3)}, False),
    ("and the next one too", {"a": Runs(2, going_on=True)}, {"a": Runs(4)}, True),
    ("one of two runs", {"a": Runs(2), "b": Runs(2)}, {"a": Runs(3), "b": Runs(2, going_on=True)}, False),
    ("one of two not again", {"a": Runs(2), "b": Runs(2)}, {"a": Runs(3), "b": Runs(2)}, False),
    ("nothing ever began", {"a": Runs()}, {"a": Runs()}, True),
    ("then it began", {"a": Runs()}, {"a": Runs(0, going_on=True)}, False),
    ("a pod that came since", {"a": Runs(5)}, {"b": Runs(1)}, True),
    ("a pod that came since, running", {"a": Runs(5)}, {"b": Runs(0, going_on=True)}, False),
    ("its pods went", {"a": Runs(5)}, {}, False),
    ("none could be made", {}, {}, True),
]


@pytest.mark.parametrize(("first", "now", "failed"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_failed_again(first: Mapping[str, Runs], now: Mapping[str, Runs], failed: bool) -> None:  # noqa: FBT001
    def of(pods: Mapping[str, Runs]) -> Standing:
        return Standing({pod: {"manager": runs} for pod, runs in pods.items()})

    assert failed_again(of(first), of(now)) is failed
    assert not failed_again(of(first), Standing(of(now).runs, serves=True))
    assert not failed_again(of(first), Standing(of(now).runs, changed="its image was changed"))


def test_of_what_no_kubelet_told_nothing_is_known() -> None:
    untold = Standing({"a": {}})
    assert not failed_again(untold, untold)


@pytest.mark.parametrize(
    ("status", "runs"),
    [
        ({"state": WAITS, "restartCount": 0}, Runs()),
        ({"state": RUNS_NOW, "restartCount": 0}, Runs(0, going_on=True)),
        ({"state": ENDED, "restartCount": 0}, Runs(1)),
        ({"state": WAITS, "lastState": ENDED, "restartCount": 0}, Runs(1)),
        ({"state": RUNS_NOW, "lastState": ENDED, "restartCount": 1}, Runs(1, going_on=True)),
        ({"state": WAITS, "lastState": ENDED, "restartCount": 1}, Runs(2)),
    ],
)
def test_the_runs_of_a_container(status: dict[str, Any], runs: Runs) -> None:
    seen = look(status)
    assert seen.runs == {"pod": {"manager": runs}}
    assert seen.at_work is runs.going_on
    assert not seen.serves


def test_another_image_or_no_deployment_is_told() -> None:
    assert look({"state": WAITS}, image="apinizercloud/manager:2025.07.0").changed
    assert standing(None, (), (), IMAGES).changed


def look(status: dict[str, Any], image: str = IMAGES["manager"]) -> Standing:
    template = {"spec": {"containers": [{"name": "manager", "image": image}, {"name": "sidecar", "image": "s"}]}}

    def owned(uid: str, owner: str, **more: Any) -> dict[str, Any]:
        metadata = {"name": uid, "uid": uid, "ownerReferences": [{"uid": owner, "controller": True}]}
        return {"metadata": metadata, **more}

    sidecar = {"name": "sidecar", "state": RUNS_NOW, "restartCount": 0}
    pod = owned(
        "pod",
        "rs",
        spec={**template["spec"], "nodeName": "node-a"},
        status={"phase": "Running", "containerStatuses": [{"name": "manager", **status}, sidecar]},
    )
    deployment = {"metadata": {"name": "manager", "uid": "d"}, "spec": {"template": template}}
    return standing(deployment, [owned("rs", "d", spec={"template": template})], [pod], IMAGES)
