"""Ways that move nothing: what kubelets and registries say, and what follows."""

import pytest

from tasks.domain.finding import Severity
from tasks.domain.placement import MOST_IMAGES_REPORTED, NodeFacts, ReportedImage
from tasks.images.demand import Demand, Place
from tasks.images.online import judge, presences, to_ask
from tasks.images.references import Wish

IMAGE = "docker.io/apinizercloud/worker:2"
OWN = "nexus.local:5000/apinizer/worker:2"


def node(name: str, *images: str, full: bool = False) -> NodeFacts:
    """A node that reports these; `full`: and so many others that it may not report all."""
    others = [f"docker.io/other/{n}:1" for n in range(MOST_IMAGES_REPORTED if full else 1)]
    return NodeFacts(
        name,
        images=tuple(ReportedImage((f"{i.partition(':2')[0]}@sha256:{'0' * 64}", i), 1) for i in (*images, *others)),
    )


def demand(*nodes: NodeFacts, image: str = IMAGE, known: bool = True) -> Demand:
    return Demand((Wish(image, ()),), tuple(Place(each, (image,)) for each in nodes), nodes_known=known)


HAS, LACKS, FULL = node("a", IMAGE), node("b"), node("c", full=True)


@pytest.mark.parametrize(
    ("wanted", "answer", "expected"),
    [
        pytest.param(demand(HAS), None, None, id="every node has it: nobody else is asked"),
        pytest.param(demand(node("a", "apinizercloud/worker:2")), None, None, id="as Docker reports names"),
        pytest.param(demand(HAS, LACKS), True, None, id="the registry has it"),
        pytest.param(demand(HAS, LACKS), False, Severity.BLOCKING, id="nowhere for one node"),
        pytest.param(demand(HAS, LACKS), None, Severity.WARNING, id="one node lacks it, the registry is silent"),
        pytest.param(demand(HAS, FULL), False, Severity.WARNING, id="a node that reports too many may have it"),
        pytest.param(demand(FULL), None, Severity.WARNING, id="nobody knows"),
        pytest.param(demand(FULL), False, Severity.BLOCKING, id="not in the registry, and nobody reports it"),
        pytest.param(demand(known=False), False, Severity.BLOCKING, id="nodes may not be listed, not in the registry"),
        pytest.param(
            demand(HAS, known=False), False, Severity.WARNING, id="some nodes may not be listed, others have it"
        ),
        pytest.param(demand(known=False), None, Severity.WARNING, id="nodes may not be listed, registry silent"),
        pytest.param(demand(known=False), True, None, id="nodes may not be listed, in the registry"),
    ],
)
def test_verdicts(wanted: Demand, answer: bool | None, expected: Severity | None) -> None:  # noqa: FBT001
    found = judge(wanted, dict.fromkeys(to_ask(wanted), answer))
    assert [finding.severity for finding in found] == ([expected] if expected else [])
    for finding in found:
        assert "apinizercloud/worker:2" in finding.what
        assert finding.next


def test_what_is_said_names_the_nodes() -> None:
    (finding,) = judge(demand(HAS, LACKS), {IMAGE: False})
    assert "b has" in finding.what
    (finding,) = judge(demand(HAS, LACKS, FULL), {IMAGE: None})
    assert "b, c did not report" in finding.what
    assert finding.what.startswith("docker.io could not be asked")


def test_images_of_one_silent_registry_are_one_finding() -> None:
    names = [f"nexus.local:5000/apinizer/{n}:2" for n in ("worker", "cache")]
    wanted = Demand(tuple(Wish(n, ()) for n in names), (Place(LACKS, tuple(names)),))
    (finding,) = judge(wanted, dict.fromkeys(names))
    assert "apinizer/worker:2, apinizer/cache:2" in finding.what
    assert finding.what.startswith("nexus.local:5000 ")


def test_a_node_counts_only_for_the_images_that_it_can_run() -> None:
    wanted = Demand((Wish(IMAGE, ()), Wish(OWN, ())), (Place(HAS, (IMAGE,)), Place(node("d", OWN), (OWN,))))
    assert [(p.there, p.lacking) for p in presences(wanted)] == [(("a",), ()), (("d",), ())]
    assert to_ask(wanted) == ()


def pulled(name: str, *digests: str, tag: str = IMAGE, repository: str = "docker.io/apinizercloud/worker") -> NodeFacts:
    names = (*(f"{repository}@sha256:{digest * 64}" for digest in digests), tag)
    return NodeFacts(name, images=(ReportedImage(("other@sha256:" + "9" * 64, "other:1"), 1), ReportedImage(names, 1)))


@pytest.mark.parametrize(
    ("nodes", "differ"),
    [
        pytest.param([pulled("a", "1"), pulled("b", "1")], False, id="the same"),
        pytest.param([pulled("a", "1"), pulled("b", "2")], True, id="the tag moved between two pulls"),
        pytest.param([pulled("a", "1", "2"), pulled("b", "2")], False, id="one of several"),
        pytest.param(
            [pulled("a", "1"), pulled("b", "2", tag="apinizercloud/worker:2", repository="apinizercloud/worker")],
            True, id="as Docker reports names",
        ),
    ],
)  # fmt: skip
def test_nodes_that_have_different_images_of_one_tag(nodes: list[NodeFacts], differ: bool) -> None:  # noqa: FBT001
    wanted = demand(*nodes)
    assert to_ask(wanted) == ()
    found = judge(wanted, {})
    assert [finding.code for finding in found] == ["image-differs"] * differ
    if differ:
        assert "a: sha256:111" in found[0].what
        assert found[0].severity is Severity.WARNING


@pytest.mark.parametrize("held", [pulled("b"), pulled("b", "2", repository="x.io/y")])
def test_what_was_not_pulled_under_its_name_may_be_anything(held: NodeFacts) -> None:
    (finding,) = judge(demand(pulled("a", "1"), held), {})
    assert (finding.code, finding.severity) == ("image-imported", Severity.WARNING)
    assert f"{IMAGE} on b" in finding.what
