"""Does a manager that was given up fail once more, from a start to its end, under our eyes?  Pure.

A crash says little by itself: the database was away for a moment, a node was busy.  And a manager between two crashes
may be migrating.  So what is to be undone by itself must have failed in a whole run that began after the first look.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.cluster.answers import JsonObject
from tasks.cluster.pod_state import finished, ready, statuses, terminating
from tasks.cluster.rollout_view import containers, new_replicaset, pods_of, select, uid


@dataclass(frozen=True, slots=True)
class Runs:
    """Of one container: how many runs have ended, and whether one goes on now."""

    ended: int = 0
    going_on: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """A Deployment's new pods at one moment: `runs` by the pod's uid and the container's name.

    `changed`: it is no longer what the upgrade made it; a part of a sentence, "" where it is.
    """

    runs: Mapping[str, Mapping[str, Runs]]
    serves: bool = False
    changed: str = ""

    @property
    def at_work(self) -> bool:
        """Whether a container runs now, which may migrate."""
        return any(one.going_on for pod in self.runs.values() for one in pod.values())


def standing(
    deployment: JsonObject | None,
    replicasets: Sequence[JsonObject],
    pods: Sequence[JsonObject],
    images: Mapping[str, str],
) -> Standing:
    """How the Deployment stands whose containers (`images` by name) the upgrade changed."""
    if deployment is None:
        return Standing({}, changed="it is gone")
    found = containers(deployment.get("spec", {}).get("template") or {})
    if any(found.get(name, {}).get("image") != image for name, image in images.items()):
        return Standing({}, changed="its image was changed")
    view = select(deployment, replicasets, pods)
    live = [pod for pod in pods_of(view, new_replicaset(view)) if not terminating(pod) and not finished(pod)]
    return Standing({uid(pod): _runs(pod, images) for pod in live}, serves=any(ready(pod) for pod in live))


def failed_again(first: Standing, now: Standing) -> bool:
    """Whether every pod has failed in a run that began after `first`, or has none that ever began.

    A pod that came since counts from its own beginning.
    """
    if now.changed or now.serves or (first.runs and not now.runs):
        return False
    return all(_failed(first.runs.get(pod, {}), runs) for pod, runs in now.runs.items())


def _failed(first: Mapping[str, Runs], now: Mapping[str, Runs]) -> bool:
    if any(one.going_on for one in now.values()):
        return False
    if not any(one.ended for one in now.values()):
        return bool(now)  # an image that cannot be had: nothing ever began; of what nobody told, nothing is known
    return any(one.ended >= _needed(first.get(name, Runs())) for name, one in now.items())


def _needed(first: Runs) -> int:
    """The run that went on at the first look began before it."""
    return first.ended + (2 if first.going_on else 1)


def _runs(pod: JsonObject, images: Mapping[str, str]) -> Mapping[str, Runs]:
    if not pod.get("spec", {}).get("nodeName"):
        return dict.fromkeys(images, Runs())  # no node was ever told to run it
    return {str(found["name"]): _run(found) for found, _ in statuses(pod) if found.get("name") in images}


def _run(status: JsonObject) -> Runs:
    """`restartCount` counts the runs begun after the first; while none goes on, the last one begun has ended too."""
    state, last = status.get("state") or {}, status.get("lastState") or {}
    restarts, going_on = int(status.get("restartCount") or 0), "running" in state
    begun = restarts > 0 or "terminated" in state or "terminated" in last
    return Runs(restarts + (1 if begun and not going_on else 0), going_on)
