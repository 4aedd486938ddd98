"""Did any container of the new manager ever start?  Only where none did is its database taken as unchanged.  Pure.

What proves it, all of it at once; whatever is missing, the database is taken as changed:

- `metadata.generation` of the Deployment grows by one with each write of its spec or annotations and never else
  (kubernetes pkg/registry/apps/deployment/strategy.go, PrepareForUpdate).  As it was: the change never landed.  One more:
  the change is the only write, so no other rollout, restart or scaling was in between, and there is one new ReplicaSet.
- A ReplicaSet's generation counts its scalings likewise.  Made with no pods and never scaled: it never asked for one.
- Its pods are the first that it made: as many as were wanted, each within `FIRST_SECONDS` of the ReplicaSet's own
  creation.  One that was deleted or evicted has a successor that is younger, or none while pods cannot be made, and
  that condition is then younger than the ReplicaSet (replica_set_utils.go, SetCondition keeps the first time).
- No container of theirs that the upgrade changed was ever made: no container's or image's ID, no run, no restart.  A
  kubelet's word is late by moments, so this counts as its last word only: the state in which the pod was deleted,
  after the Deployment was scaled to zero, seen by a watch that missed nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tasks.cluster.answers import JsonObject
from tasks.cluster.pod_state import finished, statuses, terminating
from tasks.cluster.rollout_view import (
    condition,
    containers,
    controller,
    generation_of,
    is_observed,
    name,
    new_replicaset,
    replicas_of,
    select,
    uid,
)
from tasks.domain.journal import Before, Entry

FIRST_SECONDS = 3.0
"""A ReplicaSet's controller makes the first pods at once, and no container starts, ends and is replaced so soon."""

_LOST = {"NodeLost", "DeletionByPodGC", "DeletionByTaintManager", "DeletionByGarbageCollection"}


@dataclass(frozen=True, slots=True)
class Sight:
    """The objects of the manager's namespace at one moment.

    `gone` are pods in the last state that a watch saw of them, `lists` how often it listed pods: between two sights
    with the same number none came and went unseen.
    """

    deployment: JsonObject | None
    replicasets: tuple[JsonObject, ...] = ()
    pods: tuple[JsonObject, ...] = ()
    gone: tuple[JsonObject, ...] = ()
    lists: int = 1


@dataclass(frozen=True, slots=True)
class Judgement:
    """`unchanged`: it is proved that the new manager never ran.  `why` is a sentence on what proves or disproves it."""

    unchanged: bool
    why: str


class _UnprovenError(Exception):
    """Something that a proof needs is missing; the message is the sentence."""


@dataclass(frozen=True, slots=True)
class _Change:
    """What the journal says of the change: the Deployment before it, and the images to be by container."""

    before: Before
    images: Mapping[str, str] = field(default_factory=dict)


def so_far(entries: Sequence[Entry], sight: Sight) -> Judgement:
    """How it looks now, to be shown: a container may start a moment later, so nothing may be built on it.

    `entries` are the journal's of the upgrade for its manager.
    """
    try:
        change = _change(entries)
        return Judgement(True, _nothing_begun() if change is None else _first_look(change, sight))
    except _UnprovenError as missing:
        return Judgement(False, str(missing))


def never_started(entries: Sequence[Entry], before: Sight, after: Sight) -> Judgement:
    """The judgement to act on: `before` is right before the manager was scaled to zero, `after` when it has no pod."""
    try:
        change = _change(entries)
        if change is None:
            return Judgement(True, _nothing_begun())
        why = _first_look(change, before)
        _only_scaled(before, after)
        if _writes(change, before):
            _ended_unstarted(change, before, after)
        return Judgement(True, why)
    except _UnprovenError as missing:
        return Judgement(False, str(missing))


def _nothing_begun() -> str:
    return "The manager's image was never to be set."


def _change(entries: Sequence[Entry]) -> _Change | None:
    """None where no change of the manager's images was begun."""
    begun = [e for e in entries if e.kind == "set-image" and not e.unmade]
    if not begun:
        return None
    if begun[0].before is None:
        raise _UnprovenError("The journal does not say how the manager was before.")
    return _Change(begun[0].before, {name: image for e in begun for name, image in e.images.items()})


def _writes(change: _Change, sight: Sight) -> int:
    """How often the Deployment's spec was written since the journal's look at it."""
    deployment = sight.deployment
    if deployment is None:
        raise _UnprovenError("The manager's Deployment is gone.")
    if uid(deployment) != change.before.uid:
        raise _UnprovenError("The manager's Deployment was deleted and made anew.")
    return generation_of(deployment) - change.before.generation


