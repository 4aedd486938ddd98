"""Which images are wanted, what they are called at the source, and which node is to hold them."""

from typing import Any

import pytest

from blocks.image_settings import ImageSourceSettings, NamedNode, NodeAccessSettings
from tasks.domain.component import Component
from tasks.domain.errors import BlockedError
from tasks.domain.finding import Severity
from tasks.domain.inventory import ComponentContainer, DeploymentFacts, DeploymentKey, Inventory
from tasks.domain.placement import NodeFacts
from tasks.domain.plan import PlanRequest, make_plan
from tasks.domain.version import Version
from tasks.domain.way import Way
from tasks.images.demand import Circumstances, demand_of
from tasks.images.references import Wish, kept_names, release_references, wishes_of

TO = Version("2025.07.0")


def deployment(namespace: str, component: Component, *images: str, cluster: str = "") -> DeploymentFacts:
    containers = tuple(
        ComponentContainer(name=f"c{n}", init=n > 0, component=component, image=image) for n, image in enumerate(images)
    )
    key = DeploymentKey(cluster=cluster, namespace=namespace, name=component.value)
    return DeploymentFacts(key=key, uid="u", resource_version="1", containers=containers, replicas=1)


def wishes(*deployments: DeploymentFacts, prefix: str = "", **kind: Any) -> tuple[Wish, ...]:
    inventory = Inventory(deployments=deployments)
    request = PlanRequest(to=TO, prefix=kind.pop("put_behind", ""))
    plan = make_plan(inventory, request, held={}, running=None)
    return wishes_of((*plan.steps, *plan.there), inventory, prefix=prefix, **kind)


MANAGER = deployment("apinizer", Component.MANAGER, "apinizercloud/manager:2025.04.3")
NEXUS = deployment("prod", Component.WORKER, "nexus.local:5000/apinizer/worker:2025.04.3")


@pytest.mark.parametrize(
    ("found", "options", "name", "candidates"),
    [
        pytest.param(MANAGER, {}, "docker.io/apinizercloud/manager:2025.07.0", ["apinizercloud/manager:2025.07.0"], id="hub"),
        pytest.param(
            NEXUS, {}, "nexus.local:5000/apinizer/worker:2025.07.0",
            ["apinizercloud/worker:2025.07.0", "nexus.local:5000/apinizer/worker:2025.07.0"], id="an engine may call it so, too",
        ),
        pytest.param(
            NEXUS, {"own_names": False}, "nexus.local:5000/apinizer/worker:2025.07.0", ["apinizercloud/worker:2025.07.0"],
            id="another registry does not",
        ),
        pytest.param(
            NEXUS, {"prefix": "mirror:5000/a"}, "nexus.local:5000/apinizer/worker:2025.07.0", ["mirror:5000/a/worker:2025.07.0"],
            id="a prefix at the source",
        ),
        pytest.param(
            NEXUS, {"put_behind": "harbor.local/x"}, "harbor.local/x/worker:2025.07.0",
            ["apinizercloud/worker:2025.07.0", "harbor.local/x/worker:2025.07.0"], id="another registry wanted",
        ),
        pytest.param(
            deployment("portal", Component.PORTAL, "apinizercloud/portal:2025.04.3"), {},
            "docker.io/apinizercloud/apiportal:2025.07.0", ["apinizercloud/apiportal:2025.07.0"], id="renamed on the way",
        ),
    ],
)  # fmt: skip
def test_names(found: DeploymentFacts, options: dict[str, Any], name: str, candidates: list[str]) -> None:
    (wish,) = wishes(found, **options)
    assert (wish.name, [str(c) for c in wish.candidates]) == (name, candidates)
    assert wish.users == (found.key,)


@pytest.mark.parametrize(
    ("image", "prefix", "kept"),
    [
        ("apinizercloud/worker:2025.07.0", "nexus.local:5000/a", "docker.io/apinizercloud/worker:2025.07.0"),
        ("apinizercloud/worker:2025.07.0", "apinizercloud", ""),
        ("apinizercloud/worker:2025.07.0", "", ""),
        ("apinizercloud/worker:2025.04.3", "nexus.local:5000/a", ""),
    ],
)
def test_what_runs_the_version_keeps_its_name_and_that_is_said(image: str, prefix: str, kept: str) -> None:
    found = kept_names(wishes(deployment("prod", Component.WORKER, image), put_behind=prefix), prefix)
    assert [(finding.severity, finding.what.partition(": run")[0]) for finding in found] == (
        [(Severity.WARNING, kept)] if kept else []
    )


def test_one_image_of_several_deployments_is_wished_once() -> None:
    two = [deployment(space, Component.WORKER, "apinizercloud/worker:2025.04.3") for space in ("test", "prod")]
    (wish,) = wishes(*two)
    assert sorted(key.namespace for key in wish.users) == ["prod", "test"]


