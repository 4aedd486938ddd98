"""Which nodes are to hold what, asked of clusters: what forbids to go on, and nodes that may not be listed."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from blocks.cluster_client import open_client
from blocks.image_settings import ImageSourceSettings, NamedNode, NodeAccessSettings
from blocks.settings import ClusterSettings, InstallationSettings
from deployments.sandbox.launch import Sandbox
from tasks.cluster.api import KubernetesApi
from tasks.cluster.planning import Connections, read_plan
from tasks.domain.errors import (
    BlockedError,
    ForbiddenError,
    NotFoundError,
    UnauthorizedError,
    UpgradeError,
    UsageError,
)
from tasks.domain.finding import Severity
from tasks.domain.inventory import Inventory
from tasks.domain.placement import NodeFacts
from tasks.domain.plan import PlanRequest
from tasks.domain.reference import ImageReference
from tasks.domain.version import Version
from tasks.domain.way import Way
from tasks.images.demand import Demand
from tasks.images.demand_reading import demand_for, read_demand
from tasks.images.model import Holdings, Image, Platform
from tasks.images.proof import one_for_several
from tasks.images.references import Wish
from tasks.images.surveying import ask_registries, find_at, looked
from tests.tasks.images.folder_node import FolderNode
from tests.tasks.images.registry.served import PASSWORD, USER, served

NODES = ("node-a", "node-b")
NAMES_NO_NODES = [
    {"apiGroups": ["", "apps"], "resources": ["namespaces", "pods", "deployments", "replicasets"], "verbs": ["*"]}
]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(version="2025.04.3", speed=10.0) as running:
        yield running


def api_of(kubeconfig: Path, name: str = "") -> KubernetesApi:
    return KubernetesApi(open_client(ClusterSettings(kubeconfig_path=str(kubeconfig))), name)


def settings(*named: NamedNode, way: Way = Way.DOCKER_TO_NODES) -> ImageSourceSettings:
    return ImageSourceSettings(way=way, nodes=NodeAccessSettings(named=named))


def demanded(connections: Connections, images: ImageSourceSettings, read: Any = demand_for) -> Demand:
    """The demand for the first cluster's own installation, each Deployment taken for one of every cluster."""
    first, *others = connections.apis
    inventory = Connections(InstallationSettings(), {"": connections.apis[first]}).inventory()
    deployments = [
        d.model_copy(update={"key": d.key.model_copy(update={"cluster": cluster})})
        for cluster in (first, *others)
        for d in inventory.deployments
        if cluster == first or d.key.namespace == "prod"
    ]
    inventory = inventory.model_copy(update={"deployments": tuple(deployments)})
    plan = read_plan(connections, inventory, PlanRequest(to=Version("2025.07.0")))
    demand: Demand = read(connections, inventory, plan, images)
    return demand


def cordon(api: KubernetesApi, nodes: Sequence[str], *, on: bool) -> None:
    for node in nodes:
        api.patch(f"/api/v1/nodes/{node}", {"spec": {"unschedulable": on}})


def test_where_no_node_can_run_a_component_nothing_goes_on(sandbox: Sandbox) -> None:
    api = api_of(sandbox.kubeconfig)
    connections = Connections(InstallationSettings(), {"": api})
    assert [place.key for place in demanded(connections, settings()).places] == list(NODES)
    cordon(api, NODES, on=True)
    try:
        with pytest.raises(BlockedError) as raised:
            demanded(connections, settings())
        assert "apinizer/apimanager" in raised.value.observed or "manager" in raised.value.observed
        assert "node-a: it is cordoned" in raised.value.observed
        seen = demanded(connections, settings(), read_demand)  # for a look it is one of the findings
        assert Severity.BLOCKING in {finding.severity for finding in seen.findings}
        assert demanded(connections, settings(way=Way.ONLINE)).places == ()
    finally:
        cordon(api, NODES, on=False)


def test_nodes_of_one_of_two_clusters_may_not_be_listed(sandbox: Sandbox, tmp_path: Path) -> None:
    blind = sandbox.restricted_kubeconfig(tmp_path / "k", "blind", "", NAMES_NO_NODES)
    both = Connections(
        InstallationSettings(), {"near": api_of(sandbox.kubeconfig, "near"), "far": api_of(blind, "far")}
    )
    told = NamedNode(name="edge1", cluster="far", host="10.9.9.9")
    demand = demanded(both, settings(told))
    assert [place.key for place in demand.places] == ["node-a in near", "node-b in near", "edge1 in far"]
    assert any("worker" in image for image in demand.places[2].images)
    assert not any("manager" in image for image in demand.places[2].images)
    assert [finding.code for finding in demand.findings] == ["nodes-unlisted"]
    for other in ((), (NamedNode(name="edge1"),), (NamedNode(name="edge1", cluster="near"),)):
        with pytest.raises(ForbiddenError) as raised:
            demanded(both, settings(*other))
        assert "cluster: far" in raised.value.next
    alone = Connections(InstallationSettings(), {"": api_of(blind)})
    assert [p.key for p in demanded(alone, settings(NamedNode(name="edge1"))).places] == ["edge1"]


