"""The Deployment controller's arithmetic. Pure: objects and times in, numbers and objects out.

From k8s.io/kubernetes/pkg/controller/deployment (sync.go, rolling.go, progress.go, util/deployment_util.go), release 1.20.
"""

from __future__ import annotations

import json
import math
from typing import Any

from deployments.sandbox.store import safe_hash

JsonObject = dict[str, Any]

REVISION = "deployment.kubernetes.io/revision"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
HISTORY = "deployment.kubernetes.io/revision-history"
NOT_COPIED = {
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAXIMUM,
    "deprecated.deployment.rollback.to",
}


def resolve(value: int | str | None, total: int, *, up: bool) -> int:
    """An int-or-percent as a number of pods."""
    if value is None:
        return 0
    if isinstance(value, int):
        return value
    share = int(value.rstrip("%")) * total / 100
    return math.ceil(share) if up else math.floor(share)


def limits(deployment: JsonObject) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods; when both round to zero, one may be unavailable (ResolveFenceposts)."""
    spec = deployment["spec"]
    replicas = spec["replicas"]
    if spec["strategy"]["type"] == "Recreate":
        return 0, 0
    rolling = spec["strategy"].get("rollingUpdate") or {}
    surge = resolve(rolling.get("maxSurge"), replicas, up=True)
    unavailable = resolve(rolling.get("maxUnavailable"), replicas, up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, replicas)


def template_key(template: JsonObject) -> str:
    """What makes two templates equal: all but the hash label that the controller itself adds."""
    meta = dict(template.get("metadata") or {})
    meta.pop("creationTimestamp", None)
    labels = {key: value for key, value in (meta.get("labels") or {}).items() if key != "pod-template-hash"}
    meta["labels"] = labels
    return json.dumps({"metadata": meta, "spec": template.get("spec")}, sort_keys=True)


def template_hash(template: JsonObject, collisions: int = 0) -> str:
    return safe_hash(template_key(template) + (str(collisions) if collisions else ""))


def replicas_of(sets: list[JsonObject]) -> int:
    return sum(one["spec"]["replicas"] for one in sets)


def counted(sets: list[JsonObject], field: str) -> int:
    """Sum of one count of the sets' statuses."""
    return sum((one.get("status") or {}).get(field) or 0 for one in sets)


def revision(obj: JsonObject) -> int:
    return int((obj["metadata"].get("annotations") or {}).get(REVISION, 0) or 0)


def new_set_of(deployment: JsonObject, sets: list[JsonObject]) -> JsonObject | None:
    """The oldest ReplicaSet that has the Deployment's template (FindNewReplicaSet)."""
    wanted = template_key(deployment["spec"]["template"])
    for one in sorted(sets, key=lambda rs: rs["metadata"]["creationTimestamp"]):
        if template_key(one["spec"]["template"]) == wanted:
            return one
    return None


def size_for_new(deployment: JsonObject, sets: list[JsonObject], new_size: int) -> int:
    """How many pods the new ReplicaSet may have now (NewRSNewReplicas)."""
    wanted: int = deployment["spec"]["replicas"]
    if deployment["spec"]["strategy"]["type"] == "Recreate":
        return wanted
    surge, _ = limits(deployment)
    total, most = replicas_of(sets), wanted + surge
    if total >= most:
        return new_size
    return new_size + min(most - total, wanted - new_size)


def sizes_for_old(deployment: JsonObject, new: JsonObject | None, old: list[JsonObject]) -> dict[str, int]:
    """New sizes of the old ReplicaSets by name, only those that change: first unhealthy pods, then what may be missed."""
    if replicas_of(old) == 0:
        return {}
    everything = [*old, *([new] if new else [])]
    _, unavailable = limits(deployment)
    least = deployment["spec"]["replicas"] - unavailable
    new_unavailable = new["spec"]["replicas"] - counted([new], "availableReplicas") if new else 0
    most_down = replicas_of(everything) - least - new_unavailable
    if most_down <= 0:
        return {}
    by_age = sorted(old, key=lambda rs: (rs["metadata"]["creationTimestamp"], rs["metadata"]["name"]))
    sizes = {one["metadata"]["name"]: one["spec"]["replicas"] for one in by_age}
    done = 0
    for one in by_age:
        name = one["metadata"]["name"]
        down = min(most_down - done, sizes[name] - counted([one], "availableReplicas"))
        if down > 0:
            sizes[name], done = sizes[name] - down, done + down
    spare = counted(everything, "availableReplicas") - least
    for one in by_age:
        name = one["metadata"]["name"]
        down = min(max(spare, 0), sizes[name])
        sizes[name], spare = sizes[name] - down, spare - down
    return {
        one["metadata"]["name"]: sizes[one["metadata"]["name"]]
        for one in by_age
        if sizes[one["metadata"]["name"]] != one["spec"]["replicas"]
    }


