"""Why a rollout failed, in the words of somebody who has to mend it.

`diagnose` is pure: verdict, events and log lines to the four parts of an error (compare krane's
`debug_message`).  `read_symptoms` fetches what it needs, and never fails: a diagnosis that cannot be completed is
told with what there is.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tasks.cluster.answers import JsonObject, clean
from tasks.cluster.api import KubernetesApi
from tasks.cluster.pod_state import PULLS, PodLine, Trouble
from tasks.cluster.verdict import State, Verdict
from tasks.domain.errors import DriftError, HopelessError, RolloutError, UpgradeError
from tasks.domain.step import RolloutStep

LOG_LINES = 15
EVENTS = 6
LOCK_LEFT = re.compile(r"lock.{0,80}(acquired|held) by another|mongock.{0,40}lock", re.IGNORECASE)
WRONG_SCHEMA = re.compile(r"update the manager first|schema.{0,60}(older|newer|version)|needs \d{4}\.\d", re.IGNORECASE)
NEWER_SCHEMA = re.compile(r"newer than this|downgrade is not supported", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Symptoms:
    """What was read for the diagnosis: event lines, oldest first, and the last log lines of the pod in trouble."""

    events: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    log_of: str = ""


def diagnose(
    step: RolloutStep, verdict: Verdict, symptoms: Symptoms, waited: float, *, served: bool = False
) -> UpgradeError:
    """The error of a rollout that ended: hopeless, drifted, or (progressing still) slow after `waited` seconds.

    `RolloutError`, or `DriftError` where somebody else changed the Deployment.  `served` says that a new pod was Ready at
    any time.  `HopelessError` only where pods failed by themselves before that: a deadline, a pause, a full quota do not.
    """
    what = f"{step.component.value} {step.key}"
    observed = "\n".join(_observed(verdict, symptoms, waited))
    if verdict.state is State.DRIFTED:
        return DriftError(
            f"{what} was changed by somebody else while its rollout was waited for: {verdict.message}.",
            observed=observed,
            safe="It was left as found; what the rollout had begun was not taken back.",
            next=f"See who changes it (kubectl -n {step.key.namespace} get deployment {step.key.name} -o yaml "
            "--show-managed-fields), then go on: it plans from the present state.",
        )
    if verdict.state is State.HOPELESS:
        happened = f"{what} will not become Ready: {_headline(verdict)}."
    else:
        why = _headline(verdict) if verdict.trouble else verdict.message
        happened = f"{what} did not become Ready within {waited:.0f} s: {why}."
    of_pods = verdict.trouble is not None and verdict.reason != "ProgressDeadlineExceeded"
    kind = HopelessError if verdict.state is State.HOPELESS and of_pods and not served else RolloutError
    return kind(happened, observed=observed, safe=_safe(step, verdict), next=_next(step, verdict, symptoms))


def _headline(verdict: Verdict) -> str:
    trouble = verdict.trouble
    if trouble is None:
        return f"{verdict.reason}: {_first_line(verdict.message)}" if verdict.message else verdict.reason
    where = f"pod {trouble.pod}" + (f" on node {trouble.node}" if trouble.node else "")
    if trouble.reason in PULLS or trouble.reason == "ErrImageNeverPull":
        return f"{where} cannot get image {trouble.image} ({trouble.reason})"
    if trouble.reason == "InvalidImageName":
        return f"{trouble.image!r} of container {trouble.container} is no valid image name"
    if trouble.weight == "crash":
        code = "" if trouble.exit_code is None else f", exit code {trouble.exit_code}"
        memory = ", out of memory" if trouble.exit_code == 137 and "OOM" in trouble.message + trouble.reason else ""
        return f"container {trouble.container} of {where} crashes again and again{code}{memory}, image {trouble.image}"
    return f"container {trouble.container} of {where} cannot be started ({trouble.reason}), image {trouble.image}"


def _observed(verdict: Verdict, symptoms: Symptoms, waited: float) -> Iterable[str]:
    counts = verdict.counts
    yield (
        f"After {waited:.0f} s: {counts.updated} of {counts.desired} pods updated, {counts.ready} ready, "
        f"{counts.old} old ones left."
    )
    if verdict.message:
        yield f"{verdict.reason}: {clean(verdict.message)}"
    yield from (_pod(line) for line in verdict.pods[:8] if not line.ready)
    yield from (f"Event: {event}" for event in symptoms.events)
    if symptoms.log:
        yield f"Last log lines of {symptoms.log_of}:"
        yield from (f"  {line}" for line in symptoms.log)


def _pod(line: PodLine) -> str:
    node = f" on {line.node}" if line.node else ""
    restarts = f", {line.restarts} restarts" if line.restarts else ""
    age = "" if line.new else "old "
    return f"{age}pod {line.name}{node}: {line.state}{restarts}" + (
        f": {clean(line.message, 300)}" if line.message else ""
    )


def _safe(step: RolloutStep, verdict: Verdict) -> str:
    old = [line for line in verdict.pods if line.ready and not line.new]
    if old:
        return f"{len(old)} pods of the old version still serve; nothing after this step was touched."
    if verdict.counts.ready:
        return f"{verdict.counts.ready} new pods serve; nothing after this step was touched."
    return (
        f"{step.key} serves nothing now; nothing after this step was touched, and its database is as its pods left it."
    )


def _next(step: RolloutStep, verdict: Verdict, symptoms: Symptoms) -> str:
    trouble = verdict.trouble
    ns, log = step.key.namespace, "\n".join(symptoms.log)
    if trouble is not None and (trouble.reason in PULLS or trouble.reason == "ErrImageNeverPull"):
        return _bring_image(trouble)
    if LOCK_LEFT.search(log):
        return (
            "A migration was killed and left its lock: when no manager runs, remove the document in collection "
            "mongockLock, then go on."
        )
    if NEWER_SCHEMA.search(log):
        return (
            "The database is newer than this version: restore the backup that fits it, or upgrade to the newer version."
        )
    if not step.is_manager and WRONG_SCHEMA.search(log):
        return "The database is not at this version: bring the manager to it first, then go on."
    if "quota" in verdict.message:
        return f"Raise or free the quota (kubectl -n {ns} describe resourcequota), then go on."
    if verdict.reason == "Paused":
        return f"Resume it: kubectl -n {ns} rollout resume deployment/{step.key.name}, then go on."
    if trouble is not None and trouble.weight == "crash":
        return (
            f"Read the whole log: kubectl -n {ns} logs {trouble.pod} -c {trouble.container} --previous; mend what it "
            "says and go on, or roll back."
        )
    if trouble is not None:
        return f"kubectl -n {ns} describe pod {trouble.pod} shows it whole; mend it and go on, or roll back."
    return _next_of_slow(step, verdict)


def _bring_image(trouble: Trouble) -> str:
    node = trouble.node or "the node"
    return (
        f"Bring {trouble.image} to node {node} (on it: ctr -n k8s.io images import FILE; a Docker node: docker load), or "
        f"see that {node} reaches the registry and may pull from it; the kubelet tries again by itself. Then go on."
    )


def _next_of_slow(step: RolloutStep, verdict: Verdict) -> str:
    unscheduled = next((line for line in verdict.pods if line.new and line.state == "Unschedulable"), None)
    if unscheduled is not None:
        return (
            f"No node takes pod {unscheduled.name}: {clean(unscheduled.message, 300)} Make room (or let the rollout do "
            "without a surge pod: maxSurge 0), then go on."
        )
    if verdict.reason in ("NotObserved", "CacheBehind"):
        return "See that kube-controller-manager runs: it has not taken the change up. Then go on."
    if any(line.terminating for line in verdict.pods):
        return "Pods do not end: see whether their nodes are alive (kubectl get nodes), then go on."
    return (
        f"The rollout goes on in the cluster: kubectl -n {step.key.namespace} rollout status "
        f"deployment/{step.key.name}. Go on when it is done, or with a longer deadline."
    )


def _first_line(text: str) -> str:
    return clean(text, 200).partition("\n")[0].rstrip(".")


def read_symptoms(api: KubernetesApi, namespace: str, verdict: Verdict) -> Symptoms:
    """Events and log lines of the pod that decided, or of the first new pod that is not ready."""
    trouble = verdict.trouble
    waiting = next((line for line in verdict.pods if line.new and not line.ready), None)
    pod = trouble.pod if trouble else waiting.name if waiting else ""
    if not pod or verdict.state is State.DRIFTED:
        return Symptoms()
    hasty = api.patient(3)
    events = read_events(hasty, namespace, pod)
    started = trouble is None or trouble.weight == "crash"
    log = read_log(hasty, namespace, pod, trouble.container if trouble else "") if started else ()
    return Symptoms(events, log, f"pod {pod}")


def read_events(api: KubernetesApi, namespace: str, name: str) -> tuple[str, ...]:
    """The last warnings (or all events, where there is no warning) about an object, oldest first; () on any error."""
    try:
        found = api.list(f"/api/v1/namespaces/{namespace}/events", fields=f"involvedObject.name={name}").items
    except UpgradeError:
        return ()
    found.sort(key=_when)
    telling = [event for event in found if event.get("type") == "Warning"] or found
    return tuple(_event(event) for event in telling[-EVENTS:])


def _when(event: JsonObject) -> str:
    times = (event.get("lastTimestamp"), event.get("eventTime"), event.get("metadata", {}).get("creationTimestamp"))
    return str(next((time for time in times if time), ""))


def _event(event: JsonObject) -> str:
    count = int(event.get("count") or 1)
    message = clean(str(event.get("message") or ""), 300)
    return f"{event.get('reason')}: {message}" + (f" ({count} times)" if count > 1 else "")


def read_log(api: KubernetesApi, namespace: str, pod: str, container: str = "") -> tuple[str, ...]:
    """The last lines of the container that crashed: its previous run's where there are any, else the present's.

    Both are asked: between the crash and the next start a node may have the one or the other.  () on any error.
    """
    for previous in (True, False):
        try:
            text = api.text(
                f"/api/v1/namespaces/{namespace}/pods/{pod}/log",
                container=container,
                previous=previous,
                tailLines=LOG_LINES,
            )
        except UpgradeError:
            continue
        # Old kubelets answer 200 with their own apology where there is no previous log.
        lines = [clean(line, 400) for line in text.splitlines() if line.strip()]
        if lines and not lines[0].startswith(("unable to retrieve container logs", "failed to try resolving symlinks")):
            return tuple(lines[-LOG_LINES:])
    return ()