def test_a_node_that_is_named_for_the_run_and_is_none_is_refused_when_it_is_planned(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    def plan(apis: dict[str, KubernetesApi], *named: NamedNode) -> None:
        clusters = tuple(ClusterSettings(name=name) for name in ("near", "far"))
        config = InstallationSettings(clusters=clusters, images=settings(*named))
        read_plan(Connections(config, apis), Inventory(deployments=()), PlanRequest(to=Version("2025.07.0")))

    near = api_of(sandbox.kubeconfig, "near")
    with pytest.raises(UsageError, match="nosuch") as raised:
        plan({"near": near}, NamedNode(name="node-a", expected=True), NamedNode(name="nosuch", expected=True))
    assert raised.value.observed == "The nodes are node-a, node-b in near."
    plan({"near": near}, NamedNode(name="of-the-file"))
    far = api_of(sandbox.restricted_kubeconfig(tmp_path / "k", "blinded", "", NAMES_NO_NODES), "far")
    both = {"near": near, "far": far}
    plan(both, NamedNode(name="nosuch", cluster="far", expected=True))  # nobody can know
    with pytest.raises(UsageError, match="near has no node nosuch"):
        plan(both, NamedNode(name="nosuch", cluster="near", expected=True))


ARM, AMD = Platform("linux", "arm64", "v8"), Platform("linux", "amd64")
WORKER = Image("docker.io/a/worker:2", "a/worker:2", AMD, "sha256:0", ())


class Of(FolderNode):
    """A node that says which platform it has."""

    def look(self, images: Sequence[Image]) -> Holdings:
        del images
        return Holdings(names={WORKER.name: WORKER.config}, platform=ARM)


def test_images_of_another_platform_are_not_brought_to_a_node_of_no_cluster(tmp_path: Path) -> None:
    node = Of("gate", tmp_path / "gate")
    for facts in (
        NodeFacts("gate", runtime="docker://"),
        NodeFacts("gate", runtime="docker://", platform="linux/amd64"),
    ):
        with pytest.raises(BlockedError, match="gate is linux/arm64") as raised:
            looked(node, "gate", [WORKER], facts)
        assert "platform: linux/arm64" in raised.value.next
    right = Image(WORKER.name, WORKER.origin, Platform("linux", "arm64"), WORKER.config, ())
    assert looked(node, "gate", [right], NodeFacts("gate", runtime="docker://")).missing == ()


class Shelf:
    """A source that holds one name and refuses every other in the way that it is told."""

    where = "a shelf"

    def __init__(self, holds: str, refusal: UpgradeError) -> None:
        self._holds, self._refusal = holds, refusal

    def find(self, references: Sequence[ImageReference], platform: Platform | None) -> tuple[Image, ...]:
        del platform
        if any(str(each) != self._holds for each in references):
            raise self._refusal
        return tuple(Image(str(each), str(each), AMD, "sha256:0", ()) for each in references)

    def read(self, images: Sequence[Image], wanted: frozenset[str]) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("refusal", [NotFoundError("No."), UnauthorizedError("Denied."), ForbiddenError("Denied.")])
def test_a_name_that_is_refused_may_be_one_that_does_not_exist(refusal: UpgradeError) -> None:
    names = [ImageReference.parse(name) for name in ("apinizercloud/worker:2", "nexus.local:5/a/worker:2")]
    wish = Wish("nexus.local:5/a/worker:2", tuple(names))
    (image,) = find_at(Shelf("nexus.local:5/a/worker:2", refusal), [wish], None)
    assert (image.name, image.origin) == (wish.name, "nexus.local:5/a/worker:2")
    with pytest.raises(type(refusal)):
        find_at(Shelf("another/name:2", refusal), [wish], None)


def test_two_components_that_are_one_image_at_the_source() -> None:
    origins = {"a/worker:2": "w", "a/cache:2": "w", "a/manager:2": "m", "b/manager:2": "m"}
    images = tuple(
        Image(f"docker.io/{origin}", origin, AMD, f"sha256:{config}", ()) for origin, config in origins.items()
    )
    (finding,) = one_for_several({"linux/amd64": images, "": images})
    assert (finding.code, finding.severity) == ("image-of-another", Severity.WARNING)
    assert finding.what.startswith("a/cache:2, a/worker:2 are one")


def test_with_images_of_several_registries_none_is_shown_the_password() -> None:
    """Whose it is cannot be told; of one alone it is that one's."""
    own = ImageSourceSettings.model_validate({"user": USER, "password": PASSWORD, "insecure": True})
    with served(auth="basic") as one, served(auth="basic") as other:
        for registry in (one, other):
            registry.put_image("apinizercloud/worker:2025.07.0", [b"layer"])
        wishes = [Wish(registry.name("apinizercloud/worker:2025.07.0"), ()) for registry in (one, other)]
        ask_registries(Demand(tuple(wishes), (), nodes_known=False), own)
        assert not [seen for registry in (one, other) for seen in registry.requests() if seen.authorization]
        ask_registries(Demand((wishes[0],), (), nodes_known=False), own)
        assert any(seen.authorization for seen in one.requests())