def _first_look(change: _Change, sight: Sight) -> str:
    """What proves that nothing started up to this moment, as far as the kubelets have told."""
    writes = _writes(change, sight)
    deployment = sight.deployment or {}
    if writes == 0:
        return "The manager's Deployment is as it was before the upgrade: the change never reached the cluster."
    if writes != 1:
        raise _UnprovenError(f"The manager's Deployment was written {writes} times since, by others too.")
    found = containers(deployment.get("spec", {}).get("template") or {})
    for container, image in change.images.items():
        if found.get(container, {}).get("image") != image:
            raise _UnprovenError(f"Container {container} of the manager's Deployment does not have the new image.")
    replicaset = _new(sight)
    pods = _pods(change, sight, sight.pods)
    if replicaset is None:
        return _no_replicaset(deployment, change, sight, pods)
    return _replicaset_judged(replicaset, pods, change, scaled=0)


def _no_replicaset(deployment: JsonObject, change: _Change, sight: Sight, pods: Sequence[JsonObject]) -> str:
    if pods:
        raise _UnprovenError(f"Pod {name(pods[0])} runs the new image, and nothing says since when.")
    if not is_observed(deployment):
        return "The Deployment's controller has not made anything of the change."
    # With Recreate the new ReplicaSet is made when the last old pod has ended (deployment/recreate.go, oldPodsRunning).
    recreate = (deployment.get("spec", {}).get("strategy") or {}).get("type") == "Recreate"
    old = [pod for pod in select(deployment, sight.replicasets, sight.pods).pods if not finished(pod)]
    if recreate and old and not _new_ones(change, old):
        return "The old manager's pods have not ended, so none of the new one was made."
    raise _UnprovenError("The ReplicaSet of the new manager is not there: what it made is not known.")


def _replicaset_judged(replicaset: JsonObject, pods: Sequence[JsonObject], change: _Change, *, scaled: int) -> str:
    """The one ReplicaSet of the new template and all its pods; `scaled`: how often this run scaled it."""
    wanted = change.before.replicas
    generation, replicas = generation_of(replicaset), replicas_of(replicaset)
    if generation == 1 and replicas == 0:
        if pods:
            raise _UnprovenError(f"Pod {name(pods[0])} is there, which nothing asked for.")
        return f"The ReplicaSet {name(replicaset)} of the new manager never asked for a pod."
    if generation > 1 + scaled:
        raise _UnprovenError(f"The ReplicaSet {name(replicaset)} was scaled since it was made.")
    made = _created(replicaset)
    if not pods and not scaled:
        failure = condition(replicaset, "ReplicaFailure")
        since = _time(failure.get("lastTransitionTime"))
        if failure.get("status") == "True" and since and made and _seconds(made, since) <= FIRST_SECONDS:
            return f"No pod of the new manager could be made: {failure.get('message') or failure.get('reason')}."
    if len(pods) != wanted:
        raise _UnprovenError(
            f"{len(pods)} pods of the new manager were seen where {wanted} were made first: others may have run."
        )
    for pod in pods:
        born = _created(pod)
        if made is None or born is None or _seconds(made, born) > FIRST_SECONDS:
            raise _UnprovenError(f"Pod {name(pod)} is not the first of its ReplicaSet: the one before it may have run.")
        _unstarted(pod, change)
    return f"No container of the new manager was ever made: {_waits(pods[0], change)}."


def _only_scaled(before: Sight, after: Sight) -> None:
    """Between the sights the Deployment was taken to zero, and nothing else was done to it."""
    if after.deployment is None or before.deployment is None or uid(after.deployment) != uid(before.deployment):
        raise _UnprovenError("The manager's Deployment was deleted while it was scaled down.")
    own = 1 if replicas_of(before.deployment) else 0
    if replicas_of(after.deployment) != 0:
        raise _UnprovenError("The manager is not at zero.")
    if generation_of(after.deployment) != generation_of(before.deployment) + own:
        raise _UnprovenError("The manager's Deployment was written by others while it was scaled down.")


def _ended_unstarted(change: _Change, before: Sight, after: Sight) -> None:
    """Every pod of the new manager is gone, and was never started in the last state that was seen of it."""
    if before.lists != after.lists:
        raise _UnprovenError("The watch of the manager's pods was interrupted while they ended.")
    if left := _pods(change, after, after.pods):
        raise _UnprovenError(f"Pod {name(left[0])} of the new manager is still there.")
    known = {uid(pod) for pod in before.gone}
    gone = [pod for pod in after.gone if uid(pod) not in known]
    ended = _pods(change, after, gone) if _new(after) is not None else _new_ones(change, gone)
    unseen = {uid(pod) for pod in _pods(change, before, before.pods)} - {uid(pod) for pod in ended}
    if unseen:
        raise _UnprovenError("The end of a pod of the new manager was not seen.")
    replicaset = _new(after)
    if replicaset is None:
        if ended:
            raise _UnprovenError("The ReplicaSet of the new manager is gone.")
        return
    if not ended:
        _none_came(replicaset, _new(before))
        return
    for pod in ended:
        if pod.get("spec", {}).get("nodeName") and not terminating(pod):
            raise _UnprovenError(f"Pod {name(pod)} was removed before it was told to end.")
    _replicaset_judged(replicaset, ended, change, scaled=1)


