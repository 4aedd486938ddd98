"""No pod left: the rule by objects, the wait and the watch against a whole API whose nodes are lost and found again."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from blocks.settings import ClusterSettings, InstallationSettings
from deployments.sandbox.launch import Sandbox
from tasks.cluster.emptying import EmptyingProgress, NoPods, wait_no_pods
from tasks.cluster.planning import Connections
from tasks.cluster.remaining import Leaving, lost_node, over, remaining, settled_at_zero, stays
from tasks.cluster.replica_watch import ReplicaWatch, watch_replicas
from tasks.cluster.scaling import scale
from tasks.cluster.watch import WatchHub
from tasks.domain.component import Component
from tasks.domain.errors import BlockedError, DriftError, RolloutError, StoppedError
from tasks.domain.inventory import DeploymentFacts

Json = dict[str, Any]
MANAGER, WORKER = "apinizercloud/manager:2025.04.3", "apinizercloud/worker:2025.04.3"
RUNS: Json = {"name": "main", "state": {"running": {}}}
ENDED: Json = {"name": "main", "state": {"terminated": {"exitCode": 0}}}


def owned_by(kind: str, uid: str) -> Json:
    return {"ownerReferences": [{"kind": kind, "uid": uid, "controller": True}]}


def pod(
    name: str, image: str = WORKER, owner: Json | None = None, phase: str = "Running", *statuses: Json, **meta: object
) -> Json:
    return {
        "metadata": {"name": name, "uid": name, **(owner or {}), **meta},
        "spec": {"nodeName": "node-a", "containers": [{"name": "main", "image": image}]},
        "status": {"phase": phase, "containerStatuses": list(statuses)},
    }


DEPLOYMENT: Json = {
    "metadata": {"name": "w", "uid": "d", "generation": 4},
    "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "w"}}},
    "status": {"observedGeneration": 4},
}
SETS: list[Json] = [
    {"metadata": {"name": "w-1", "uid": "rs", **owned_by("Deployment", "d")}, "spec": {"replicas": 0}},
    {"metadata": {"name": "o-1", "uid": "other", **owned_by("Deployment", "o")}, "spec": {"replicas": 1}},
]
SET, OTHER = owned_by("ReplicaSet", "rs"), owned_by("ReplicaSet", "other")


@pytest.mark.parametrize(
    ("thing", "component", "counts"),
    [
        (pod("owned", owner=SET), Component.WORKER, True),
        (pod("ending", owner=SET, deletionTimestamp="2026-01-01T00:00:00Z"), Component.WORKER, True),
        (pod("evicted", WORKER, SET, "Failed"), Component.WORKER, False),
        (pod("finished", WORKER, SET, "Succeeded", ENDED), Component.WORKER, False),
        (pod("failed by the collector", WORKER, SET, "Failed", RUNS), Component.WORKER, True),
        (pod("of another", owner=OTHER), Component.WORKER, False),
        (pod("of another, labelled alike", owner=OTHER, labels={"app": "w"}), Component.WORKER, False),
        (pod("its set is gone", owner=owned_by("ReplicaSet", "old"), labels={"app": "w"}), Component.WORKER, True),
        (pod("nobody's, by label", "debian:12", labels={"app": "w"}), Component.WORKER, True),
        (pod("nobody's, by image"), Component.WORKER, True),
        (pod("nobody's, something else", "debian:12"), Component.WORKER, False),
        (pod("a manager of a Job", MANAGER, owned_by("Job", "j")), Component.MANAGER, True),
        (pod("a worker of a Job", WORKER, owned_by("Job", "j")), Component.WORKER, False),
    ],
    ids=lambda value: value["metadata"]["name"] if isinstance(value, dict) else None,
)
def test_which_pods_count(thing: Json, component: Component, counts: bool) -> None:  # noqa: FBT001
    assert [p.name for p in remaining(DEPLOYMENT, component, SETS, [thing])] == [thing["metadata"]["name"]] * counts


def test_what_has_ended_though_its_object_stays_is_known() -> None:
    kept = pod("kept", WORKER, SET, "Running", ENDED, deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["a/b"])
    (left,) = remaining(DEPLOYMENT, Component.WORKER, SETS, [kept])
    assert left.stopped
    assert "has ended for 90 s; its object is kept by the finalizer a/b" in stays(left, 95)
    assert not over(kept)


@pytest.mark.parametrize(
    ("left", "seconds", "text"),
    [
        (Leaving("u", "p", "n", "Running"), 0, "p on n is Running, not asked to end"),
        (Leaving("u", "p", "", "Pending"), 0, "p is Pending, not asked to end"),
        (Leaving("u", "p", "n", "Running", "T", 30), 12, "p on n ends, within 30 s"),
        (
            Leaving("u", "p", "n", "Running", "T", 30),
            47,
            "p on n has been ending for 40 s (grace 30 s, which ended at T)",
        ),
    ],
)
def test_how_a_pod_stands(left: Leaving, seconds: float, text: str) -> None:
    assert stays(left, seconds) == text


@pytest.mark.parametrize(
    ("deployment", "sets", "settled"),
    [
        (DEPLOYMENT, SETS, True),
        ({**DEPLOYMENT, "spec": {"replicas": 1}}, SETS, False),
        ({**DEPLOYMENT, "status": {"observedGeneration": 3}}, SETS, False),
        (DEPLOYMENT, [{**SETS[0], "spec": {"replicas": 1}}], False),
        (DEPLOYMENT, [{**SETS[0], "status": {"replicas": 1}}], False),
    ],
)
def test_when_no_more_pods_are_made(deployment: Json, sets: list[Json], settled: bool) -> None:  # noqa: FBT001
    assert settled_at_zero(deployment, sets) is settled


def test_a_node_of_which_nothing_is_known() -> None:
    def node(status: str) -> Json:
        return {"status": {"conditions": [{"type": "Ready", "status": status, "reason": "R", "message": "M"}]}}

    assert lost_node(node("True")) == ""
    assert lost_node(node("False")) == lost_node(node("Unknown")) == "NotReady (R: M)"
    assert "never reported" in lost_node({"status": {}})
    assert "no longer a node" in lost_node(None)


# ---------------------------------------------------------------- the wait
@pytest.fixture(scope="module")
def one_sandbox() -> Iterator[Sandbox]:
    with Sandbox(speed=8.0) as running:
        yield running


@pytest.fixture
def sandbox(one_sandbox: Sandbox) -> Sandbox:
    """With both nodes, and one pod of the manager."""
    one_sandbox.set_speed(8.0)
    for node in ("node-a", "node-b"):
        one_sandbox.find_node(node)
    api = connect(one_sandbox).apis[""]
    for one in api.list(PODS).items:
        if one["metadata"].get("finalizers"):
            api.patch(f"{PODS}/{one['metadata']['name']}", {"metadata": {"finalizers": None}}, "merge")
    api.patch(f"{DEPLOYMENTS}/manager", {"spec": {"replicas": 1}}, "merge")
    eventually(lambda: [p["status"]["phase"] for p in api.list(PODS).items] == ["Running"])
    return one_sandbox


@pytest.fixture
def own_sandbox() -> Iterator[Sandbox]:
    """For what cannot be put back."""
    with Sandbox(speed=8.0) as running:
        yield running


def connect(sandbox: Sandbox) -> Connections:
    settings = ClusterSettings(kubeconfig_path=str(sandbox.kubeconfig))
    return Connections.open(InstallationSettings(clusters=(settings,)))


def manager_of(connections: Connections) -> DeploymentFacts:
    (found,) = connections.inventory().of(Component.MANAGER)
    return found


@pytest.fixture
def connections(sandbox: Sandbox) -> Connections:
    return connect(sandbox)


@pytest.fixture
def manager(connections: Connections) -> DeploymentFacts:
    return manager_of(connections)


PODS, DEPLOYMENTS = "/api/v1/namespaces/apinizer/pods", "/apis/apps/v1/namespaces/apinizer/deployments"


class Wait(threading.Thread):
    """A wait of its own thread: what it told, and what came of it."""

    def __init__(
        self, connections: Connections, *deployments: DeploymentFacts, seconds: float = 30, **options: Any
    ) -> None:
        super().__init__(daemon=True)
        self.told: list[EmptyingProgress] = []
        self.came: tuple[NoPods, ...] | Exception | None = None
        hubs = {name: WatchHub(api) for name, api in connections.apis.items()}
        self.run = lambda: self._run(hubs, deployments, seconds, options)  # type: ignore[method-assign]
        self.start()

    def _run(self, hubs: Any, deployments: Any, seconds: float, options: Any) -> None:
        try:
            self.came = wait_no_pods(hubs, deployments, deadline_seconds=seconds, progress=self.told.append, **options)
        except Exception as error:  # noqa: BLE001 - it is looked at in the test
            self.came = error

    def result(self) -> tuple[NoPods, ...]:
        self.join(60)
        assert isinstance(self.came, tuple), self.came
        return self.came

    def error(self, kind: type[Exception]) -> Any:
        self.join(60)
        assert isinstance(self.came, kind), self.came
        return self.came


def down(connections: Connections, facts: DeploymentFacts, replicas: int = 0) -> None:
    scale(connections.apis[""], facts.key, facts.uid, replicas, guard=lambda: None)


def names(connections: Connections) -> list[str]:
    return [p["metadata"]["name"] for p in connections.apis[""].list(PODS).items]


def eventually(look: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end
        time.sleep(0.05)


def node_of(connections: Connections) -> str:
    return str(connections.apis[""].list(PODS).items[0]["spec"]["nodeName"])


def test_it_waits_for_pods_and_not_for_counts(
    sandbox: Sandbox, connections: Connections, manager: DeploymentFacts
) -> None:
    before = names(connections)
    sandbox.set_speed(0.2)  # the pod's end takes two seconds
    down(connections, manager)
    wait = Wait(connections, manager)
    (evidence,) = wait.result()
    assert list(evidence.went) == before
    assert names(connections) == []
    assert wait.told[-1].text == "no pod left"
    assert any("1 pod left" in one.text for one in wait.told)
    again = Wait(connections, manager).result()
    assert again[0].went == ()


def test_several_are_waited_for(connections: Connections) -> None:
    both = [d for d in connections.inventory().deployments if d.key.namespace == "prod"]
    for one in both:
        down(connections, one)
    assert [e.key for e in Wait(connections, *both).result()] == [d.key for d in both]
    assert connections.apis[""].list("/api/v1/namespaces/prod/pods").items == []


def test_what_runs_on_a_lost_node_cannot_be_known(
    sandbox: Sandbox, connections: Connections, manager: DeploymentFacts
) -> None:
    node, (name,) = node_of(connections), names(connections)
    sandbox.lose_node(node)
    down(connections, manager)
    error = Wait(connections, manager, node_patience=0.5).error(BlockedError)
    assert f"{node} cannot be asked" in error.happened
    assert "NotReady since" in error.observed
    assert f"Pod {name}" in error.observed
    assert f"kubectl delete pod {name} -n apinizer --force" in error.next
    assert "nothing else was changed" in error.safe
    wait = Wait(connections, manager)
    sandbox.find_node(node)
    assert wait.result()[0].went == (name,)


def test_a_kubelet_that_restarts_is_borne(sandbox: Sandbox, connections: Connections, manager: DeploymentFacts) -> None:
    node = node_of(connections)
    sandbox.lose_node(node)
    down(connections, manager)
    wait = Wait(connections, manager, node_patience=60.0)
    time.sleep(3)
    assert wait.came is None
    sandbox.find_node(node)
    assert wait.result()


def test_an_object_that_vanishes_proves_nothing_of_a_lost_node(
    sandbox: Sandbox, connections: Connections, manager: DeploymentFacts
) -> None:
    sandbox.lose_node(node_of(connections))
    down(connections, manager)
    (name,) = names(connections)
    wait = Wait(connections, manager, node_patience=60.0)
    eventually(lambda: wait.told)
    api = connections.apis[""]
    api.delete(f"{PODS}/{name}", {"gracePeriodSeconds": 0})
    assert "its object was removed meanwhile" in wait.error(BlockedError).observed
    assert Wait(connections, manager).result(), "who removed it by force has been told, and answers for it"


def test_a_node_that_was_taken_out_of_the_cluster(own_sandbox: Sandbox) -> None:
    connections = connect(own_sandbox)
    manager, node = manager_of(connections), node_of(connections)
    own_sandbox.lose_node(node)
    connections.apis[""].delete(f"/api/v1/nodes/{node}")
    down(connections, manager)
    error = Wait(connections, manager, node_patience=60.0).error(BlockedError)
    assert "no longer a node of the cluster" in error.observed


def test_a_pod_that_a_finalizer_keeps_is_told(connections: Connections, manager: DeploymentFacts) -> None:
    api, (name,) = connections.apis[""], names(connections)
    api.patch(f"{PODS}/{name}", {"metadata": {"finalizers": ["example.org/keep"]}}, "merge")
    down(connections, manager)
    error = Wait(connections, manager, seconds=8).error(RolloutError)
    assert "not gone after 8 s" in error.happened
    assert "kept by the finalizer example.org/keep" in error.observed
    api.patch(f"{PODS}/{name}", {"metadata": {"finalizers": None}}, "merge")


def test_one_who_scales_it_up_again_is_noticed(connections: Connections, manager: DeploymentFacts) -> None:
    down(connections, manager)
    down(connections, manager, 2)
    error = Wait(connections, manager).error(DriftError)
    assert "it wants 2 pods again" in error.happened
    assert "last written by apinizer-upgrade at" in error.observed, "who it was"


def test_a_pod_by_hand_counts_until_it_is_gone(connections: Connections, manager: DeploymentFacts) -> None:
    api = connections.apis[""]
    spec = {"containers": [{"name": "m", "image": MANAGER}], "terminationGracePeriodSeconds": 1}
    api.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "by-hand"}, "spec": spec})
    down(connections, manager)
    wait = Wait(connections, manager, seconds=60)
    eventually(lambda: names(connections) == ["by-hand"])
    time.sleep(1)
    assert wait.came is None
    api.delete(f"{PODS}/by-hand")
    assert "by-hand" in wait.result()[0].went


def test_it_ends_when_it_is_told_to(connections: Connections, manager: DeploymentFacts) -> None:
    api, (name,) = connections.apis[""], names(connections)
    api.patch(f"{PODS}/{name}", {"metadata": {"finalizers": ["example.org/keep"]}}, "merge")
    down(connections, manager)
    told = threading.Event()
    wait = Wait(connections, manager, stop=told.is_set)
    told.set()
    assert "wants 0 pods; nothing else was changed" in wait.error(StoppedError).safe


# --------------------------------------------------------------- the watch
def raised(watch: ReplicaWatch) -> DriftError:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            watch.check()
        except DriftError as error:
            return error
        time.sleep(0.02)
    pytest.fail("nothing was seen")


def test_what_was_scaled_up_is_remembered(connections: Connections, manager: DeploymentFacts) -> None:
    with pytest.raises(DriftError, match="changed what was scaled to 0"), watch_replicas(connections, [manager]):
        pytest.fail("it was let in while it has its pods")
    down(connections, manager)
    Wait(connections, manager).result()
    with watch_replicas(connections, [manager]) as watch:
        watch.check()
        down(connections, manager, 2)
        down(connections, manager)  # nobody asked meanwhile
        assert "wants 2 pods" in raised(watch).observed
        with pytest.raises(DriftError):  # it stays so, however often it is asked
            watch.check()


def test_a_deployment_that_is_deleted_is_seen(own_sandbox: Sandbox) -> None:
    connections = connect(own_sandbox)
    manager = manager_of(connections)
    down(connections, manager)
    Wait(connections, manager).result()
    with watch_replicas(connections, [manager]) as watch:
        connections.apis[""].delete(f"{DEPLOYMENTS}/manager")
        assert "was deleted" in raised(watch).observed
