"""Whole rollouts against the sandbox's API: controllers, kubelet and scheduler that are not this test's."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from kubernetes import config

from deployments.sandbox.launch import Sandbox
from tasks.cluster import verdict
from tasks.cluster.api import KubernetesApi
from tasks.cluster.image_change import set_images
from tasks.cluster.pod_log import RolloutLog
from tasks.cluster.retry import Retry
from tasks.cluster.rollout import wait_ready
from tasks.cluster.verification import verify
from tasks.cluster.watch import WatchHub
from tasks.domain.component import Component, component_of, repositories
from tasks.domain.errors import ForbiddenError, RolloutError, UnprovenError
from tasks.domain.inventory import DeploymentKey
from tasks.domain.reference import ImageReference
from tasks.domain.step import ImageChange, RolloutStep
from tasks.domain.version import Version

NEW = Version("2025.07.0")
SPEED = 4.0


@pytest.fixture(scope="module")
def one_sandbox():
    with Sandbox(speed=SPEED) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox():
    """One of its own, for a test that leaves it changed."""
    with Sandbox(speed=SPEED) as sandbox:
        yield sandbox


def connect(sandbox: Sandbox) -> KubernetesApi:
    return KubernetesApi(config.new_client_from_config(str(sandbox.kubeconfig)))


def steps(api: KubernetesApi, version: Version = NEW) -> list[RolloutStep]:
    found = []
    for deployment in api.list("/apis/apps/v1/deployments").items:
        meta, spec = deployment["metadata"], deployment["spec"]
        changes, component = [], None
        for container in spec["template"]["spec"]["containers"]:
            reference = ImageReference.parse(container["image"])
            component = component_of(reference.repository) or component
            if component_of(reference.repository):
                new = reference.with_tag(repositories(component, version)[0], version.text)
                changes.append(ImageChange(container=container["name"], old=container["image"], new=str(new)))
        found.append(
            RolloutStep(
                key=DeploymentKey(cluster="", namespace=meta["namespace"], name=meta["name"]),
                uid=meta["uid"],
                resource_version=meta["resourceVersion"],
                component=component,
                changes=tuple(changes),
                replicas=spec["replicas"],
            )
        )
    return found


def of(plan: list[RolloutStep], component: Component, namespace: str = "") -> RolloutStep:
    return next(s for s in plan if s.component is component and namespace in ("", s.key.namespace))


def roll(hub: WatchHub, step: RolloutStep, **options) -> None:
    set_images(hub.api, step, "test")
    wait_ready(hub, step, **({"deadline_seconds": 90.0} | options))


def test_the_whole_installation_all_at_once_through_every_trouble(sandbox) -> None:
    """The manager with its log; then six waits at once, while watches break, expire, and the server goes away."""
    api = connect(sandbox)
    hub = WatchHub(api, server_seconds=5, idle_margin=3.0)
    plan = steps(api)
    manager = of(plan, Component.MANAGER)
    heard: list[str] = []
    with RolloutLog(hub, manager, lambda _, line: heard.append(line)):
        roll(hub, manager)
    assert any("migrating the database" in line for line in heard), heard
    assert verify(api, manager.key, manager.uid, manager.component, NEW)[0].version == "2025.07.0"

    sandbox.faults(break_watches_after=3, gone_as_event=2)
    sandbox.fail_requests(code=503, path=".*", count=3, probability=1, retry_after=1)
    others = [step for step in plan if step.component is not Component.MANAGER]
    assert len(others) == 6
    with ThreadPoolExecutor(6) as pool:
        waits = [pool.submit(roll, hub, step) for step in others]
        sandbox.api_down(2)
        sandbox.compact()
        for wait in waits:
            wait.result(120)
    for step in others:
        answers = verify(api, step.key, step.uid, step.component, NEW)
        assert len(answers) == step.replicas
    with pytest.raises(UnprovenError, match=r"answers 2025\.07\.0, not 2025\.11\.1"):
        verify(api, manager.key, manager.uid, manager.component, Version("2025.11.1"), retry=Retry(0))


def test_the_wrong_order_crashes_and_is_told_as_such(sandbox) -> None:
    api = connect(sandbox)
    step = of(steps(api), Component.WORKER, "test")
    with pytest.raises(RolloutError, match="crashes again and again") as caught:
        roll(WatchHub(api), step)
    assert "update the manager first" in caught.value.observed
    assert "bring the manager to it first" in caught.value.next


def test_a_missing_image_names_the_node(sandbox, monkeypatch) -> None:
    monkeypatch.setattr(verdict, "PULL_GRACE", 3.0)
    sandbox.lose_image("apinizercloud/manager:2025.07.0", "node-a")
    sandbox.lose_image("apinizercloud/manager:2025.07.0", "node-b")
    sandbox.faults(unreachable_registries=["*"])
    api = connect(sandbox)
    with pytest.raises(RolloutError, match="cannot get image apinizercloud/manager") as caught:
        roll(WatchHub(api), of(steps(api), Component.MANAGER))
    assert "on node node-" in caught.value.happened
    assert "ctr -n k8s.io images import" in caught.value.next


def test_half_open_watches_are_found(sandbox) -> None:
    api = connect(sandbox)
    hub = WatchHub(api, server_seconds=2, idle_margin=1.0)
    sandbox.faults(half_open_watches=True)
    with ThreadPoolExecutor(1) as pool:
        wait = pool.submit(roll, hub, of(steps(api), Component.MANAGER))
        assert wait.result(90) is None


def test_a_restricted_user_is_told_what_is_missing(one_sandbox, tmp_path) -> None:
    rules = [
        {"apiGroups": ["apps"], "resources": ["deployments", "replicasets"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
    ]
    one_sandbox.restricted_kubeconfig(tmp_path / "config", "reader", "prod", rules)
    api = KubernetesApi(config.new_client_from_config(str(tmp_path / "config")))
    step = of(steps(connect(one_sandbox)), Component.WORKER, "prod")
    with pytest.raises(ForbiddenError, match="kubectl auth can-i patch deployments"):
        set_images(api, step)
    same = step.model_copy(update={"changes": ()})
    with pytest.raises(ForbiddenError, match="kubectl auth can-i list pods --namespace prod"):
        wait_ready(WatchHub(api), same, deadline_seconds=30)
