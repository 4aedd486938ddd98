"""The objects of one Deployment's rollout, picked out of a namespace.  Pure, over plain JSON objects."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.cluster.answers import JsonObject

HASH_LABEL = "pod-template-hash"


@dataclass(frozen=True, slots=True)
class RolloutView:
    """A Deployment (None where it is gone), the ReplicaSets it owns, and its pods of every revision."""

    deployment: JsonObject | None
    replicasets: tuple[JsonObject, ...] = ()
    pods: tuple[JsonObject, ...] = ()


def select(deployment: JsonObject | None, replicasets: Iterable[JsonObject], pods: Iterable[JsonObject]) -> RolloutView:
    """The view of one Deployment from all ReplicaSets and pods of its namespace.

    A pod belongs by its controller; one whose ReplicaSet is gone already (revisionHistoryLimit: 0) belongs by
    the Deployment's selector, since it still runs until its grace period ends.
    """
    if deployment is None:
        return RolloutView(None)
    every = list(replicasets)
    owned = tuple(rs for rs in every if controller(rs).get("uid") == uid(deployment))
    mine = {uid(rs) for rs in owned}
    known = {uid(rs) for rs in every}
    selector = deployment.get("spec", {}).get("selector") or {}

    def belongs(pod: JsonObject) -> bool:
        owner = controller(pod)
        if owner.get("uid") in mine:
            return True
        orphan = owner.get("kind") == "ReplicaSet" and owner.get("uid") not in known
        return orphan and matches(selector, pod.get("metadata", {}).get("labels") or {})

    return RolloutView(deployment, owned, tuple(pod for pod in pods if belongs(pod)))


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """True where a LabelSelector (matchLabels and matchExpressions) picks `labels`; an empty one picks nothing."""
    wanted = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or []
    if not wanted and not expressions:
        return False
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _expression(e, labels) for e in expressions
    )


def _expression(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression.get("key", ""), expression.get("values") or []
    match expression.get("operator"):
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    return False


def new_replicaset(view: RolloutView) -> JsonObject | None:
    """The ReplicaSet of the Deployment's present template, or None before the controller made it.

    Source: deploymentutil.FindNewReplicaSet and EqualIgnoreHash of kubernetes/kubernetes
    (pkg/controller/deployment/util/deployment_util.go): same template but for the hash label, the oldest wins.
    """
    if view.deployment is None:
        return None
    template = _without_hash(view.deployment.get("spec", {}).get("template") or {})
    same = [rs for rs in view.replicasets if _without_hash(rs.get("spec", {}).get("template") or {}) == template]
    return min(same, key=lambda rs: rs["metadata"].get("creationTimestamp") or "", default=None)


def _without_hash(template: JsonObject) -> JsonObject:
    meta = {key: value for key, value in (template.get("metadata") or {}).items() if value is not None}
    labels = {key: value for key, value in (meta.get("labels") or {}).items() if key != HASH_LABEL}
    return {**template, "metadata": {**meta, "labels": labels}}


def pods_of(view: RolloutView, replicaset: JsonObject | None) -> tuple[JsonObject, ...]:
    """The view's pods that `replicaset` controls."""
    if replicaset is None:
        return ()
    return tuple(pod for pod in view.pods if controller(pod).get("uid") == uid(replicaset))


def controller(thing: JsonObject) -> JsonObject:
    """The owner reference that controls an object, or {}."""
    for owner in thing.get("metadata", {}).get("ownerReferences") or ():
        if owner.get("controller"):
            return dict(owner)
    return {}


def condition(thing: JsonObject, kind: str) -> JsonObject:
    """The status condition of type `kind`, or {} where none was observed."""
    for found in thing.get("status", {}).get("conditions") or ():
        if found.get("type") == kind:
            return dict(found)
    return {}


def uid(thing: JsonObject) -> str:
    """metadata.uid, or ""."""
    return str(thing.get("metadata", {}).get("uid") or "")


def replicas_of(thing: JsonObject) -> int:
    """The wanted count of a Deployment or ReplicaSet, which is 1 where none is given (apps/v1)."""
    count = (thing.get("spec") or {}).get("replicas")
    return 1 if count is None else int(count)


def generation_of(thing: JsonObject) -> int:
    """metadata.generation, which grows with each write of the spec; 0 where the object has none."""
    return int(thing.get("metadata", {}).get("generation") or 0)


def is_observed(thing: JsonObject) -> bool:
    """Whether its controller has seen the spec as it is now (status.observedGeneration)."""
    return int((thing.get("status") or {}).get("observedGeneration") or 0) >= generation_of(thing)


def name(thing: JsonObject) -> str:
    """metadata.name, or ""."""
    return str(thing.get("metadata", {}).get("name") or "")


def containers(template_or_pod: JsonObject) -> dict[str, JsonObject]:
    """Containers and init containers by name (names are unique over both) of a pod or a pod template."""
    spec = template_or_pod.get("spec") or {}
    return {c["name"]: c for c in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]}
