"""Whether the new manager ever started, by a table of objects (starts/cases.yaml) and against the sandbox's controllers."""

import copy
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import config

from deployments.sandbox.launch import Sandbox
from tasks.cluster.api import KubernetesApi
from tasks.cluster.manager_sight import KINDS, sight_of
from tasks.cluster.never_started import Sight, never_started, so_far
from tasks.cluster.pod_state import ready
from tasks.cluster.watch import View, WatchHub
from tasks.domain.inventory import DeploymentKey
from tasks.domain.journal import Before, Entry

CASES = yaml.safe_load((Path(__file__).parent / "starts" / "cases.yaml").read_text())
KNOWN = {
    "name",
    "entries",
    "unmade",
    "no_before",
    "images",
    "replicas",
    "before",
    "after",
    "so_far",
    "unchanged",
    "why",
}
OLD, NEW, PROXY = "apinizercloud/manager:2025.04.3", "apinizercloud/manager:2025.08.0", "istio/proxyv2:1.20.1"
BORN = "2026-11-22T10:00:00Z"


def template(image: str) -> dict[str, Any]:
    return {
        "metadata": {"labels": {"app": "m"}},
        "spec": {"containers": [{"name": "manager", "image": image}, {"name": "proxy", "image": PROXY}]},
    }


def deployment(image: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "m", "namespace": "apinizer", "uid": "d-1", "generation": 6},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "m"}},
            "strategy": {"type": "RollingUpdate"},
            "template": template(image),
        },
        "status": {"observedGeneration": 6},
    }


def owned(kind: str, name: str, uid: str) -> list[dict[str, Any]]:
    return [{"kind": kind, "name": name, "uid": uid, "controller": True}]


def replicaset(which: str) -> dict[str, Any]:
    found = template(NEW if which == "new" else OLD)
    found["metadata"]["labels"]["pod-template-hash"] = which
    return {
        "metadata": {
            "name": f"m-{which}",
            "uid": f"rs-{which}",
            "generation": 1,
            "creationTimestamp": BORN if which == "new" else "2026-10-01T08:00:00Z",
            "ownerReferences": owned("Deployment", "m", "d-1"),
        },
        "spec": {"replicas": 1, "template": found},
        "status": {},
    }


def pod(which: str) -> dict[str, Any]:
    def status(name: str) -> dict[str, Any]:
        return {
            "name": name,
            "restartCount": 0,
            "imageID": "",
            "state": {"waiting": {"reason": "ImagePullBackOff"}},
            "lastState": {},
        }

    return {
        "metadata": {
            "name": f"m-{which}-a",
            "uid": f"p-{which}",
            "creationTimestamp": BORN,
            "labels": {"app": "m", "pod-template-hash": which},
            "ownerReferences": owned("ReplicaSet", f"m-{which}", f"rs-{which}"),
        },
        "spec": {"nodeName": "node-a", **template(NEW if which == "new" else OLD)["spec"]},
        "status": {"phase": "Pending", "containerStatuses": [status("manager"), status("proxy")]},
    }


def merged(base: Any, patch: Any) -> Any:
    """RFC 7386, but for a list of named things: those merge by name."""
    if isinstance(base, list) and isinstance(patch, list) and patch and all("name" in x for x in [*base, *patch]):
        ours = {x["name"]: x for x in base}
        return [*(ours | {x["name"]: merged(ours.get(x["name"], {}), x) for x in patch}).values()]
    if not isinstance(patch, dict):
        return patch
    result = dict(base) if isinstance(base, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif key != "use":
            result[key] = merged(result.get(key), value)
    return result


def pods_of(patches: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    return tuple(merged(pod("old" if patch.get("use") == "old" else "new"), patch) for patch in patches)


def before_of(case: dict[str, Any]) -> Sight:
    said = case.get("before", {})
    image = OLD if case.get("images") == "old" else NEW
    now = merged(deployment(image), said.get("deployment", {})) if said.get("deployment", {}) is not None else None
    new = merged(replicaset("new"), said.get("replicaset", {})) if said.get("replicaset", {}) is not None else None
    return Sight(now, tuple(filter(None, (replicaset("old"), new))), pods_of(said.get("pods", [{}])))


def after_of(case: dict[str, Any], before: Sight) -> Sight:
    """At zero: the Deployment and the new ReplicaSet written once more where they were above it; the pods gone."""
    said = case.get("after", {})

    def zero(thing: dict[str, Any] | None) -> dict[str, Any] | None:
        if thing is None:
            return None
        found = copy.deepcopy(thing)
        found["metadata"]["generation"] += 1 if found["spec"]["replicas"] else 0
        found["spec"]["replicas"] = 0
        found["status"].pop("conditions", None)
        return found

    now = zero(before.deployment)
    now = merged(now, said.get("deployment", {})) if now and said.get("deployment", {}) is not None else None
    new = zero(next((rs for rs in before.replicasets if rs["metadata"]["name"] == "m-new"), None))
    if "replicaset" in said:
        new = merged(new or replicaset("new"), said["replicaset"])
    gone = [merged(p, {"metadata": {"deletionTimestamp": "2026-11-22T10:05:00Z"}}) for p in before.pods]
    if "gone" in said:
        patches = said["gone"]
        gone = [
            merged(pod("new"), patch) if "use" in patch else merged(gone[i], patch) for i, patch in enumerate(patches)
        ]
    return Sight(now, tuple(filter(None, (new,))), pods_of(said.get("pods", [])), tuple(gone), said.get("lists", 1))


def entries_of(case: dict[str, Any]) -> list[Entry]:
    images = {"manager": OLD, "proxy": PROXY}
    before = Before(uid="d-1", generation=5, replicas=case.get("replicas", 1), images=images)
    entry = Entry(
        kind="set-image",
        subject="apinizer/m",
        key=DeploymentKey(cluster="", namespace="apinizer", name="m"),
        will="",
        undo="",
        before=None if case.get("no_before") else before,
        images={"manager": NEW},
        begun=datetime(2026, 11, 22, 10, tzinfo=UTC),
        unmade=case.get("unmade", False),
    )
    return [entry] if case.get("entries", True) else []


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in CASES])
def test_whether_the_new_manager_ever_started(case: dict[str, Any]) -> None:
    assert case.keys() <= KNOWN
    before = before_of(case)
    first = so_far(entries_of(case), before)
    found = never_started(entries_of(case), before, after_of(case, before))
    assert found.unchanged is case["unchanged"], found.why
    assert first.unchanged is case.get("so_far", case["unchanged"]), first.why
    assert found.why.endswith(".")
    assert case.get("why", "") in found.why