def proportional_sizes(deployment: JsonObject, active: list[JsonObject]) -> dict[str, int]:
    """Sizes when a Deployment is scaled in the middle of a rollout: each ReplicaSet by its share (scale)."""
    surge, _ = limits(deployment)
    wanted = deployment["spec"]["replicas"]
    allowed = wanted + surge if wanted > 0 else 0
    to_add = allowed - replicas_of(active)
    ordered = sorted(active, key=lambda rs: (-rs["spec"]["replicas"], rs["metadata"]["creationTimestamp"]))
    sizes = {one["metadata"]["name"]: one["spec"]["replicas"] for one in ordered}
    added = 0
    for one in ordered:
        if to_add == 0:
            break
        share = _share(one, deployment, surge)
        room = to_add - added
        share = max(0, min(share, room)) if to_add > 0 else min(0, max(share, room))
        sizes[one["metadata"]["name"]] += share
        added += share
    if ordered and to_add:
        first = ordered[0]["metadata"]["name"]
        sizes[first] = max(0, sizes[first] + to_add - added)
    return sizes


def _share(one: JsonObject, deployment: JsonObject, surge: int) -> int:
    size, wanted = int(one["spec"]["replicas"]), int(deployment["spec"]["replicas"])
    if wanted == 0:
        return -size
    annotated = (one["metadata"].get("annotations") or {}).get(MAXIMUM)
    total = int(annotated) if annotated else deployment.get("status", {}).get("replicas") or 0
    if not total:
        return 0
    return round(size * (wanted + surge) / total) - size


def needs_scaling(deployment: JsonObject, active: list[JsonObject]) -> bool:
    """Whether the wanted size changed since the ReplicaSets were last sized (isScalingEvent)."""
    for one in active:
        desired = (one["metadata"].get("annotations") or {}).get(DESIRED)
        if desired is not None and int(desired) != deployment["spec"]["replicas"]:
            return True
    return False


def is_saturated(deployment: JsonObject, one: JsonObject | None) -> bool:
    if one is None:
        return False
    wanted = deployment["spec"]["replicas"]
    desired = (one["metadata"].get("annotations") or {}).get(DESIRED)
    return (
        one["spec"]["replicas"] == wanted and desired == str(wanted) and counted([one], "availableReplicas") == wanted
    )


# -------------------------------------------------------------------- status
def condition(status: JsonObject, kind: str) -> JsonObject | None:
    return next((one for one in status.get("conditions") or [] if one["type"] == kind), None)


def set_condition(
    status: JsonObject, kind: str, value: str, reason: str, message: str, at: str, *, clock: bool = True
) -> None:
    """Set a condition; the same status and reason leave it as it is (SetDeploymentCondition).

    `clock`: write lastUpdateTime too, which ReplicaSets and Pods do not have.
    """
    current = condition(status, kind)
    if current and current["status"] == value and current.get("reason") == reason:
        return
    changed: JsonObject = {"type": kind, "status": value}
    if clock:
        changed["lastUpdateTime"] = at
    changed["lastTransitionTime"] = current["lastTransitionTime"] if current and current["status"] == value else at
    changed |= {"reason": reason, "message": message}
    rest = [one for one in status.get("conditions") or [] if one["type"] != kind]
    status["conditions"] = [*rest, changed]


def drop_condition(status: JsonObject, kind: str) -> None:
    if "conditions" in status:
        status["conditions"] = [one for one in status["conditions"] if one["type"] != kind]
        if not status["conditions"]:
            del status["conditions"]


def counts(deployment: JsonObject, sets: list[JsonObject], new: JsonObject | None) -> JsonObject:
    """The counts of a Deployment's status, zeros left out as Go's omitempty does."""
    available = counted(sets, "availableReplicas")
    found = {
        "observedGeneration": deployment["metadata"]["generation"],
        "replicas": counted(sets, "replicas"),
        "updatedReplicas": counted([new] if new else [], "replicas"),
        "readyReplicas": counted(sets, "readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(replicas_of(sets) - available, 0),
    }
    return {key: value for key, value in found.items() if value}


def is_complete(deployment: JsonObject, status: JsonObject) -> bool:
    wanted = deployment["spec"]["replicas"]
    return all((status.get(name) or 0) == wanted for name in ("updatedReplicas", "replicas", "availableReplicas"))


def has_progressed(old: JsonObject, new: JsonObject) -> bool:
    def old_pods(status: JsonObject) -> int:
        return (status.get("replicas") or 0) - (status.get("updatedReplicas") or 0)

    return old_pods(new) < old_pods(old) or any(
        (new.get(name) or 0) > (old.get(name) or 0)
        for name in ("updatedReplicas", "readyReplicas", "availableReplicas")
    )


def new_annotations(deployment: JsonObject, one: JsonObject, number: int) -> dict[str, str]:
    """The annotations of the new ReplicaSet (SetNewReplicaSetAnnotations): the Deployment's, and its revision."""
    annotations = dict(one["metadata"].get("annotations") or {})
    given = deployment["metadata"].get("annotations") or {}
    annotations |= {key: value for key, value in given.items() if key not in NOT_COPIED}
    before = annotations.get(REVISION)
    if before is None or int(before) < number:
        annotations[REVISION] = str(number)
        if before is not None:
            known = [part for part in annotations.get(HISTORY, "").split(",") if part]
            annotations[HISTORY] = ",".join([*known, before])
    return annotations


def size_annotations(deployment: JsonObject) -> dict[str, str]:
    surge, _ = limits(deployment)
    wanted = deployment["spec"]["replicas"]
    return {DESIRED: str(wanted), MAXIMUM: str(wanted + surge)}
