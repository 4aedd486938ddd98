"""Pruning against a cluster (the sandbox) and nodes that are dictionaries: who uses an image is asked of everybody."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from blocks.settings import ClusterSettings, InstallationSettings
from deployments.sandbox.launch import Sandbox
from tasks.cluster.planning import Connections
from tasks.database.catalogue import Backup
from tasks.domain.errors import BlockedError, ForbiddenError, TemporaryError, UnprovenError, UpgradeError
from tasks.domain.placement import NodeFacts
from tasks.images import pruning
from tasks.images.prune import Verdict
from tasks.images.pruning import NodeLook, all_nodes, judge, look_at_nodes, remove
from tasks.images.remote import Host, Remote
from tests.flows.world import OLD, World
from tests.tasks.images.containerd.standin import Store, wrapper
from tests.tasks.images.prune.shelves import FOLDER, Shelf, shelved, worker

Json = dict[str, Any]
OLDEST, OLDER, BEFORE = "2024.01.6", "2024.05.0", "2025.01.0"
HERE = (OLDEST, OLDER, BEFORE, OLD)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(version=OLD, speed=10.0) as running:
        yield running


@pytest.fixture
def world(sandbox: Sandbox) -> World:
    return World(sandbox)


@pytest.fixture
def shelves() -> Iterator[dict[str, Shelf]]:
    """Both nodes, each with four releases of the worker."""
    with shelved(("node-a", "node-b")) as found:
        for shelf in found.values():
            shelf.put(*map(worker, HERE))
        yield found


def connections(kubeconfig: Path, *namespaces: str) -> Connections:
    cluster = ClusterSettings(kubeconfig_path=str(kubeconfig), namespaces=namespaces)
    return Connections.open(InstallationSettings(clusters=(cluster,)))


def looked(to: Connections) -> tuple[NodeLook, ...]:
    return look_at_nodes(to.settings.images, all_nodes(to))


def judged(to: Connections, backups: Sequence[Backup] = (), keep: int = 0) -> dict[str, tuple[Verdict, ...]]:
    return dict(judge(to, looked(to), backups, keep))


def stays(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """Why each version stays that does."""
    return {str(v.version): v.why for v in verdicts if not v.goes}


@contextmanager
def there(world: World, path: str, thing: Json) -> Iterator[None]:
    """An object of somebody's, for a while."""
    status, answer = world.ask("POST", path, thing)
    assert status == 201, answer
    try:
        yield
    finally:
        world.ask("DELETE", f"{path}/{thing['metadata']['name']}")


def pod(version: str, kind: str = "containers") -> tuple[str, Json]:
    containers: Json = {"containers": [{"name": "own", "image": "busybox:1"}]}
    containers[kind] = [*containers.get(kind, []), {"name": "c", "image": f"apinizercloud/worker:{version}"}]
    return "/api/v1/namespaces/default/pods", {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "somebody"},
        "spec": {"nodeName": "node-a", **containers},
    }


def maker(kind: str, version: str, owner: Json | None = None, replicas: int = 0) -> tuple[str, Json]:
    labels, space = {"app": "somebody"}, "test" if owner else "default"
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "worker", "image": f"apinizercloud/worker:{version}"}]},
    }
    return f"/apis/apps/v1/namespaces/{space}/{kind.lower()}s", {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "somebody", **({"ownerReferences": [owner]} if owner else {})},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": template,
            **({} if kind == "DaemonSet" else {"replicas": replicas}),
        },
    }


def history(world: World, version: str, revision: int) -> tuple[str, Json]:
    """What a Deployment of the installation was before."""
    deployment = world.deployments()["test/worker"]
    uid = deployment["metadata"]["uid"]
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "worker", "uid": uid, "controller": True}
    path, thing = maker("ReplicaSet", version, owner)
    name = deployment["spec"]["template"]["spec"]["containers"][0]["name"]
    thing["spec"]["template"]["spec"]["containers"][0]["name"] = name
    thing["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": str(revision)}
    thing["metadata"]["name"] = f"worker-{revision}"
    return path, thing


def test_what_nobody_uses_goes_and_what_is_shown_is_removed(sandbox: Sandbox, shelves: dict[str, Shelf]) -> None:
    to = connections(sandbox.kubeconfig)
    looks = looked(to)
    verdicts = judge(to, looks, (), 0)
    for look in looks:
        assert stays(verdicts[look.key]).keys() == {BEFORE, OLD}, "the release before the present one is the way back"
        done = remove(to.settings.images, look, verdicts[look.key])
        assert set(done.names) == {worker(OLDEST), worker(OLDER)}
        assert (done.error, done.freed) == (None, 2000)
    assert all(shelf.versions == {BEFORE, OLD} for shelf in shelves.values())
    assert stays(judged(to, keep=1)["node-a"]).keys() == {BEFORE, OLD}