@pytest.fixture(scope="module")
def api() -> Iterator[KubernetesApi]:
    with Sandbox(speed=8.0) as sandbox:
        yield KubernetesApi(config.new_client_from_config(str(sandbox.kubeconfig)))


def upgraded_and_scaled_down(
    api: KubernetesApi, image: str, reached: Callable[[Sight], bool]
) -> tuple[bool, bool, str]:
    """Set the manager's image, go on until `reached`, scale to zero, wait for the last pod: so far, in the end, why."""
    path = "/apis/apps/v1/namespaces/apinizer/deployments/manager"
    manager = api.get(path)
    images = {c["name"]: c["image"] for c in manager["spec"]["template"]["spec"]["containers"]}
    main = next(name for name, image in images.items() if "manager" in image)
    meta = manager["metadata"]
    key = DeploymentKey(cluster="", namespace="apinizer", name="manager")
    entry = Entry(
        kind="set-image",
        subject=str(key),
        key=key,
        will="",
        undo="",
        before=Before(uid=meta["uid"], generation=meta["generation"], replicas=1, images=images),
        images={main: image},
        begun=datetime.now(UTC),
    )
    with WatchHub(api).view("apinizer", KINDS) as view:
        api.patch(path, {"spec": {"template": {"spec": {"containers": [{"name": main, "image": image}]}}}})
        before = until(view, meta["uid"], reached)
        api.patch(path, {"spec": {"replicas": 0}})
        after = until(view, meta["uid"], lambda sight: not managers(sight) and generation(sight) > generation(before))
        first, found = so_far([entry], before), never_started([entry], before, after)
        api.patch(
            path,
            {"spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": main, "image": images[main]}]}}}},
        )
        until(view, meta["uid"], lambda sight: any(ready(pod) for pod in managers(sight)))
    return first.unchanged, found.unchanged, found.why


def generation(sight: Sight) -> int:
    return int(sight.deployment["metadata"]["generation"]) if sight.deployment else 0


def managers(sight: Sight) -> list[dict[str, Any]]:
    return [p for p in sight.pods if any("manager" in c["image"] for c in p["spec"]["containers"])]


def until(view: View, uid: str, reached: Callable[[Sight], bool]) -> Sight:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        version = view.version
        if view.synced() and reached(sight := sight_of(view, uid)):
            return sight
        view.wait(version, 1.0)
    raise AssertionError("it did not come to that")


def states(sight: Sight) -> set[str]:
    return {
        str(next(iter(status["state"].values()), {}).get("reason") or next(iter(status["state"]), ""))
        for pod in managers(sight)
        for status in pod["status"].get("containerStatuses") or ()
    }


def test_on_a_cluster_an_image_that_cannot_be_pulled_never_started(api: KubernetesApi) -> None:
    found = upgraded_and_scaled_down(
        api, "apinizercloud/manager:2025.99.0", lambda sight: bool(states(sight) & {"ErrImagePull", "ImagePullBackOff"})
    )
    assert found[:2] == (True, True), found
    assert "was ever made" in found[2]


def test_on_a_cluster_a_manager_that_ran_for_a_moment_did_start(api: KubernetesApi) -> None:
    new = "apinizercloud/manager:2025.07.0"

    def runs(sight: Sight) -> bool:
        mine = [p for p in managers(sight) if any(c["image"] == new for c in p["spec"]["containers"])]
        return any("running" in s["state"] for p in mine for s in p["status"].get("containerStatuses") or ())

    found = upgraded_and_scaled_down(api, new, runs)
    assert found[:2] == (False, False), found