def _none_came(replicaset: JsonObject, former: JsonObject | None) -> None:
    """No pod was seen: raise where the ReplicaSet asked for some, unless it was proved before that it got none."""
    never_asked = generation_of(replicaset) == 1 and replicas_of(replicaset) == 0
    in_vain = former is not None and replicas_of(former) > 0
    if not never_asked and not in_vain:
        raise _UnprovenError(f"The ReplicaSet {name(replicaset)} asked for pods that were not seen.")


def _new(sight: Sight) -> JsonObject | None:
    """The ReplicaSet of the Deployment's present template."""
    return new_replicaset(select(sight.deployment, sight.replicasets, ()))


def _pods(change: _Change, sight: Sight, pods: Iterable[JsonObject]) -> list[JsonObject]:
    """The new ReplicaSet's pods.  Raises for one that runs a new image and is of nobody known."""
    replicaset = _new(sight)
    mine, found = uid(replicaset) if replicaset else "", []
    for pod in _new_ones(change, pods):
        if replicaset is not None and controller(pod).get("uid") != mine:
            raise _UnprovenError(f"Pod {name(pod)} runs the new image too, and is not of the manager's ReplicaSet.")
        found.append(pod)
    if replicaset is not None:
        known = {uid(pod) for pod in found}
        found += [pod for pod in pods if controller(pod).get("uid") == mine and uid(pod) not in known]
    return found


def _new_ones(change: _Change, pods: Iterable[JsonObject]) -> list[JsonObject]:
    """Those of `pods` that have a container with one of the new images."""
    images = set(change.images.values()) - set(change.before.images.values())
    return [pod for pod in pods if any(c.get("image") in images for c in containers(pod).values())]


def _unstarted(pod: JsonObject, change: _Change) -> None:
    """Raise where a container of the pod that the upgrade changed was made, or nothing is known of it."""
    status = pod.get("status") or {}
    reasons = {str(status.get("reason") or ""), str(condition(pod, "DisruptionTarget").get("reason") or "")}
    if reasons & _LOST:
        raise _UnprovenError(f"The node of pod {name(pod)} was lost: what ran there is not known.")
    if finished(pod) and not terminating(pod):
        raise _UnprovenError(f"Pod {name(pod)} ended by itself ({status.get('reason') or status.get('phase')}).")
    if not pod.get("spec", {}).get("nodeName"):
        return  # no node was ever told to run it
    told = {str(found.get("name")): found for found, _ in statuses(pod)}
    for container, spec in containers(pod).items():
        # What runs the image that it ran before does what it did before: it is not of the new version.
        if change.before.images.get(container) == spec.get("image"):
            continue
        if container not in told:
            raise _UnprovenError(f"The node has not told of container {container} of pod {name(pod)}.")
        if sign := _sign_of_life(told[container]):
            raise _UnprovenError(f"Container {container} of pod {name(pod)} was started ({sign}).")


def _sign_of_life(status: JsonObject) -> str:
    """What says that the container was made at least once, or ""; whether its process then ran is not asked."""
    state, last = status.get("state") or {}, status.get("lastState") or {}
    ended = state.get("terminated")
    # A newer kubelet writes this over containers of a pod that ends, which it never made (status_manager.go, TerminatePod).
    absent = ended is not None and ended.get("reason") == "ContainerStatusUnknown" and not ended.get("startedAt")
    signs = {
        "it runs": "running" in state,
        "it ended": ended is not None and not absent,
        "it ran before": bool(last.get("terminated") or last.get("running")),
        "it was restarted": int(status.get("restartCount") or 0) > 0,
        "it has an ID": bool(status.get("containerID") or status.get("imageID")),
        "it was started": bool(status.get("started")),
    }
    return next((sign for sign, seen in signs.items() if seen), "")


def _waits(pod: JsonObject, change: _Change) -> str:
    """Why its containers were not started, as far as the kubelet or the scheduler says."""
    for found, _ in statuses(pod):
        waiting = (found.get("state") or {}).get("waiting") or {}
        if found.get("name") in change.images and waiting.get("reason"):
            return f"pod {name(pod)}, {waiting['reason']}"
    scheduled = condition(pod, "PodScheduled")
    return f"pod {name(pod)}, {scheduled.get('reason') or 'not scheduled'}"


def _created(thing: JsonObject) -> datetime | None:
    return _time(thing.get("metadata", {}).get("creationTimestamp"))


def _time(text: object) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) and text else None


def _seconds(first: datetime, second: datetime) -> float:
    return abs((second - first).total_seconds())
