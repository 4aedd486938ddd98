"""Which node is to hold which images before the manager is touched.  Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blocks.image_settings import NodeAccessSettings
from tasks.domain.finding import Finding, warning
from tasks.domain.inventory import DeploymentKey
from tasks.domain.placement import NodeFacts, eligible
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
    """What is wanted where.  `nodes_known` is false where the nodes may not be listed and none is named."""

    wishes: tuple[Wish, ...]
    places: tuple[Place, ...]
    findings: tuple[Finding, ...] = ()
    nodes_known: bool = True

    @property
    def platforms(self) -> tuple[str, ...]:
        """The nodes' platforms ("linux/amd64"), each once; "" for what did not say."""
        return tuple(dict.fromkeys(place.node.platform for place in self.places))


def demand_of(
    wishes: Sequence[Wish],
    pod_specs: Mapping[DeploymentKey, JsonObject],
    nodes: Sequence[NodeFacts],
    access: NodeAccessSettings,
) -> Demand:
    """Every node that can run a Deployment gets its images; nodes that are named extra get all.

    Nodes that are away or cordoned get none now: what they lack when they come back is said, not guessed.  `nodes` is
    empty where they may not be listed; then the named ones stand for them, each with all images.
    """
    if not nodes:
        places = [_named(name.name, access, wishes) for name in access.named]
        return Demand(tuple(wishes), tuple(places), (), nodes_known=bool(places))
    wanted: dict[tuple[str, str], dict[str, None]] = {}
    absent: dict[tuple[str, str], str] = {}
    findings: list[Finding] = []
    for key in dict.fromkeys(user for wish in wishes for user in wish.users):
        here = [node for node in nodes if node.cluster == key.cluster]
        placement = eligible(pod_specs.get(key, {}), here)
        for node in placement.nodes:
            images = wanted.setdefault((key.cluster, node), {})
            images.update(dict.fromkeys(wish.name for wish in wishes if key in wish.users))
        if not placement.nodes:
            findings.append(_nowhere(key, placement.passed_over, placement.away))
        cordoned = {n.name: "it is cordoned" for n in here if n.unschedulable and n.name in placement.passed_over}
        absent |= {(key.cluster, name): why for name, why in {**placement.away, **cordoned}.items()}
    places = [Place(n, tuple(wanted[n.cluster, n.name])) for n in nodes if (n.cluster, n.name) in wanted]
    places += [_named(extra.name, access, wishes) for extra in access.named if extra.extra]
    gone = {key: why for key, why in absent.items() if key not in wanted}
    findings += [*_away(gone), *_strange(nodes, access), *_always(wishes, pod_specs)]
    return Demand(tuple(wishes), tuple(places), tuple(findings))


def _named(name: str, access: NodeAccessSettings, wishes: Sequence[Wish]) -> Place:
    """A node that no cluster tells of."""
    named = access.of(name)
    runtime = named.runtime or ("containerd" if access.runtime == "auto" else access.runtime)
    return Place(NodeFacts(name=name, runtime=f"{runtime}://"), tuple(wish.name for wish in wishes))


def _nowhere(key: DeploymentKey, never: Mapping[str, str], away: Mapping[str, str]) -> Finding:
    reasons = "; ".join(f"{node}: {why}" for node, why in {**never, **away}.items()) or "the cluster shows no node"
    return warning(
        "no-node",
        f"No node can run the pods of {key} now ({reasons}).",
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


def _strange(nodes: Sequence[NodeFacts], access: NodeAccessSettings) -> Iterator[Finding]:
    known = {node.name for node in nodes}
    for named in access.named:
        if not named.extra and named.name not in known:
            yield warning(
                "node-unknown",
                f"The settings name the node {named.name}, and no cluster has it.",
                f"The nodes are {', '.join(sorted(known))}. One that is no node of the cluster needs extra: true.",
            )


def _always(wishes: Sequence[Wish], pod_specs: Mapping[DeploymentKey, JsonObject]) -> Iterator[Finding]:
    """The kubelet asks the registry at each start of a container whose policy is Always, whatever the node holds."""
    users = {user for wish in wishes for user in wish.users}
    always = sorted(
        str(key)
        for key, spec in pod_specs.items()
        if key in users and any(c.get("imagePullPolicy") == "Always" for c in spec.get("containers") or ())
    )
    if always:
        yield warning(
            "pull-always",
            f"The pull policy of {', '.join(always)} is Always: its pods ask the registry at each start, although the "
            "nodes hold the image.",
            "Where no registry can be reached, set imagePullPolicy: IfNotPresent.",
        )
