"""How a rollout stands: a pure function from objects to a verdict.

Rules, each where it comes from:
- `kubectl rollout status`: kubectl pkg/polymorphichelpers/rollout_status.go, DeploymentStatusViewer.Status;
- the conditions: kstatus (sigs.k8s.io/cli-utils, pkg/kstatus/status/core.go, deploymentConditions), without its
  "unknown means current": what is not proven is not ready;
- hopeless causes: krane (Shopify/krane, kubernetes_resource/pod.rb and deployment.rb).

Times are seconds of one monotonic clock of this process: the clocks of the cluster and of this machine differ,
so a grace period counts from when the trouble was first seen here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tasks.cluster.answers import JsonObject
from tasks.cluster.pod_state import PodLine, Trouble, finished, line, ready, runs, started, terminating, troubles
from tasks.cluster.rollout_view import (
    RolloutView,
    condition,
    containers,
    generation_of,
    is_observed,
    name,
    new_replicaset,
    pods_of,
    replicas_of,
    uid,
)

PULL_GRACE = 15.0
FAILURE_GRACE = 20.0


class State(StrEnum):
    """`DRIFTED`: the Deployment is no longer what the step made it; somebody else's change, left as it is."""

    PROGRESSING = "progressing"
    READY = "ready"
    HOPELESS = "hopeless"
    DRIFTED = "drifted"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the wait is for.

    `generation`: the smallest metadata.generation that holds the change; a cache that shows less is behind.
    `images`: container name to image.  `patient`: a component that may run long before it is Ready (the manager
    migrates), for which the Deployment's own progress deadline is not the end while a new pod runs uncrashed.
    `stale`: evidence of a former run (`stale_evidence`), which counts only when it is met anew.
    """

    uid: str
    generation: int
    images: Mapping[str, str]
    patient: bool = False
    stale: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Counts:
    """Pods: wanted; of the new template; of those, ready; available (of any template); all others that still run (old ones, ending ones)."""

    desired: int = 0
    updated: int = 0
    ready: int = 0
    available: int = 0
    old: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is one word, `message` a sentence.  `trouble` is the pod's trouble that decided, or is seen.

    `wake`: the time at which the verdict changes although no object does (a grace period ends), or None.
    """

    state: State
    reason: str
    message: str
    counts: Counts = Counts()
    pods: tuple[PodLine, ...] = ()
    trouble: Trouble | None = None
    wake: float | None = None


Memory = Mapping[str, float]
DEADLINE = "deadline"
BACK_OFF = 330.0  # seconds: the kubelet's longest back-off and a little


def remember(memory: Memory, view: RolloutView, now: float) -> dict[str, float]:
    """When each present trouble was first seen; what has passed is forgotten.

    A pull trouble is kept while its container waits: the kubelet's reason may be gone for the moment of a try.
    """
    present = {trouble.key for pod in view.pods for trouble in troubles(pod)}
    if view.deployment is not None:
        present |= {key for key, _, _ in _failures(view.deployment)}
    waiting = {f"{uid(pod) or name(pod)}/" for pod in view.pods if not ready(pod) and not finished(pod)}
    kept = {key for key in memory if key.endswith("/pull") and any(key.startswith(pod) for pod in waiting)}
    return {key: memory.get(key, now) for key in present | kept}


def stale_evidence(view: RolloutView) -> frozenset[str]:
    """What speaks against a rollout already when a wait begins that changed nothing: evidence of a former run.

    Its cause may be mended by now (an image brought, a database back), and the kubelet tries again by itself, at the
    latest after its longest back-off (`MaxContainerBackOff`, 300 s), so it counts only when it is met anew.  A name that
    can never be an image's is no such evidence.
    """
    found = {_mark(trouble) for pod in view.pods for trouble in troubles(pod) if trouble.reason != "InvalidImageName"}
    late = condition(view.deployment or {}, "Progressing").get("reason") == "ProgressDeadlineExceeded"
    return frozenset(found | ({DEADLINE} if late else set()))


def _mark(trouble: Trouble) -> str:
    return f"{trouble.key}@{trouble.restarts}"


def _counts(trouble: Trouble, wanted: Wanted, now: float, seen: Memory) -> bool:
    """Whether a trouble is evidence of this wait."""
    return _mark(trouble) not in wanted.stale or now - seen.get(trouble.key, now) >= BACK_OFF


