"""What one pod's status says: how it stands, and what will keep it from ever being Ready.  Pure.

Reasons: pkg/kubelet/images/types.go and pkg/kubelet/kuberuntime of kubernetes/kubernetes.  Which of them are
hopeless follows krane's pod.rb (Shopify/krane, lib/krane/kubernetes_resource/pod.rb).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from tasks.cluster.answers import JsonObject
from tasks.cluster.rollout_view import condition, containers, name, uid
from tasks.domain.reference import ImageReference

# A registry that answered and said no: another try meets the same answer.
REFUSED = re.compile(
    r"not found|NotFound|manifest unknown|name unknown|access denied|denied|unauthorized|authorization failed"
    r"|authentication required|no basic auth|\b40[13]\b|invalid reference format|no match for platform",
    re.IGNORECASE,
)
# The node could not even look the registry up: "not found" in such a message is about the name, not the image.
UNREACHED = re.compile(
    r"no such host|lookup .* on |i/o timeout|connection refused|no route to host|dial tcp", re.IGNORECASE
)
PULLS = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError"})
START_ERROR = 128  # the runtime could not start the process; it may be the node's passing trouble

Weight = Literal["now", "grace", "crash"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """One reason why a pod will not become Ready.

    `weight`: "now" is hopeless as soon as it is seen, "grace" when it lasts, "crash" when every new pod has it.
    `key` stays the same while the trouble lasts, although the kubelet's reason alternates.
    """

    key: str
    weight: Weight
    reason: str
    message: str
    pod: str
    node: str
    container: str
    image: str
    exit_code: int | None = None
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class PodLine:
    """One pod, as a line for people: `state` is the most telling word ("Running", "ImagePullBackOff")."""

    name: str
    node: str
    new: bool
    ready: bool
    terminating: bool
    state: str
    message: str = ""
    restarts: int = 0
    image_ids: tuple[str, ...] = ()


def finished(pod: JsonObject) -> bool:
    """True for a pod that runs nothing any more and stays as a record (evicted, shut down with its node)."""
    return pod.get("status", {}).get("phase") in ("Failed", "Succeeded")


def terminating(pod: JsonObject) -> bool:
    """True for a pod that was deleted and is on its way out."""
    return bool(pod.get("metadata", {}).get("deletionTimestamp"))


def ready(pod: JsonObject) -> bool:
    """Ready as services see it (readiness gates included), and not on its way out."""
    running = pod.get("status", {}).get("phase") == "Running" and not terminating(pod)
    return running and condition(pod, "Ready").get("status") == "True"


def statuses(pod: JsonObject) -> Iterator[tuple[JsonObject, bool]]:
    """Each container's status with True for those of init containers that run to their end.

    An init container with restartPolicy Always (a native sidecar) stays running and is judged like the others.
    """
    status = pod.get("status") or {}
    specs = containers(pod)
    for found in status.get("initContainerStatuses") or ():
        yield found, specs.get(found.get("name", ""), {}).get("restartPolicy") != "Always"
    for found in status.get("containerStatuses") or ():
        yield found, False


def troubles(pod: JsonObject) -> list[Trouble]:
    """What keeps the pod from being Ready for good; nothing for a pod that is ready, finished or terminating."""
    if finished(pod) or terminating(pod) or ready(pod):
        return []
    found = (_trouble(pod, status, runs_to_end=ends) for status, ends in statuses(pod))
    return [trouble for trouble in found if trouble is not None]


def _trouble(pod: JsonObject, status: JsonObject, *, runs_to_end: bool) -> Trouble | None:
    state, last = status.get("state") or {}, status.get("lastState") or {}
    waiting = state.get("waiting") or {}
    reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    ended = state.get("terminated") or last.get("terminated") or {}
    restarts = int(status.get("restartCount") or 0)
    code = ended.get("exitCode")
    weight = _weight(reason, message, code if isinstance(code, int) else None)
    if weight is None and _crashes(status, restarts, code, runs_to_end=runs_to_end):
        weight, reason = "crash", reason or str(ended.get("reason") or "Error")
        message = message or str(ended.get("message") or "")
    if weight is None or (reason == "CrashLoopBackOff" and restarts < 1):
        return None
    container = str(status.get("name") or "")
    group = "pull" if reason in PULLS else "crash" if weight == "crash" else reason
    return Trouble(
        key=f"{uid(pod) or name(pod)}/{container}/{group}",
        weight=weight,
        reason=reason,
        message=message,
        pod=name(pod),
        node=str(pod.get("spec", {}).get("nodeName") or ""),
        container=container,
        image=str(containers(pod).get(container, {}).get("image") or status.get("image") or ""),
        exit_code=code if isinstance(code, int) else None,
        restarts=restarts,
    )


def _weight(reason: str, message: str, exit_code: int | None) -> Weight | None:
    """How heavy a waiting reason is; None for one that passes by itself."""
    if reason in ("InvalidImageName", "ErrImageNeverPull"):
        return "now"
    if reason in PULLS:
        return "now" if REFUSED.search(message) and not UNREACHED.search(message) else "grace"
    if reason == "CreateContainerConfigError":
        # The kubelet's cache of secrets and config maps is filled a moment later.
        return None if "failed to sync" in message else "now"
    if reason == "CreateContainerError":
        # A runtime under load: the kubelet's next try finds the container made or makes it.
        return None if "context deadline exceeded" in message or "is reserved for" in message else "now"
    if reason == "RunContainerError":
        return None if exit_code == START_ERROR else "now"
    return "crash" if reason == "CrashLoopBackOff" else None


def _crashes(status: JsonObject, restarts: int, exit_code: object, *, runs_to_end: bool) -> bool:
    """A crash loop that the kubelet has not called so yet: two failures, and not ready again.

    It names CrashLoopBackOff some 15 s after the second end, when it next looks at the pod.
    """
    if exit_code in (0, None) or status.get("ready"):
        return False
    done = (status.get("state") or {}).get("terminated") or {}
    if runs_to_end and done.get("exitCode") == 0:
        return False
    return restarts + bool(done) >= 2


def line(pod: JsonObject, *, new: bool) -> PodLine:
    """The pod as people see it (compare `kubectl get pods`, printers.printPod)."""
    state, message = _state(pod)
    found = [status for status, _ in statuses(pod)]
    return PodLine(
        name=name(pod),
        node=str(pod.get("spec", {}).get("nodeName") or ""),
        new=new,
        ready=ready(pod),
        terminating=terminating(pod),
        state=state,
        message=message,
        restarts=sum(int(status.get("restartCount") or 0) for status in found),
        image_ids=tuple(str(status.get("imageID") or "") for status in found),
    )


def _state(pod: JsonObject) -> tuple[str, str]:
    status = pod.get("status") or {}
    if terminating(pod):
        return "Terminating", ""
    if finished(pod):
        return str(status.get("reason") or status.get("phase")), str(status.get("message") or "")
    for found, _ in statuses(pod):
        waiting = (found.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "", "PodInitializing"):
            return str(waiting["reason"]), str(waiting.get("message") or "")
        ended = (found.get("state") or {}).get("terminated") or {}
        if ended and ended.get("exitCode") != 0:
            return str(ended.get("reason") or "Error"), str(ended.get("message") or "")
    return _waiting_for(pod, status)


def _waiting_for(pod: JsonObject, status: JsonObject) -> tuple[str, str]:
    """The state of a pod none of whose containers is in trouble, by its conditions."""
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return str(scheduled.get("reason") or "Unscheduled"), str(scheduled.get("message") or "")
    if ready(pod):
        return "Ready", ""
    if condition(pod, "Initialized").get("status") == "False":
        return "Initializing", ""
    if condition(pod, "ContainersReady").get("status") == "True":
        gates = [g.get("conditionType", "") for g in pod.get("spec", {}).get("readinessGates") or ()]
        open_gates = [gate for gate in gates if condition(pod, gate).get("status") != "True"]
        return "WaitingForReadinessGate", ", ".join(open_gates)
    phase = str(status.get("phase") or "Pending")
    return (
        ("NotReadyYet", "its containers run; its readiness probe has not passed") if phase == "Running" else (phase, "")
    )


def runs(pod: JsonObject, images: Mapping[str, str]) -> str:
    """ "" where the pod was asked to run `images` (container name to image), else a sentence about the difference.

    The pod's spec is what was asked.  The status' image is not compared: the runtime names any tag of the same
    content, so a tag that differs there proves nothing (kubernetes/kubernetes#51017 and others).
    """
    asked = containers(pod)
    for container, image in images.items():
        found = str(asked.get(container, {}).get("image") or "")
        if not same_image(found, image):
            return f"pod {name(pod)} was made with image {found or 'none'} in container {container}, not {image}"
    return ""


def started(pod: JsonObject, images: Mapping[str, str]) -> bool:
    """True where each of the containers named in `images` was started from an image that the runtime identified."""
    ids = {status.get("name"): status.get("imageID") for status, _ in statuses(pod)}
    return all(ids.get(container) for container in images)


def same_image(found: str, wanted: str) -> bool:
    """The same image, or the same repository and tag behind another registry (a mirror set by an admission webhook)."""
    if found == wanted:
        return True
    a, b = ImageReference.find(found), ImageReference.find(wanted)
    if a is None or b is None or a.repository != b.repository:
        return False
    return a.normal == b.normal or a.tag == b.tag or (a.tag is None and a.digest is not None)