@pytest.mark.parametrize(
    ("thing", "why"),
    [
        pytest.param(pod(OLDEST), "the pod default/somebody uses it", id="pod"),
        pytest.param(pod(OLDEST, "initContainers"), "the pod default/somebody uses it", id="its init container"),
        pytest.param(maker("StatefulSet", OLDEST), "default/somebody names it", id="StatefulSet without pods"),
        pytest.param(maker("DaemonSet", OLDEST), "default/somebody names it", id="DaemonSet"),
        pytest.param(maker("ReplicaSet", OLDEST, replicas=1), "default/somebody", id="ReplicaSet that makes pods"),
        pytest.param(maker("ReplicaSet", OLDEST), "default/somebody names it", id="somebody's ReplicaSet without pods"),
    ],
)
def test_what_somebody_in_the_cluster_uses_stays_on_every_node(
    sandbox: Sandbox, world: World, shelves: dict[str, Shelf], thing: tuple[str, Json], why: str
) -> None:
    with there(world, *thing):
        found = judged(connections(sandbox.kubeconfig))
    assert found.keys() == shelves.keys()
    for verdicts in found.values():
        assert stays(verdicts).keys() == {OLDEST, BEFORE, OLD}
        assert why in stays(verdicts)[OLDEST]


def test_a_history_that_no_pod_is_left_of_does_not_hold_an_image(
    sandbox: Sandbox, world: World, shelves: dict[str, Shelf]
) -> None:
    path, last = history(world, OLDER, 2)
    with there(world, path, last), there(world, *history(world, OLDEST, 1)):
        assert stays(judged(connections(sandbox.kubeconfig))["node-a"]).keys() == {OLDER, OLD}


def test_what_a_container_on_a_node_was_made_from_stays_whoever_made_it(
    sandbox: Sandbox, shelves: dict[str, Shelf]
) -> None:
    shelves["node-b"].containers = ["apinizercloud/worker:" + OLDER, shelves["node-b"].images_by_name[worker(OLDEST)]]
    for verdicts in judged(connections(sandbox.kubeconfig)).values():
        assert stays(verdicts).keys() == set(HERE)
        assert "a container on the node" in stays(verdicts)[OLDER]
        assert "a container on the node" in stays(verdicts)[OLDEST]


def test_what_a_way_back_needs_stays(sandbox: Sandbox, world: World, shelves: dict[str, Shelf]) -> None:
    path, thing = history(world, OLDEST, 1)
    backup = Backup(
        archive=Path(f"apinizer-backup--{OLDER}.archive"), version=OLDER, taken=datetime(2026, 1, 1, tzinfo=UTC),
        size=1, manifest=None, proved=True, problem="",
    )  # fmt: skip
    with there(world, path, thing):
        found = stays(judged(connections(sandbox.kubeconfig), [backup])["node-a"])
    assert found.keys() == {OLDEST, OLDER, OLD}
    assert "test/worker had it before" in found[OLDEST]
    assert "backup" in found[OLDER]


def test_an_installation_beside_the_one_of_the_settings_counts(
    sandbox: Sandbox, world: World, shelves: dict[str, Shelf]
) -> None:
    """On the same nodes, at an older release: what lies between may be on its way up, and its own is in use."""
    to = connections(sandbox.kubeconfig, "apinizer", "test", "prod")
    assert OLDEST not in stays(judged(to)["node-a"])
    with there(world, *maker("Deployment", OLDEST)):
        assert stays(judged(to)["node-a"]).keys() == set(HERE)


@pytest.mark.parametrize("hidden", ["pods", "statefulsets", "daemonsets", "replicasets", "deployments"])
def test_who_may_not_see_everything_judges_nothing(
    sandbox: Sandbox, shelves: dict[str, Shelf], tmp_path: Path, hidden: str
) -> None:
    kinds = {
        "pods": "",
        "nodes": "",
        "namespaces": "",
        "statefulsets": "apps",
        "daemonsets": "apps",
        "replicasets": "apps",
    }
    kinds |= {"deployments": "apps"}
    rules = [{"apiGroups": [g], "resources": [k], "verbs": ["get", "list"]} for k, g in kinds.items() if k != hidden]
    to = connections(sandbox.restricted_kubeconfig(tmp_path / "k", f"no-{hidden}", "", rules))
    looks = looked(to)
    with pytest.raises(ForbiddenError, match=hidden):
        judge(to, looks, (), 0)