def test_init_containers_count_and_what_is_pinned_by_digest_does_not() -> None:
    pinned = "apinizercloud/cache:2025.07.0@sha256:" + "0" * 64
    worker = deployment("prod", Component.WORKER, "apinizercloud/worker:2025.07.0", pinned)
    assert [w.name for w in wishes(worker)] == ["docker.io/apinizercloud/worker:2025.07.0"]
    both = deployment("prod", Component.WORKER, "apinizercloud/worker:2025.04.3", "other.io/x/worker:2025.04.3")
    assert [w.name for w in wishes(both)] == [
        "docker.io/apinizercloud/worker:2025.07.0",
        "other.io/x/worker:2025.07.0",
    ]


def test_a_release_without_an_installation() -> None:
    asked = release_references(Version("2025.11.1"))
    assert [str(each) for (each,) in asked] == [
        f"apinizercloud/{name}:2025.11.1" for name in ("apimanager", "worker", "cache", "apiportal", "integration")
    ]
    disputed = release_references(Version("2025.04.5"), prefix="h:5/a")
    assert [str(each) for each in disputed[3]] == ["h:5/a/portal:2025.04.5", "h:5/a/apiportal:2025.04.5"]
    named = release_references(Version("2025.04.5"), repositories_named={Component.PORTAL: "own"})
    assert [str(each) for each in named[3]] == ["apinizercloud/own:2025.04.5"]


A = DeploymentKey(cluster="", namespace="test", name="worker")
B = DeploymentKey(cluster="", namespace="prod", name="worker")
X, Y = Wish("docker.io/a/x:1", (), (A,)), Wish("docker.io/a/y:1", (), (A, B))
EDGE = {"nodeSelector": {"zone": "edge"}}


def given(*named: NamedNode, way: Way = Way.DOCKER_TO_NODES, runtime: str = "auto", **more: Any) -> Circumstances:
    inside = {"kind": "registry", "prefix": "h:5/a"} if way.target == "registry" else {}
    nodes = NodeAccessSettings.model_validate({"named": named, "runtime": runtime})
    return Circumstances(ImageSourceSettings.model_validate({"way": way, "nodes": nodes, **inside}), **more)


def test_each_node_gets_what_its_pods_may_run() -> None:
    nodes = [NodeFacts("n1"), NodeFacts("n2", labels={"zone": "edge"})]
    demand = demand_of([X, Y], {A: EDGE, B: {}}, nodes, given())
    assert {p.key: p.images for p in demand.places} == {"n1": (Y.name,), "n2": (X.name, Y.name)}
    assert demand.findings == ()


@pytest.mark.parametrize(
    ("nodes", "codes"),
    [
        ([NodeFacts("n1"), NodeFacts("n2", ready=False)], ["node-away"]),
        ([NodeFacts("n1"), NodeFacts("n2", unschedulable=True)], ["node-away"]),
        ([NodeFacts("n1", unschedulable=True)], ["no-node", "no-node", "node-away"]),
        ([NodeFacts("n1"), NodeFacts("n2", platform="windows/amd64")], []),
    ],
)
def test_nodes_that_get_nothing_now_are_named(nodes: list[NodeFacts], codes: list[str]) -> None:
    demand = demand_of([X, Y], {A: {}, B: {}}, nodes, given())
    assert [finding.code for finding in demand.findings] == codes
    assert [p.key for p in demand.places] == [
        n.name for n in nodes if n.ready and not n.unschedulable and not n.platform
    ]


def test_named_nodes() -> None:
    extra = NamedNode(name="gate", host="10.0.0.9", runtime="docker", extra=True)
    named = given(NamedNode(name="n1", port=22), NamedNode(name="typo"), extra)
    demand = demand_of([X, Y], {A: {}, B: {}}, [NodeFacts("n1"), NodeFacts("n2")], named)
    assert [(p.key, len(p.images)) for p in demand.places] == [("n1", 2), ("n2", 2), ("gate", 2)]
    assert demand.places[2].node.engine == "docker"
    (finding,) = demand.findings
    assert (finding.code, "typo" in finding.what) == ("node-unknown", True)
    unread = given(NamedNode(name="there", cluster="far"), NamedNode(name="somewhere"), unread=frozenset({"far"}))
    assert demand_of([X, Y], {A: {}, B: {}}, [NodeFacts("n1")], unread).findings == (), "nobody looked there"


def test_where_nodes_may_not_be_listed_the_named_ones_stand_for_them() -> None:
    named = (NamedNode(name="n1"), NamedNode(name="n2", runtime="containerd"))
    demand = demand_of([X, Y], {}, [], given(*named, runtime="docker", unlisted=frozenset({""})))
    assert [(p.key, p.images, p.node.engine) for p in demand.places] == [
        ("n1", (X.name, Y.name), "docker"),
        ("n2", (X.name, Y.name), "containerd"),
    ]
    assert not demand_of([X], {}, [], given(unlisted=frozenset({""}))).nodes_known


