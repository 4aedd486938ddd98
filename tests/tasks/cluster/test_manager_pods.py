"""No manager may run while its database is put back: the rule by a table, the watch against scripted and whole APIs."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import config

from blocks.settings import ClusterSettings, InstallationSettings
from deployments.sandbox.launch import Sandbox
from tasks.cluster.api import KubernetesApi
from tasks.cluster.manager_pods import ManagerWatch, managers_alive, watch_managers
from tasks.cluster.planning import Connections
from tasks.cluster.watch import WatchHub
from tasks.domain.component import Component
from tasks.domain.errors import BlockedError, DriftError, TemporaryError, UpgradeError

CASES = yaml.safe_load(Path(__file__).with_name("manager_alive.yaml").read_text())
MANAGER = "/apis/apps/v1/namespaces/apinizer/deployments"


def _template(image: str) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "main", "image": image}]}}


def _owned(kind: str, owner: str) -> dict[str, Any]:
    return {"ownerReferences": [{"kind": kind, "uid": owner, "controller": True}]} if owner else {}


@pytest.mark.parametrize("case", CASES, ids=[c["case"] for c in CASES])
def test_the_rule(case: dict[str, Any]) -> None:
    given = case.get("deployments", {})
    deployments = [
        {
            "metadata": {"name": name, "uid": name},
            "spec": {"template": _template(d["image"]), **({"replicas": d["replicas"]} if "replicas" in d else {})},
        }
        for name, d in given.items()
    ]
    replicasets = [{"metadata": {"name": f"{n}-rs", "uid": f"{n}-rs", **_owned("Deployment", n)}} for n in given]
    pods = []
    for name, p in case.get("pods", {}).items():
        meta = {"name": name, "uid": name, **_owned("ReplicaSet", f"{p['owner']}-rs" if "owner" in p else "")}
        if p.get("ending"):
            meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        said = [{"name": "main", "state": p["state"]}] if "state" in p else []
        status = {"phase": p["phase"], "containerStatuses": said}
        pods.append({"metadata": meta, **_template(p["image"]), "status": status})
    known = case.get("known", ["api-manager"])
    assert managers_alive(known, deployments, replicasets, pods) == case["told"]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(speed=8.0) as running:
        yield running


@pytest.fixture
def connections(sandbox: Sandbox) -> Connections:
    return Connections.open(InstallationSettings(clusters=(ClusterSettings(kubeconfig_path=str(sandbox.kubeconfig)),)))


def _scale(connections: Connections, replicas: int) -> None:
    api = connections.apis[""]
    name = api.list(MANAGER).items[0]["metadata"]["name"]
    api.patch(f"{MANAGER}/{name}", {"spec": {"replicas": replicas}}, "merge")


def _raised(watch: ManagerWatch, kind: type[UpgradeError], seconds: float = 30.0) -> UpgradeError:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            watch.check()
        except kind as error:
            return error
        time.sleep(0.02)
    pytest.fail(f"no {kind.__name__} within {seconds:.0f} s")


def _gone(connections: Connections) -> None:
    _scale(connections, 0)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if not connections.apis[""].list("/api/v1/namespaces/apinizer/pods").items:
            return
        time.sleep(0.05)
    pytest.fail("the manager's pod did not go")


def test_it_refuses_while_a_manager_runs(connections: Connections) -> None:
    with pytest.raises(BlockedError) as raised, watch_managers(connections):
        pytest.fail("it was let in")
    assert "Running" in raised.value.observed
    assert "kubectl scale deployment" in raised.value.next
    assert "-n apinizer --replicas=0" in raised.value.next


def test_it_sees_a_manager_that_appears(connections: Connections) -> None:
    _gone(connections)
    with watch_managers(connections) as watch:
        watch.check()
        _scale(connections, 1)
        error = _raised(watch, DriftError)
        assert "wants 1 pod" in error.observed or "pod " in error.observed
        with pytest.raises(DriftError):  # it stays refused, however often it is asked
            watch.check()


def test_it_remembers_a_manager_that_came_and_went(connections: Connections) -> None:
    _gone(connections)
    with watch_managers(connections) as watch:
        _scale(connections, 1)
        end = time.monotonic() + 30
        while not connections.apis[""].list("/api/v1/namespaces/apinizer/pods").items and time.monotonic() < end:
            time.sleep(0.05)
        _gone(connections)  # nobody asked the watch meanwhile
        assert "wants 1 pod" in _raised(watch, DriftError).observed


def test_it_sees_a_pod_that_somebody_starts_by_hand(connections: Connections) -> None:
    _gone(connections)
    pod = {"metadata": {"name": "by-hand"}, "spec": _template("apinizercloud/manager:2025.07.0")["spec"]}
    with watch_managers(connections) as watch:
        connections.apis[""].create("/api/v1/namespaces/apinizer/pods", {"apiVersion": "v1", "kind": "Pod", **pod})
        assert "by-hand" in _raised(watch, DriftError).observed


def test_a_manager_that_came_and_went_while_the_cluster_was_silent(
    sandbox: Sandbox, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    _gone(connections)
    with watch_managers(connections) as watch:
        (view,) = watch._views.values()
        silent = dict.fromkeys(("objects", "deployments"), view.objects("deployments"))
        monkeypatch.setattr(view, "trouble", lambda: "no route")
        monkeypatch.setattr(view, "objects", lambda kind: silent["deployments"] if kind == "deployments" else ())
        later = time.monotonic() + 100
        watch._clock = lambda: later
        time.sleep(1.2)
        _scale(connections, 1)
        _gone(connections)
        watch._clock = lambda: later + 9
        monkeypatch.undo()
        assert "while the cluster did not answer" in _raised(watch, DriftError).observed


def test_a_cluster_that_is_away_for_a_moment_is_borne_and_for_longer_not(
    sandbox: Sandbox, connections: Connections
) -> None:
    _gone(connections)
    managers = connections.inventory().of(Component.MANAGER)
    now = [0.0]
    hub = WatchHub(KubernetesApi(config.new_client_from_config(str(sandbox.kubeconfig))), server_seconds=5)
    with ManagerWatch({"": hub}, managers, patience=8.0, clock=lambda: now[0]) as watch:
        sandbox.api_down(2)
        end = time.monotonic() + 20
        while not watch._deaf_since and time.monotonic() < end:
            now[0] += 0.001
            watch.check()
            time.sleep(0.02)
        now[0] += 7.9
        watch.check()
        now[0] += 0.2
        with pytest.raises(TemporaryError, match="cannot be asked"):
            watch.check()
        end = time.monotonic() + 30
        while time.monotonic() < end:  # it is heard again
            try:
                watch.check()
                break
            except TemporaryError:
                time.sleep(0.05)
        watch.check()
        now[0] += 100
        watch.check()
