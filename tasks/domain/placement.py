"""On which nodes the pods of a template can run: what the scheduler would not refuse.  Pure.

Sources: the scheduler's filters NodeName, NodeUnschedulable, TaintToleration and NodeAffinity (kubernetes,
pkg/scheduler/framework/plugins) and the rules that they share with the kubelet's admission (component-helpers,
scheduling/corev1 and nodeaffinity).  Resources, pod affinity and anti-affinity, topology spread, volumes and what an
admission plugin adds are not looked at: each of them only takes nodes away, today and perhaps not tomorrow, so what is
said here is more nodes than a pod gets.  For images that is the safe side.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.domain.node_selection import OS_LABEL, refusal_by_affinity, refusal_by_selector

JsonObject = dict[str, Any]

MOST_IMAGES_REPORTED = 50
"""What a kubelet reports at most (`nodeStatusMaxImages`): with so many, an absence says nothing."""

MOST_NAMES_REPORTED = 5
"""How many names of one image a kubelet reports at most (`MaxNamesPerImageInNodeStatus`), those with digests first."""

UNSCHEDULABLE = "node.kubernetes.io/unschedulable"

# The node controller and the kubelet put these on a node for as long as a condition lasts
# (k8s.io/api/core/v1/well_known_taints.go); who joins the cluster new has some of them, too.
PASSING_TAINTS = frozenset(
    {
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
        "node.kubernetes.io/memory-pressure",
        "node.kubernetes.io/disk-pressure",
        "node.kubernetes.io/pid-pressure",
        "node.kubernetes.io/network-unavailable",
        "node.cloudprovider.kubernetes.io/uninitialized",
        "node.cloudprovider.kubernetes.io/shutdown",
    }
)


@dataclass(frozen=True, slots=True)
class Taint:
    """What keeps pods away that do not tolerate it; `effect` is NoSchedule, PreferNoSchedule or NoExecute."""

    key: str
    value: str
    effect: str

    def __str__(self) -> str:
        return f"{self.key}{'=' + self.value if self.value else ''}:{self.effect}"


@dataclass(frozen=True, slots=True)
class ReportedImage:
    """An image that a kubelet says its node holds: all of its names (with tag and with digest), its size in bytes."""

    names: tuple[str, ...]
    size: int


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A node as one read of it showed it.

    `addresses` are (type, address) as the node reports them (InternalIP, ExternalIP, Hostname, …); `platform` is
    "os/architecture" ("linux/amd64"), "" where the node does not say; `runtime` is as the kubelet gives it
    ("containerd://1.6.20"); `machine` and `boot` are the kubelet's /etc/machine-id and its kernel's boot id ("" where it
    does not say); `allocatable` has Kubernetes' own quantities as text ("cpu": "3920m").
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False
    ready: bool = True
    addresses: tuple[tuple[str, str], ...] = ()
    platform: str = ""
    runtime: str = ""
    images: tuple[ReportedImage, ...] = ()
    allocatable: Mapping[str, str] = field(default_factory=dict)
    cluster: str = ""
    machine: str = ""
    boot: str = ""

    @property
    def engine(self) -> str:
        """What runs its containers: "containerd", "docker", "cri-o", "" where it does not say."""
        return self.runtime.partition("://")[0] if "://" in self.runtime else ""

    @property
    def lists_all(self) -> bool:
        """Whether the kubelet reports every image, so that one that is not reported is not there."""
        return 0 < len(self.images) < MOST_IMAGES_REPORTED

    @property
    def reported(self) -> frozenset[str]:
        """Every name of every image that the kubelet reports, full names as it writes them."""
        return frozenset(name for image in self.images for name in image.names)

    def address(self, *kinds: str) -> str:
        """The first address of the first of these types that the node has, or ""."""
        return next((a for kind in kinds for k, a in self.addresses if k == kind and a), "")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where pods of a template can run.

    `nodes` are the names that can; `away` those that could but for what passes by itself (not ready, under pressure)
    and may do so tomorrow, with that reason; `passed_over` those that cannot, with the reason.
    """

    nodes: tuple[str, ...]
    passed_over: Mapping[str, str]
    away: Mapping[str, str] = field(default_factory=dict)