@pytest.mark.parametrize("kind", ["containers", "initContainers"])
def test_a_pull_policy_that_asks_the_registry_all_the_same(kind: str) -> None:
    spec = {kind: [{"imagePullPolicy": "IfNotPresent"}, {"imagePullPolicy": "Always"}]}
    demand = demand_of([X], {A: spec}, [NodeFacts("n1")], given())
    assert [finding.code for finding in demand.findings] == ["pull-always"]


def test_nodes_of_the_same_name_in_two_clusters() -> None:
    far = DeploymentKey(cluster="far", namespace="prod", name="worker")
    wishes = [Wish("docker.io/a/x:1", (), (A,)), Wish("docker.io/a/z:1", (), (far,))]
    nodes = [NodeFacts("n1"), NodeFacts("n1", cluster="far")]
    demand = demand_of(wishes, {A: {}, far: {}}, nodes, given())
    assert {p.key: p.images for p in demand.places} == {
        "n1": ("docker.io/a/x:1",),
        "n1 in far": ("docker.io/a/z:1",),
    }


FAR = DeploymentKey(cluster="far", namespace="prod", name="worker")
Z = Wish("docker.io/a/z:1", (), (FAR,))


@pytest.mark.parametrize(
    "node",
    [NodeFacts("n1", unschedulable=True), NodeFacts("n1", ready=False), NodeFacts("n1", labels={"zone": "core"})],
)
@pytest.mark.parametrize(
    ("way", "replaced", "severity"),
    [
        (Way.DOCKER_TO_NODES, {A}, Severity.BLOCKING),
        (Way.DOCKER_TO_NODES, {B}, Severity.WARNING),  # no pods are asked for, so none has to start
        (Way.DOCKER_TO_REGISTRY, {A}, Severity.WARNING),
        (Way.ONLINE, {A}, Severity.WARNING),
    ],
)
def test_a_component_that_no_node_can_run_is_not_replaced(
    node: NodeFacts, way: Way, replaced: set[DeploymentKey], severity: Severity
) -> None:
    demand = demand_of([X], {A: EDGE}, [node, NodeFacts("n2")], given(way=way, replaced=frozenset(replaced)))
    assert demand.places == ()
    found = next(finding for finding in demand.findings if finding.code == "no-node")
    assert found.severity is severity
    assert "n1: it " in found.what
    if severity is Severity.BLOCKING:
        with pytest.raises(BlockedError, match="No node can run the pods of test/worker") as raised:
            demand.require_allowed()
        assert "kubectl uncordon" in raised.value.next
        assert raised.value.exit_code == 3
    else:
        demand.require_allowed()


def test_each_cluster_whose_nodes_may_not_be_listed_has_the_nodes_named_for_it() -> None:
    named = (
        NamedNode(name="edge1", cluster="far", host="10.9.9.9", platform="linux/arm64"),
        NamedNode(name="m1", cluster="near", port=22),
        NamedNode(name="edge2"),
    )
    near = DeploymentKey(cluster="near", namespace="apinizer", name="manager")
    wishes = [Wish("docker.io/a/m:1", (), (near,)), Z]
    circumstances = given(*named, unlisted=frozenset({"far"}), several=True)
    demand = demand_of(wishes, {near: {}, FAR: {}}, [NodeFacts("m1", cluster="near")], circumstances)
    assert {p.key: p.images for p in demand.places} == {
        "m1 in near": ("docker.io/a/m:1",),
        "edge1 in far": (Z.name,),
    }
    assert demand.places[1].node.platform == "linux/arm64"
    assert demand.findings == ()  # edge2 may be there
    one = given(NamedNode(name="edge2"), unlisted=frozenset({"far"}))
    assert [p.key for p in demand_of([Z], {}, [], one).places] == ["edge2 in far"]


@pytest.mark.parametrize("way", [Way.DOCKER_TO_REGISTRY, Way.ONLINE])
def test_a_node_of_no_cluster_is_given_nothing_where_nothing_is_brought_to_nodes(way: Way) -> None:
    extra = NamedNode(name="gate", host="h", runtime="docker", extra=True)
    demand = demand_of([X], {A: {}}, [NodeFacts("n1", platform="linux/amd64")], given(extra, way=way))
    assert demand.platforms == ("linux/amd64",)


def test_an_extra_node_with_the_name_of_a_cluster_s() -> None:
    extra = NamedNode(name="n1", host="h", runtime="docker", extra=True)
    with pytest.raises(BlockedError, match="n1 as extra"):
        demand_of([X], {A: {}}, [NodeFacts("n1")], given(extra)).require_allowed()
