"""Wait until no pod of Deployments that were scaled to zero is left, woken by watch events.

Not the counts decide (they are zero while pods still end) but the pods, read afresh before it is said that none is
left.  The rules are in `remaining`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tasks.cluster.answers import JsonObject
from tasks.cluster.api import KubernetesApi
from tasks.cluster.image_change import deployment_path
from tasks.cluster.remaining import Leaving, lost_node, remaining, settled_at_zero, stays
from tasks.cluster.rollout_view import generation_of, name, replicas_of, uid
from tasks.cluster.scaling import STOP_WHO, wants, who_scaled
from tasks.cluster.watch import PATHS, View, WatchHub
from tasks.domain.errors import (
    BlockedError,
    DriftError,
    ForbiddenError,
    NotFoundError,
    RolloutError,
    StoppedError,
    TemporaryError,
)
from tasks.domain.inventory import DeploymentFacts, DeploymentKey

LISTEN = 0.5  # seconds between two looks at `stop`
NODES_EVERY = 2.0
NODE_PATIENCE = 10.0
"""Seconds for which a node may be NotReady (a kubelet that restarts) before nobody can know what runs on it."""


@dataclass(frozen=True, slots=True)
class EmptyingProgress:
    """How many pods are left of one Deployment; `text` is one line for people."""

    key: DeploymentKey
    left: int
    text: str
    seconds: float


@dataclass(frozen=True, slots=True)
class NoPods:
    """Seen when no pod was left: the Deployment's generation, and the pods that were waited for."""

    key: DeploymentKey
    generation: int
    went: tuple[str, ...]
    seconds: float


