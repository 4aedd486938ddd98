"""The verdict by tables: objects in, verdict out (verdicts/*.yaml)."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.cluster.rollout_view import matches, select
from tasks.cluster.verdict import Wanted, judge, remember, stale_evidence
from tasks.domain.discovery import selector_text

FOLDER = Path(__file__).parent / "verdicts"
BASES = yaml.safe_load((FOLDER / "bases.yaml").read_text())
CASES = [
    pytest.param(case, id=f"{path.stem}: {case['name']}")
    for path in sorted(FOLDER.glob("*.yaml"))
    if path.stem != "bases"
    for case in yaml.safe_load(path.read_text())
]
NOW = 10_000.0


def merged(base: Any, patch: Any) -> Any:
    """RFC 7386, but for a list of named things: those merge by name."""
    if isinstance(base, list) and isinstance(patch, list) and all("name" in x for x in [*base, *patch]):
        by_name = {x["name"]: x for x in base}
        return [*(by_name | {x["name"]: x for x in patch}).values()]
    if not isinstance(patch, dict):
        return patch
    result = dict(base) if isinstance(base, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = value if key == "ownerReferences" else merged(result.get(key), value)
    return result


def made(kind: str, item: dict[str, Any]) -> dict[str, Any]:
    base = copy.deepcopy(BASES[kind].get(item.get("use"), {}))
    if kind == "pods":
        of = item.get("of", "new")
        template = BASES["template-new" if of == "new" else "template-old"]
        labels = {"app": "gw", "pod-template-hash": of}
        owner = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "name": f"gw-{of}",
            "uid": f"rs-{of}",
            "controller": True,
        }
        base = {
            "metadata": {
                "name": item["name"],
                "uid": f"p-{item['name']}",
                "labels": labels,
                "ownerReferences": [owner],
            },
            "spec": {**copy.deepcopy(template["spec"]), "nodeName": "node-a"},
            **base,
        }
    if kind == "replicasets":  # the controller adds the hash to the template's labels
        base["spec"]["template"]["metadata"]["labels"]["pod-template-hash"] = "7d"
    return merged(base, item.get("patch", {}))


@pytest.mark.parametrize("case", CASES)
def test_verdict(case: dict[str, Any]) -> None:
    deployment = made("deployments", case["deployment"]) if case["deployment"] else None
    view = select(
        deployment,
        [made("replicasets", item) for item in case["replicasets"]],
        [made("pods", item) for item in case["pods"]],
    )
    asked = {"uid": "d-1", "generation": 5, "images": {"gateway": "nexus.local:5000/apinizercloud/worker:2025.07.0"}}
    wanted = Wanted(**(asked | case.get("wanted", {})))
    seen = remember(remember({}, view, NOW - case.get("since", 0)), view, NOW)
    verdict = judge(view, wanted, NOW, seen)
    expect = case["expect"]
    assert verdict.state == expect["state"], verdict
    assert verdict.message
    if "reason" in expect:
        assert verdict.reason == expect["reason"], verdict
    for field, value in expect.get("counts", {}).items():
        assert getattr(verdict.counts, field) == value, field
    for field, value in expect.get("trouble", {}).items():
        assert getattr(verdict.trouble, field) == value, field
    for name, state in expect.get("pod", {}).items():
        assert {line.name: line.state for line in verdict.pods}[name] == state
    if "wakes" in expect:
        assert verdict.wake == NOW + expect["wakes"]


def test_a_pull_trouble_is_remembered_through_the_moment_of_a_try_and_forgotten_when_the_container_starts() -> None:
    def seen_with(use: str, reason: str, memory: dict[str, float], now: float) -> dict[str, float]:
        status = {"name": "gateway", "ready": False, "restartCount": 0, "state": {"waiting": {"reason": reason}}}
        pod = made(
            "pods", {"use": use, "name": "a", "patch": {"status": {"containerStatuses": [status]}} if reason else {}}
        )
        view = select(made("deployments", {"use": "rolling"}), [made("replicasets", {"use": "new"})], [pod])
        return remember(memory, view, now)

    memory = seen_with("pending", "ErrImagePull", {}, 100.0)
    assert list(memory.values()) == [100.0]
    memory = seen_with("pending", "ContainerCreating", memory, 105.0)
    memory = seen_with("pending", "ImagePullBackOff", memory, 110.0)
    assert list(memory.values()) == [100.0]
    assert seen_with("ready", "", memory, 112.0) == {}


def test_selectors() -> None:
    selector = {
        "matchLabels": {"app": "gw"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]},
            {"key": "old", "operator": "DoesNotExist"},
            {"key": "env", "operator": "NotIn", "values": ["x"]},
            {"key": "team", "operator": "Exists"},
        ],
    }
    good = {"app": "gw", "tier": "a", "team": "t"}
    assert matches(selector, good)
    for bad in ({"app": "x"}, {"tier": "c"}, {"old": "1"}, {"env": "x"}):
        assert not matches(selector, good | bad)
    assert not matches(selector, {"app": "gw", "tier": "a"})
    assert not matches({}, good)
    assert selector_text(selector) == "app=gw,tier in (a,b),!old,env notin (x),team"


def crashing(restarts: int) -> Any:
    status = {
        "name": "gateway",
        "ready": False,
        "restartCount": restarts,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 1}},
    }
    pod = made("pods", {"use": "booting", "name": "a", "patch": {"status": {"containerStatuses": [status]}}})
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    deployment = made("deployments", {"use": "rolling", "patch": {"status": {"conditions": [late]}}})
    return select(deployment, [made("replicasets", {"use": "new"})], [pod])


@pytest.mark.parametrize(
    ("restarts_now", "seconds", "state"),
    [(4, 0, "progressing"), (4, 329, "progressing"), (4, 330, "hopeless"), (5, 0, "hopeless")],
)
def test_what_a_former_run_left_in_trouble_is_given_the_kubelets_next_try(
    restarts_now: int, seconds: int, state: str
) -> None:
    before = crashing(4)
    images = {"gateway": "nexus.local:5000/apinizercloud/worker:2025.07.0"}
    wanted = Wanted("d-1", 5, images, stale=stale_evidence(before))
    view = crashing(restarts_now)
    memory = remember(remember({}, before, NOW - seconds), view, NOW)
    assert judge(view, wanted, NOW, memory).state == state
    assert judge(view, Wanted("d-1", 5, images), NOW, memory).state == "hopeless"