def test_a_node_that_cannot_be_asked_is_told_and_left_alone(sandbox: Sandbox, shelves: dict[str, Shelf]) -> None:
    shelves["node-a"].refuse = TemporaryError("node-a does not answer.")
    to = connections(sandbox.kubeconfig)
    a, b = looked(to)
    assert (a.error, b.error) == (shelves["node-a"].refuse, None)
    assert judge(to, (a, b), (), 0).keys() == {"node-b"}


def removing(sandbox: Sandbox) -> Callable[[], Any]:
    """Judges now; what it gives back removes from node-a what may go, later."""
    to = connections(sandbox.kubeconfig)
    look = looked(to)[0]
    verdicts = judge(to, (look,), (), 0)[look.key]
    return lambda: remove(to.settings.images, look, verdicts)


def test_a_name_that_is_there_after_its_removal_is_told(sandbox: Sandbox, shelves: dict[str, Shelf]) -> None:
    shelves["node-a"].sticky = frozenset({worker(OLDEST)})
    done = removing(sandbox)()
    assert done.names == (worker(OLDER),)
    assert isinstance(done.error, UnprovenError)
    assert worker(OLDEST) in done.error.observed


def test_a_node_that_breaks_while_it_removes_is_told(sandbox: Sandbox, shelves: dict[str, Shelf]) -> None:
    act = removing(sandbox)
    shelves["node-a"].refuse = broken = UpgradeError("ctr on node-a could not remove images.")
    done = act()
    assert done.error is broken
    assert done.names == ()


def test_where_nothing_goes_nothing_is_told_to_remove(sandbox: Sandbox, shelves: dict[str, Shelf]) -> None:
    shelves["node-a"].images_by_name.clear()
    shelves["node-a"].put(worker(OLD), f"{FOLDER}/cache:{BEFORE}", "docker.io/library/mongo:4.4")
    done = removing(sandbox)()
    assert (done.names, done.error, shelves["node-a"].removals) == ((), None, 0)
    assert len(shelves["node-a"].images_by_name) == 3


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A containerd behind a `ctr` of this machine, which is where every node is reached."""
    monkeypatch.setenv("PATH", f"{wrapper(tmp_path)}:{os.environ['PATH']}")
    monkeypatch.setattr(pruning, "remote_for_node", lambda _settings, node, **_: Remote(Host(node.name)))
    found = Store(tmp_path)
    for version in HERE:
        found.add(worker(version), [version.encode()])
    return found


def test_a_containerd_is_asked_and_what_goes_is_removed_by_its_own_tool(sandbox: Sandbox, store: Store) -> None:
    (store.folder / "containers").write_text(
        f"CONTAINER IMAGE RUNTIME\n{'a' * 64} {worker(OLDEST)} io.containerd.runc.v2\n"
    )
    to = connections(sandbox.kubeconfig)
    (look,) = look_at_nodes(to.settings.images, [NodeFacts("node-a", runtime="containerd://")])
    assert look.error is None
    verdicts = judge(to, [look], (), 0)["node-a"]
    assert stays(verdicts).keys() == {OLDEST, BEFORE, OLD}
    done = remove(to.settings.images, look, verdicts)
    assert (done.names, done.error) == ((worker(OLDER),), None)
    assert set(store.state()["images"]) == {worker(version) for version in (OLDEST, BEFORE, OLD)}


def test_a_machine_that_is_another_than_the_node_is_left_alone(sandbox: Sandbox, store: Store) -> None:
    to = connections(sandbox.kubeconfig)
    here = NodeFacts("a-node", runtime="containerd://")
    (look,) = look_at_nodes(to.settings.images, [here])
    verdicts = judge(to, [look], (), 0)["a-node"]
    elsewhere = replace(here, machine="f" * 32, boot="00000000-0000-0000-0000-000000000000")
    (refused,) = look_at_nodes(to.settings.images, [elsewhere])
    done = remove(to.settings.images, NodeLook(elsewhere, look.images), verdicts)
    for error in (refused.error, done.error):
        assert isinstance(error, BlockedError)
        assert "is not the node a-node" in error.happened
    assert len(store.state()["images"]) == len(HERE)


def test_another_containerd_than_the_kubelets_is_left_alone(sandbox: Sandbox, store: Store) -> None:
    to = connections(sandbox.kubeconfig)
    (look,) = look_at_nodes(to.settings.images, [NodeFacts("node-a", runtime="containerd://1.7.11-k3s2")])
    assert isinstance(look.error, BlockedError)
    assert "not the one of its kubelet" in look.error.happened