def wait_no_pods(
    hubs: Mapping[str, WatchHub],
    deployments: Sequence[DeploymentFacts],
    *,
    deadline_seconds: float,
    progress: Callable[[EmptyingProgress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    node_patience: float = NODE_PATIENCE,
) -> tuple[NoPods, ...]:
    """Block until no pod of the Deployments is left, one after the other.  Changes nothing.

    `hubs` are the watches by the cluster's name; `progress` is called at each change of its text.  Raises
    `BlockedError` where a pod is on a node that is not Ready or gone, since nobody can know whether its containers
    still run; `DriftError` where somebody scaled one up again; `RolloutError` at `deadline_seconds` (of all
    together); `StoppedError`; and what the watches raise.
    """
    end = clock() + deadline_seconds
    evidence = []
    for facts in deployments:
        hub = hubs[facts.key.cluster]
        with hub.view(facts.key.namespace) as view:
            evidence.append(_Emptying(hub.api, view, facts, end, clock, node_patience, progress).run(stop))
    return tuple(evidence)


@dataclass(frozen=True, slots=True)
class _Lost:
    """A node of which nothing is known: since when (by the wait's clock), why, whether its object is gone."""

    since: float
    why: str
    gone: bool


@dataclass
class _Emptying:
    """One Deployment's wait: what it reads, what it remembers."""

    api: KubernetesApi
    view: View
    facts: DeploymentFacts
    end: float
    clock: Callable[[], float]
    node_patience: float
    progress: Callable[[EmptyingProgress], None]
    begin: float = 0.0
    looked: float = 0.0  # when the nodes were asked last
    told: str = ""
    ending: dict[str, float] = field(default_factory=dict)  # since when each pod is seen ending
    present: dict[str, Leaving] = field(default_factory=dict)  # the pods of the last look, by uid
    went: set[str] = field(default_factory=set)  # the names of all that were seen
    lost: dict[str, _Lost] = field(default_factory=dict)  # by node
    unasked: dict[str, str] = field(default_factory=dict)  # by node, why it could not be asked

    def run(self, stop: Callable[[], bool]) -> NoPods:
        self.begin = self.clock()
        self.looked = self.begin - NODES_EVERY
        while True:
            version = self.view.version
            left = self._left() if self.view.synced() else None
            if left is not None:
                self._ask_nodes(left)
                self._tell(left)
                if not left and (done := self._confirmed()):
                    return done
            now = self.clock()
            if stop():
                raise self._stopped()
            if now >= self.end:
                raise self._slow(left)
            self.view.wait(version, max(0.01, min(self.end - now, LISTEN)))

    def _left(self) -> tuple[Leaving, ...] | None:
        """The pods left by the cache; None before it shows the Deployment as it was scaled."""
        found = next((d for d in self.view.objects("deployments") if name(d) == self.facts.key.name), None)
        if found is None or replicas_of(found) != 0:
            self._require_zero(self._fresh())  # the cache may be behind: the world decides
            return None
        return self._judge(found, self.view.objects("replicasets"), self.view.objects("pods"))

    def _judge(
        self, deployment: JsonObject, sets: Sequence[JsonObject], pods: Sequence[JsonObject]
    ) -> tuple[Leaving, ...]:
        self._require_zero(deployment)
        left = remaining(deployment, self.facts.component, sets, pods)
        now = self.clock()
        for pod in left:
            self.went.add(pod.name)
            if pod.ends:
                self.ending.setdefault(pod.uid, now)
        return left

    def _require_zero(self, deployment: JsonObject | None) -> None:
        """Raise `DriftError` where it is not the Deployment that was scaled to zero."""
        who = ""
        if deployment is None:
            why = "it is gone"
        elif uid(deployment) != self.facts.uid:
            why = "it was deleted and made anew"
        elif (count := replicas_of(deployment)) != 0:
            why, who = f"it {wants(count)} again", who_scaled(deployment)
        else:
            return
        raise DriftError(
            f"Deployment {self.facts.key} was scaled to 0, and {why}.",
            observed=who or "The API server does not tell who changed it.",
            safe="It was left as found.",
            next=STOP_WHO,
        )

    def _fresh(self) -> JsonObject | None:
        try:
            return self.api.get(deployment_path(self.facts.key))
        except NotFoundError:
            return None

    def _confirmed(self) -> NoPods | None:
        """The evidence by fresh reads, or None where they show otherwise or the API server is away."""
        space = self.facts.key.namespace
        hasty = self.api.patient(2)
        try:
            deployment = hasty.get(deployment_path(self.facts.key))
            sets = hasty.list(PATHS["replicasets"].format(space)).items
            pods = hasty.list(PATHS["pods"].format(space)).items
        except TemporaryError:
            return None
        except NotFoundError:
            deployment, sets, pods = {}, [], []
        self._require_zero(deployment or None)
        if self._judge(deployment, sets, pods) or not settled_at_zero(deployment, sets):
            return None
        generation = generation_of(deployment)
        return NoPods(self.facts.key, generation, tuple(sorted(self.went)), self.clock() - self.begin)

    def _ask_nodes(self, left: Sequence[Leaving]) -> None:
        """Raise `BlockedError` where a pod is, or was when its object vanished, on a node of which nothing is known."""
        now, there = self.clock(), {pod.uid: pod for pod in left}
        vanished = [p for p in self.present.values() if p.uid not in there and not p.stopped and p.node in self.lost]
        self.present = there
        if vanished:
            raise self._unknowable(vanished, "its object was removed meanwhile, which ends no container")
        if now - self.looked >= NODES_EVERY:
            self.looked = now
            for node in sorted({pod.node for pod in left if pod.node}):
                self._ask_node(node, now)
        for node, lost in self.lost.items():
            on = [pod for pod in left if pod.node == node and not pod.stopped]
            if on and (lost.gone or now - lost.since >= self.node_patience):
                raise self._unknowable(on, "")

    def _ask_node(self, node: str, now: float) -> None:
        self.unasked.pop(node, None)
        try:
            found: JsonObject | None = self.api.patient(0).get(f"/api/v1/nodes/{node}")
        except NotFoundError:
            found = None
        except (TemporaryError, ForbiddenError) as error:
            self.unasked[node] = error.happened  # its pods count until they are gone, whatever the node is
            return
        why, before = lost_node(found), self.lost.pop(node, None)
        if why:
            self.lost[node] = _Lost(before.since if before else now, why, gone=found is None)

    def _tell(self, left: Sequence[Leaving]) -> None:
        now = self.clock()
        lines = [stays(pod, now - self.ending.get(pod.uid, now)) for pod in left]
        text = f"{len(left)} pod{'s' if len(left) > 1 else ''} left: {'; '.join(lines)}" if left else "no pod left"
        if text != self.told:
            self.told = text
            self.progress(EmptyingProgress(self.facts.key, len(left), text, now - self.begin))

    def _safe(self) -> str:
        return f"{self.facts.key} wants 0 pods; nothing else was changed."

    def _unknowable(self, pods: Sequence[Leaving], more: str) -> BlockedError:
        nodes = sorted({pod.node for pod in pods})
        lines = [f"Pod {p.name} on node {p.node}" + (f": {more}" if more else "") for p in pods]
        space = self.facts.key.namespace
        remove = [f"kubectl delete pod {p.name} -n {space} --force --grace-period=0" for p in pods]
        them = " and ".join(nodes)
        ways = (
            f"Bring {them} back: its pods then end by themselves.",
            "Or power it off so that it surely stays off, and only then remove the pods' objects:",
            *remove,
            "Then go on: what is done already is found done.",
        )
        return BlockedError(
            f"Whether {self.facts.key} still runs cannot be known: {them} cannot be asked.",
            observed="\n".join((*(f"Node {node}: {self.lost[node].why}." for node in nodes), *lines)),
            safe=self._safe(),
            next="\n".join(ways),
        )

    def _slow(self, left: Sequence[Leaving] | None) -> RolloutError:
        now = self.clock()
        lines = [stays(pod, now - self.ending.get(pod.uid, now)) for pod in left or ()]
        lines += [f"Node {node} could not be asked: {why}" for node, why in sorted(self.unasked.items())]
        lines += filter(None, [self.view.trouble()])
        space = self.facts.key.namespace
        return RolloutError(
            f"{self.facts.key} was scaled to 0, and its pods are not gone after {now - self.begin:.0f} s.",
            observed="\n".join(lines) or "Its controllers have not seen it yet.",
            safe=self._safe(),
            next=f"kubectl describe pod -n {space} shows what keeps them (a long grace period ends by itself; a finalizer "
            "is whoever set it to take away). When they are gone, go on: what is done already is found done.",
        )

    def _stopped(self) -> StoppedError:
        return StoppedError(
            f"The wait for the pods of {self.facts.key} to end was ended.",
            observed=self.told,
            safe=self._safe(),
            next="Go on later: what is done already is found done.",
        )
