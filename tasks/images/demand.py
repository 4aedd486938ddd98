"""Which node is to hold which images before the manager is touched.  Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blocks.image_settings import ImageSourceSettings, NamedNode
from tasks.domain.errors import BlockedError
from tasks.domain.finding import Finding, Severity, blocking, warning
from tasks.domain.inventory import DeploymentKey
from tasks.domain.placement import NodeFacts, Placement, eligible
from tasks.images.references import Wish

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """A node and the full names of the images that its pods may run."""

    node: NodeFacts
    images: tuple[str, ...]

    @property
    def key(self) -> str:
        """The node's name, with its cluster where the installation has several."""
        return f"{self.node.name} in {self.node.cluster}" if self.node.cluster else self.node.name


@dataclass(frozen=True, slots=True)
class Demand:
    """What is wanted where.  `nodes_known` is false where a cluster's nodes may not be listed and none is named."""

    wishes: tuple[Wish, ...]
    places: tuple[Place, ...]
    findings: tuple[Finding, ...] = ()
    nodes_known: bool = True

    @property
    def platforms(self) -> tuple[str, ...]:
        """The nodes' platforms ("linux/amd64"), each once; "" for what did not say."""
        return tuple(dict.fromkeys(place.node.platform for place in self.places))

    def require_allowed(self) -> None:
        """Raise `BlockedError` where a finding forbids to go on."""
        forbidding = [finding for finding in self.findings if finding.severity is Severity.BLOCKING]
        if forbidding:
            raise BlockedError(
                forbidding[0].what if len(forbidding) == 1 else "The images cannot be brought to all that need them.",
                observed="\n".join(finding.what for finding in forbidding),
                safe="No component was changed.",
                next=forbidding[0].next,
            )


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What `demand_of` goes by beside the clusters' own answers.

    `unlisted` are the clusters whose nodes may not be listed, `unread` those that nothing is wanted for, `replaced` the Deployments whose pods are about to be
    replaced; `several` says whether the installation has more clusters than one.
    """

    settings: ImageSourceSettings
    unlisted: frozenset[str] = frozenset()
    unread: frozenset[str] = frozenset()
    replaced: frozenset[DeploymentKey] = frozenset()
    several: bool = False

    @property
    def to_nodes(self) -> bool:
        return self.settings.way.target == "nodes"

    def stand_in(self, cluster: str) -> tuple[NamedNode, ...]:
        """The nodes that the settings name, for a cluster that shows none."""
        mine = (cluster,) if self.several else (cluster, "")
        return tuple(n for n in self.settings.nodes.named if not n.extra and n.cluster in mine)


def demand_of(
    wishes: Sequence[Wish],
    pod_specs: Mapping[DeploymentKey, JsonObject],
    nodes: Sequence[NodeFacts],
    given: Circumstances,
) -> Demand:
    """Every node that can run a Deployment gets its images; on ways to nodes those that are named extra get all.

    Nodes that are away or cordoned get none now: what they lack when they come back is said, not guessed.  Where a
    cluster's nodes may not be listed, those that the settings name for it stand for them, each with all images of it.
    """
    wanted: dict[tuple[str, str], dict[str, None]] = {}
    absent: dict[tuple[str, str], str] = {}
    findings: list[Finding] = []
    for key in dict.fromkeys(user for wish in wishes for user in wish.users):
        if key.cluster in given.unlisted:
            continue
        here = [node for node in nodes if node.cluster == key.cluster]
        placement = eligible(pod_specs.get(key, {}), here)
        for node in placement.nodes:
            images = wanted.setdefault((key.cluster, node), {})
            images.update(dict.fromkeys(wish.name for wish in wishes if key in wish.users))
        if not placement.nodes:
            findings.append(_nowhere(key, placement, forbids=given.to_nodes and key in given.replaced))
        cordoned = {n.name: "it is cordoned" for n in here if n.unschedulable and n.name in placement.passed_over}
        absent |= {(key.cluster, name): why for name, why in {**placement.away, **cordoned}.items()}
    places = [Place(n, tuple(wanted[n.cluster, n.name])) for n in nodes if (n.cluster, n.name) in wanted]
    named, known = _stand_ins(wishes, given)
    gone = {key: why for key, why in absent.items() if key not in wanted}
    findings += [*_away(gone), *_strange(nodes, given), *_always(wishes, pod_specs)]
    return Demand(tuple(wishes), (*places, *named), tuple(findings), nodes_known=known)


def _stand_ins(wishes: Sequence[Wish], given: Circumstances) -> tuple[list[Place], bool]:
    """The nodes that no cluster tells of, and whether every cluster has some."""
    places: list[Place] = []
    known = True
    for cluster in sorted(given.unlisted):
        images = tuple(wish.name for wish in wishes if any(user.cluster == cluster for user in wish.users))
        named = given.stand_in(cluster)
        known = known and bool(named)
        places += [Place(_facts(node, given, cluster), images) for node in named if images]
    if given.to_nodes:
        every = tuple(wish.name for wish in wishes)
        places += [Place(_facts(node, given), every) for node in given.settings.nodes.named if node.extra and every]
    return places, known


def _facts(named: NamedNode, given: Circumstances, cluster: str = "") -> NodeFacts:
    """A node that no cluster tells of, as the settings do."""
    runtime = given.settings.nodes.runtime
    told = named.runtime or ("containerd" if runtime == "auto" else runtime)
    return NodeFacts(name=named.name, runtime=f"{told}://", platform=named.platform, cluster=cluster)


def _nowhere(key: DeploymentKey, placement: Placement, *, forbids: bool) -> Finding:
    reasons = "; ".join(f"{node}: {why}" for node, why in {**placement.passed_over, **placement.away}.items())
    what = f"No node can run the pods of {key} now ({reasons or 'the cluster shows no node'})."
    if forbids:
        return blocking(
            "no-node",
            what,
            "Its image could be brought nowhere, and its new pods could start nowhere. Mend that (kubectl uncordon, a "
            "node that is not ready), or scale the Deployment to 0.",
        )
    return warning(
        "no-node",
        what,
        "Its image is brought nowhere. If it is to run, mend that and run apinizer-upgrade images stage.",
    )


def _away(absent: Mapping[tuple[str, str], str]) -> Iterator[Finding]:
    for (cluster, node), why in absent.items():
        name = f"{node} in {cluster}" if cluster else node
        yield warning(
            "node-away",
            f"The node {name} is not looked at: {why}.",
            "When it is back, run apinizer-upgrade images stage before pods go there.",
        )


def _strange(nodes: Sequence[NodeFacts], given: Circumstances) -> Iterator[Finding]:
    """Names that no cluster knows, and extra ones that one does know."""
    for named in given.settings.nodes.named:
        there = [n.name for n in nodes if named.cluster in ("", n.cluster)]
        if named.extra and named.name in there:
            yield blocking(
                "node-twice",
                f"The settings name {named.name} as extra, and a cluster has a node of that name: they have one host.",
                "Name the extra node otherwise, or leave extra out.",
            )
        unseen = given.unlisted | given.unread
        hidden = named.cluster in unseen if named.cluster else bool(unseen)
        if not named.extra and named.name not in there and not hidden:
            yield warning(
                "node-unknown",
                f"The settings name the node {named.name}, and no cluster has it.",
                f"The nodes are {', '.join(sorted(there)) or 'not known'}. One that is no node of the cluster needs extra: true.",
            )


def _always(wishes: Sequence[Wish], pod_specs: Mapping[DeploymentKey, JsonObject]) -> Iterator[Finding]:
    """The kubelet asks the registry at each start of a container whose policy is Always, whatever the node holds."""
    users = {user for wish in wishes for user in wish.users}
    always = sorted(
        str(key)
        for key, spec in pod_specs.items()
        if key in users and any(c.get("imagePullPolicy") == "Always" for c in _containers(spec))
    )
    if always:
        yield warning(
            "pull-always",
            f"The pull policy of {', '.join(always)} is Always: its pods ask the registry at each start, although the "
            "nodes hold the image.",
            "Where no registry can be reached, set imagePullPolicy: IfNotPresent.",
        )


def _containers(spec: JsonObject) -> Sequence[JsonObject]:
    return (*(spec.get("initContainers") or ()), *(spec.get("containers") or ()))