def node_facts(node: JsonObject, cluster: str = "") -> NodeFacts:
    """The facts of a Node object (v1)."""
    meta, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    info = status.get("nodeInfo") or {}
    labels = dict(meta.get("labels") or {})
    system = info.get("operatingSystem") or labels.get(OS_LABEL, "")
    processor = info.get("architecture") or labels.get("kubernetes.io/arch", "")
    return NodeFacts(
        name=meta["name"],
        labels=labels,
        taints=tuple(Taint(t["key"], t.get("value") or "", t["effect"]) for t in spec.get("taints") or ()),
        unschedulable=bool(spec.get("unschedulable")),
        ready=any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ()),
        addresses=tuple((a["type"], a["address"]) for a in status.get("addresses") or ()),
        platform=f"{system}/{processor}" if system and processor else "",
        runtime=info.get("containerRuntimeVersion") or "",
        images=tuple(
            ReportedImage(tuple(i.get("names") or ()), i.get("sizeBytes") or 0) for i in status.get("images") or ()
        ),
        allocatable={k: str(v) for k, v in (status.get("allocatable") or {}).items()},
        cluster=cluster,
        machine=info.get("machineID") or "",
        boot=info.get("bootID") or "",
    )


def eligible(pod_spec: JsonObject, nodes: Sequence[NodeFacts]) -> Placement:
    """Where pods with this spec can run; the order is that of `nodes`."""
    can: list[str] = []
    away: dict[str, str] = {}
    never: dict[str, str] = {}
    for node in nodes:
        why, passes = _refusal(pod_spec, node)
        if not why:
            can.append(node.name)
        else:
            (away if passes else never)[node.name] = why
    return Placement(tuple(can), never, away)


def _refusal(pod: JsonObject, node: NodeFacts) -> tuple[str, bool]:
    """Why a pod cannot run there ("" if it can), and whether that passes by itself."""
    fixed = pod.get("nodeName")
    if fixed and fixed != node.name:
        return f"its pods are bound to {fixed}", False
    lasting = (
        _system(pod, node)
        or refusal_by_selector(pod, node.labels)
        or refusal_by_affinity(pod, node.name, node.labels)
        or _cordon(pod, node)
    )
    if lasting:
        return lasting, False
    in_the_way = [taint for taint in node.taints if _keeps_away(taint, pod)]
    chosen = [taint for taint in in_the_way if taint.key not in PASSING_TAINTS]
    if chosen:
        return f"it has the taint {chosen[0]}, which is not tolerated", False
    if in_the_way:
        return f"it has the taint {in_the_way[0]}", True
    return ("", False) if node.ready else ("it is not ready", True)


def _system(pod: JsonObject, node: NodeFacts) -> str:
    """The components' images are for Linux; a template may say another (`spec.os`, which the kubelet holds it to)."""
    has = node.platform.partition("/")[0] or node.labels.get(OS_LABEL, "")
    wants = (pod.get("os") or {}).get("name") or "linux"
    return f"its system is {has}" if has and has != wants else ""


def _cordon(pod: JsonObject, node: NodeFacts) -> str:
    """NodeUnschedulable: as a taint of its own; who names the node is not asked by the scheduler."""
    if pod.get("nodeName"):
        return ""
    cordoned = node.unschedulable or any(t.key == UNSCHEDULABLE for t in node.taints)
    return (
        "" if not cordoned or tolerated(Taint(UNSCHEDULABLE, "", "NoSchedule"), _tolerations(pod)) else "it is cordoned"
    )


def _keeps_away(taint: Taint, pod: JsonObject) -> bool:
    """TaintToleration; a pod that names its node only meets the kubelet, which looks at NoExecute alone."""
    effects = ("NoExecute",) if pod.get("nodeName") else ("NoSchedule", "NoExecute")
    return taint.effect in effects and taint.key != UNSCHEDULABLE and not tolerated(taint, _tolerations(pod))


def _tolerations(pod: JsonObject) -> Sequence[JsonObject]:
    found: Sequence[JsonObject] = pod.get("tolerations") or ()
    return found


def tolerated(taint: Taint, tolerations: Iterable[JsonObject]) -> bool:
    """Whether any of them tolerates the taint (`Toleration.ToleratesTaint`, k8s.io/api/core/v1/toleration.go).

    No effect means every effect, no key every key; the operator is Equal if not given.
    """
    return any(
        (t.get("effect") or taint.effect) == taint.effect
        and (t.get("key") or taint.key) == taint.key
        and (
            (t.get("operator") or "Equal") == "Exists"
            or ((t.get("operator") or "Equal") == "Equal" and (t.get("value") or "") == taint.value)
        )
        for t in tolerations
    )
