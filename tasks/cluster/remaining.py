"""Which pods of a Deployment that was scaled to zero are still there, and on which nodes nobody can know.  Pure.

A pod counts until its object is gone, or until its kubelet said that all of it has ended: one that is terminating may
still write to the database.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.cluster.answers import JsonObject
from tasks.cluster.pod_state import finished, statuses
from tasks.cluster.rollout_view import (
    condition,
    containers,
    controller,
    is_observed,
    matches,
    name,
    replicas_of,
    select,
    uid,
)
from tasks.domain.component import Component
from tasks.domain.discovery import recognised


@dataclass(frozen=True, slots=True)
class Leaving:
    """A pod that is still there.

    `ends` is when its grace period ends by the API server's clock (RFC 3339; "" where nobody asked it to end), `grace`
    its length in seconds, `finalizers` what keeps its object, `stopped` whether its kubelet said that all containers
    have ended.
    """

    uid: str
    name: str
    node: str
    phase: str
    ends: str = ""
    grace: int = 0
    finalizers: tuple[str, ...] = ()
    stopped: bool = False


def remaining(
    deployment: JsonObject, component: Component, replicasets: Sequence[JsonObject], pods: Sequence[JsonObject]
) -> tuple[Leaving, ...]:
    """The pods of one namespace that belong to the Deployment, by name.

    A pod belongs by its owner, or, where nothing controls it, by the Deployment's selector or by running an image of
    the component.  A manager counts whoever made it: it writes to the same database.
    """
    owned = {uid(pod) for pod in select(deployment, replicasets, pods).pods}
    selector = (deployment.get("spec") or {}).get("selector") or {}

    def belongs(pod: JsonObject) -> bool:
        if uid(pod) in owned:
            return True
        runs_it = component in components_of(pod)
        if component is Component.MANAGER and runs_it:
            return True
        labels = pod.get("metadata", {}).get("labels") or {}
        return not controller(pod) and (runs_it or matches(selector, labels))

    return tuple(sorted((_leaving(p) for p in pods if belongs(p) and not over(p)), key=lambda p: p.name))


def over(pod: JsonObject) -> bool:
    """Whether nothing of a pod runs any more: its phase says so, and no container's last word is that it runs.

    The pod collector gives pods of a node that vanished the phase Failed (podgc, Kubernetes 1.26 and later), although
    nobody knows whether they ended: there the containers still say that they run.
    """
    return finished(pod) and not any("running" in (status.get("state") or {}) for status, _ in statuses(pod))


def settled_at_zero(deployment: JsonObject, replicasets: Iterable[JsonObject]) -> bool:
    """Whether the controllers have seen that no pod is wanted, so that none will be made any more.

    Counts of zero are not enough: a ReplicaSet that has not been scaled down yet replaces a pod that ends.
    """
    mine = [rs for rs in replicasets if controller(rs).get("uid") == uid(deployment)]
    return (
        replicas_of(deployment) == 0
        and is_observed(deployment)
        and all(replicas_of(rs) == 0 and is_observed(rs) and not rs.get("status", {}).get("replicas") for rs in mine)
    )


def lost_node(node: JsonObject | None) -> str:
    """Why nobody can know what runs on a node (None: its object is gone), or "" where its kubelet reports.

    The node controller sets Ready to Unknown when the kubelet has not reported for 40 s (pkg/controller/nodelifecycle).
    """
    if node is None:
        return "it is no longer a node of the cluster"
    ready = condition(node, "Ready")
    if ready.get("status") == "True":
        return ""
    since = f" since {ready['lastTransitionTime']}" if ready.get("lastTransitionTime") else ""
    said = f": {ready['message']}" if ready.get("message") else ""
    return f"NotReady{since} ({ready.get('reason') or 'it never reported'}{said})"


def stays(pod: Leaving, seconds: float) -> str:
    """How a pod stands, for people; `seconds` is for how long it has been seen leaving."""
    where = f" on {pod.node}" if pod.node else ""
    if not pod.ends:
        return f"{pod.name}{where} is {pod.phase}, not asked to end"
    if seconds <= pod.grace + 5:
        return f"{pod.name}{where} ends, within {pod.grace} s"
    age = f"{int(seconds // 10) * 10} s"
    if pod.stopped and pod.finalizers:
        return f"{pod.name}{where} has ended for {age}; its object is kept by the finalizer {', '.join(pod.finalizers)}"
    kept = f", finalizer {', '.join(pod.finalizers)}" if pod.finalizers else ""
    return f"{pod.name}{where} has been ending for {age} (grace {pod.grace} s, which ended at {pod.ends}{kept})"


def _leaving(pod: JsonObject) -> Leaving:
    meta, spec = pod.get("metadata", {}), pod.get("spec") or {}
    said = [status for status, _ in statuses(pod)]
    return Leaving(
        uid=uid(pod),
        name=name(pod),
        node=str(spec.get("nodeName") or ""),
        phase=str((pod.get("status") or {}).get("phase") or "Pending"),
        ends=str(meta.get("deletionTimestamp") or ""),
        grace=int(meta.get("deletionGracePeriodSeconds") or 0),
        finalizers=tuple(meta.get("finalizers") or ()),
        stopped=bool(said) and all("terminated" in (status.get("state") or {}) for status in said),
    )


def components_of(pod: JsonObject) -> set[Component]:
    """The components whose images a pod, or a pod template, runs."""
    found = (recognised(str(c.get("image", ""))) for c in containers(pod).values())
    return {component for component in found if component is not None}