def judge(view: RolloutView, wanted: Wanted, now: float, seen: Memory) -> Verdict:
    """The verdict on `view`; `seen` is `remember`ed with the same view and `now`."""
    deployment = view.deployment
    drift = _drift(deployment, wanted)
    if drift is not None or deployment is None:
        return drift or Verdict(State.DRIFTED, "Deleted", "the Deployment is gone")
    replicaset = new_replicaset(view)
    new = pods_of(view, replicaset)
    counts = _count(deployment, view, new)
    ours = {uid(pod) for pod in new}
    pods = tuple(line(pod, new=uid(pod) in ours) for pod in view.pods)
    missing = _unproven(view, wanted, new, counts)
    if missing is None:
        return Verdict(State.READY, "Complete", f"{counts.ready} of {counts.desired} pods are ready", counts, pods)
    end = _hopeless(view, wanted, new, now, seen)
    if end is not None:
        return Verdict(State.HOPELESS, end[0], end[1], counts, pods, end[2])
    reason, message = missing
    wake = _wake(view, new, now, seen)
    return Verdict(State.PROGRESSING, reason, message, counts, pods, _seen_trouble(new), wake)


def _drift(deployment: JsonObject | None, wanted: Wanted) -> Verdict | None:
    """The Deployment is gone, is another, is being deleted, or no longer names the wanted images."""
    if deployment is None:
        return Verdict(State.DRIFTED, "Deleted", "the Deployment was deleted while its pods were waited for")
    meta = deployment.get("metadata", {})
    if uid(deployment) != wanted.uid:
        return Verdict(State.DRIFTED, "Replaced", "the Deployment was deleted and made anew by somebody else")
    if meta.get("deletionTimestamp"):
        return Verdict(State.DRIFTED, "Deleted", "the Deployment is being deleted")
    if int(meta.get("generation") or 0) < wanted.generation:
        return None  # the cache is behind: nothing it says about images counts
    found = containers(deployment.get("spec", {}).get("template") or {})
    for container, image in wanted.images.items():
        now = found.get(container, {}).get("image")
        if now != image:
            return Verdict(
                State.DRIFTED,
                "ImageChanged",
                f"container {container} was given image {now or 'none'} by somebody else, in place of {image}",
            )
    return None


def _count(deployment: JsonObject, view: RolloutView, new: tuple[JsonObject, ...]) -> Counts:
    status = deployment.get("status") or {}
    live = [pod for pod in new if not terminating(pod) and not finished(pod)]
    old = sum(not finished(pod) for pod in view.pods) - len(live)
    return Counts(
        desired=replicas_of(deployment),
        updated=len(live),
        ready=sum(ready(pod) for pod in live),
        available=int(status.get("availableReplicas") or 0),
        old=old,
    )


def _unproven(view: RolloutView, wanted: Wanted, new: tuple[JsonObject, ...], counts: Counts) -> tuple[str, str] | None:
    """What is still missing to call it ready, or None where everything is proven."""
    deployment = view.deployment or {}
    status = deployment.get("status") or {}
    generation = generation_of(deployment)
    if generation < wanted.generation:
        return "CacheBehind", "waiting for the watch to show the change"
    if generation == 0 or not is_observed(deployment):
        return "NotObserved", "waiting for the Deployment's controller to see the change"
    short = _short(status, counts)
    if short is not None:
        return short
    if condition(deployment, "Available").get("status") != "True":
        return "NotAvailable", "the Deployment does not report itself available"
    if condition(deployment, "Progressing").get("reason") == "ProgressDeadlineExceeded":
        return "ProgressDeadlineExceeded", "the Deployment's controller reports no progress"
    if counts.desired == 0:
        return None
    return _pods_unproven(new, wanted, counts)


def _short(status: JsonObject, counts: Counts) -> tuple[str, str] | None:
    """The counts of `kubectl rollout status`, in its order, then those of kstatus."""
    total, updated, available, ready_now = (
        int(status.get(field) or 0) for field in ("replicas", "updatedReplicas", "availableReplicas", "readyReplicas")
    )
    want = counts.desired
    if updated < want:
        return "Updating", f"{updated} of {want} pods updated"
    if total > updated:
        return "OldPods", f"{total - updated} old pods are still there"
    if want == 0 and counts.old + counts.updated:
        # kubectl is content here; a restore of the database is not while a pod still writes.
        return "Terminating", f"{counts.old + counts.updated} pods are still ending"
    if want == 0 and total:
        return "Terminating", f"{total} pods are still counted"
    if available < updated or available < want:
        return "Starting", f"{counts.ready} of {want} pods ready, {available} available"
    if ready_now < want:
        return "Starting", f"{ready_now} of {want} pods ready"
    return None


def _pods_unproven(new: tuple[JsonObject, ...], wanted: Wanted, counts: Counts) -> tuple[str, str] | None:
    """The pods themselves: enough new ones ready, each asked to run the wanted images and started from one."""
    if not new:
        return "NoReplicaSet", "the new pods are not seen yet"
    proven = sum(ready(pod) and not runs(pod, wanted.images) and started(pod, wanted.images) for pod in new)
    if proven < counts.desired:
        return "Starting", f"{proven} of {counts.desired} pods proven ready with the new image"
    return None


