"""What a node holds under a name already, against what the registry has there."""

import pytest

from tasks.domain.errors import BlockedError
from tasks.domain.placement import NodeFacts, ReportedImage
from tasks.images.demand import Demand, Place
from tasks.images.references import Wish
from tasks.images.reported import digests_of, held_otherwise, require_none_held_otherwise, unreported

NAME = "nexus.local:5000/apinizercloud/worker:2"
REPOSITORY = NAME.removesuffix(":2")
MANIFEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def holding(*names: str, runtime: str = "containerd://1.7.2") -> NodeFacts:
    pause = ReportedImage((f"registry.k8s.io/pause@{OTHER}", "registry.k8s.io/pause:3"), 1)
    return NodeFacts("n1", images=(pause, ReportedImage(names, 1)), runtime=runtime)


@pytest.mark.parametrize(
    ("node", "other"),
    [
        pytest.param(holding(f"{REPOSITORY}@{MANIFEST}", NAME), False, id="pulled from there"),
        pytest.param(holding(f"{REPOSITORY}@{OTHER}", f"{REPOSITORY}@{MANIFEST}", NAME), False, id="one of two digests"),
        pytest.param(NodeFacts("n1"), False, id="nothing is reported"),
        pytest.param(holding(f"{REPOSITORY}@{OTHER}", f"{REPOSITORY}:1"), False, id="another tag only"),
        pytest.param(holding(f"{REPOSITORY}@{OTHER}", NAME), True, id="the tag moved since"),
        pytest.param(holding(NAME), True, id="imported under the name"),
        pytest.param(
            holding(f"docker.io/apinizercloud/cache@{MANIFEST}", "docker.io/apinizercloud/cache:2", NAME), True,
            id="another image that was tagged so",
        ),
        pytest.param(holding(*(f"x.io/{n}@{MANIFEST}" for n in range(4)), NAME), False, id="digests may be left out"),
    ],
)  # fmt: skip
def test_what_pods_would_run_instead(node: NodeFacts, other: bool) -> None:  # noqa: FBT001
    demand = Demand((Wish(NAME, ()),), (Place(node, (NAME,)), Place(NodeFacts("n2"), (NAME,))))
    found = list(held_otherwise(demand, {NAME: MANIFEST}))
    assert [finding.code for finding in found] == ["node-holds-other"] * other
    assert not list(held_otherwise(demand, {}))
    assert not list(held_otherwise(demand, {NAME: MANIFEST}, same=frozenset({("n1", NAME)})))
    if other:
        with pytest.raises(BlockedError, match="n1 holds an image under the name") as raised:
            require_none_held_otherwise(demand, {NAME: MANIFEST})
        assert f"ctr -n k8s.io images rm {NAME}" in raised.value.next
        assert raised.value.exit_code == 3
    else:
        require_none_held_otherwise(demand, {NAME: MANIFEST})


def test_a_node_counts_only_for_what_its_pods_run() -> None:
    demand = Demand((Wish(NAME, ()),), (Place(holding(NAME), ()),))
    require_none_held_otherwise(demand, {NAME: MANIFEST})


def test_names_as_docker_reports_them() -> None:
    node = holding(f"apinizercloud/worker@{MANIFEST}", "apinizercloud/worker:2", runtime="docker://24")
    assert digests_of("docker.io/apinizercloud/worker:2", node) == frozenset({MANIFEST})
    demand = Demand((), (Place(node, ("docker.io/apinizercloud/worker:2",)),))
    (finding,) = held_otherwise(demand, {"docker.io/apinizercloud/worker:2": OTHER})
    assert "docker rmi docker.io/apinizercloud/worker:2" in finding.next


@pytest.mark.parametrize(
    ("nodes", "lacking"),
    [
        pytest.param([holding(NAME)], set(), id="there"),
        pytest.param([holding("nexus.local:5000/apinizercloud/worker:1")], {NAME}, id="another tag"),
        pytest.param([holding(NAME), holding()], {NAME}, id="on one of two"),
        pytest.param([NodeFacts("n1")], set(), id="nothing is told"),
        pytest.param(
            [NodeFacts("n1", images=tuple(ReportedImage((f"x.io/{n}:1",), 1) for n in range(50)))], set(),
            id="more than a kubelet tells",
        ),
    ],
)  # fmt: skip
def test_what_nodes_surely_lack(nodes: list[NodeFacts], lacking: set[str]) -> None:
    assert unreported(Demand((), tuple(Place(node, (NAME,)) for node in nodes))) == lacking


def test_a_node_surely_lacks_nothing_of_what_docker_names_in_short() -> None:
    node = holding("apinizercloud/worker:2", runtime="docker://24")
    assert unreported(Demand((), (Place(node, ("docker.io/apinizercloud/worker:2",)),))) == frozenset()