def _hopeless(
    view: RolloutView, wanted: Wanted, new: tuple[JsonObject, ...], now: float, seen: Memory
) -> tuple[str, str, Trouble | None] | None:
    """(reason, message, trouble) where the rollout will not succeed by waiting, or None."""
    deployment = view.deployment or {}
    if generation_of(deployment) < wanted.generation:
        return None
    if deployment.get("spec", {}).get("paused"):
        return "Paused", "the Deployment is paused: its controller rolls nothing out", None
    found = _pod_trouble(new, wanted, now, seen)
    if found is not None:
        return found.reason, _sentence(found), found
    for pod in new:
        if not terminating(pod) and not finished(pod) and (wrong := runs(pod, wanted.images)):
            return "ImageRewritten", f"{wrong}: an admission webhook or somebody else changed it", None
    return _controller_trouble(view, wanted, new, now, seen)


def _sentence(trouble: Trouble) -> str:
    if trouble.weight != "crash":
        return trouble.message or f"pod {trouble.pod} cannot start"
    code = "" if trouble.exit_code is None else f", the last time with exit code {trouble.exit_code}"
    return (
        f"container {trouble.container} of pod {trouble.pod} ended again and again ({trouble.restarts} restarts{code})"
    )


def _pod_trouble(new: tuple[JsonObject, ...], wanted: Wanted, now: float, seen: Memory) -> Trouble | None:
    live = [pod for pod in new if not terminating(pod) and not finished(pod)]
    crashed: list[Trouble] = []
    for pod in live:
        for trouble in troubles(pod):
            if not _counts(trouble, wanted, now, seen):
                continue
            if trouble.weight == "now":
                return trouble
            if trouble.weight == "grace" and now - seen.get(trouble.key, now) >= PULL_GRACE:
                return trouble
            if trouble.weight == "crash":
                crashed.append(trouble)
                break
    # One pod of several may crash for its node's sake while the others come up: only all of them is a verdict.
    return crashed[0] if crashed and len(crashed) == len(live) else None


def _failures(deployment: JsonObject) -> list[tuple[str, str, str]]:
    """(key, reason, message) of what keeps the controllers from making pods: quota, admission, a bad template."""
    failure, progressing = condition(deployment, "ReplicaFailure"), condition(deployment, "Progressing")
    found = []
    if failure.get("status") == "True":
        found.append(("replica-failure", str(failure.get("reason")), str(failure.get("message") or "")))
    if progressing.get("status") == "False" and progressing.get("reason") == "ReplicaSetCreateError":
        found.append(("replicaset-error", "ReplicaSetCreateError", str(progressing.get("message") or "")))
    return found


def _controller_trouble(
    view: RolloutView, wanted: Wanted, new: tuple[JsonObject, ...], now: float, seen: Memory
) -> tuple[str, str, Trouble | None] | None:
    deployment = view.deployment or {}
    # A quota is often full only until an old pod has ended: while one is ending, wait on.
    ending = any(terminating(pod) for pod in view.pods)
    for key, reason, message in _failures(deployment):
        if not ending and now - seen.get(key, now) >= FAILURE_GRACE:
            return reason, message, None
    observed = int((deployment.get("status") or {}).get("observedGeneration") or 0)
    progressing = condition(deployment, "Progressing")
    late = progressing.get("reason") == "ProgressDeadlineExceeded" and DEADLINE not in wanted.stale
    if late and observed >= generation_of(deployment):
        if wanted.patient and any(_runs_uncrashed(pod) for pod in new):
            return None
        return "ProgressDeadlineExceeded", str(progressing.get("message") or "no progress"), _seen_trouble(new)
    return None


def _seen_trouble(new: tuple[JsonObject, ...]) -> Trouble | None:
    """What ails a new pod, decisive or not: when patience ends, it is the likely cause."""
    return next((trouble for pod in new for trouble in troubles(pod)), None)


def _runs_uncrashed(pod: JsonObject) -> bool:
    return pod.get("status", {}).get("phase") == "Running" and not terminating(pod) and not troubles(pod)


def _wake(view: RolloutView, new: tuple[JsonObject, ...], now: float, seen: Memory) -> float | None:
    """The first time at which a grace period that runs now will have ended."""
    ends = [
        seen[trouble.key] + PULL_GRACE
        for pod in new
        for trouble in troubles(pod)
        if trouble.weight == "grace" and trouble.key in seen
    ]
    ends += [seen[key] + FAILURE_GRACE for key, _, _ in _failures(view.deployment or {}) if key in seen]
    return min((end for end in ends if end > now), default=None)
