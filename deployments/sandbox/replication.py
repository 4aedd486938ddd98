"""The ReplicaSet controller and the quota that may refuse its pods."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

from deployments.sandbox import deletion, failures
from deployments.sandbox.defaults import apply_defaults
from deployments.sandbox.faults import Faults, Pace
from deployments.sandbox.recorder import Recorder
from deployments.sandbox.resources import PODS, REPLICASETS, RESOURCEQUOTAS
from deployments.sandbox.rollout import drop_condition, set_condition
from deployments.sandbox.scheduling import quantity
from deployments.sandbox.store import Store, editable, now

JsonObject = dict[str, Any]


def is_active(pod: JsonObject) -> bool:
    return "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") not in ("Succeeded", "Failed")


def pod_condition(pod: JsonObject, kind: str) -> JsonObject | None:
    return next((one for one in pod["status"].get("conditions") or [] if one["type"] == kind), None)


def is_ready(pod: JsonObject) -> bool:
    found = pod_condition(pod, "Ready")
    return found is not None and found["status"] == "True"


def age(timestamp: str) -> float:
    """Seconds since an API timestamp."""
    at = dt.datetime.strptime(timestamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)
    return (dt.datetime.now(dt.UTC) - at).total_seconds()


def first_to_go(pods: list[JsonObject]) -> list[JsonObject]:
    """In the order in which a scale-down takes them (ActivePodsWithRanks): unassigned, pending, not ready, young."""
    phases = {"Pending": 0, "Unknown": 1, "Running": 2}
    newest_first = sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"], reverse=True)
    return sorted(
        newest_first,
        key=lambda pod: (
            bool(pod["spec"].get("nodeName")),
            phases.get(pod["status"].get("phase", "Pending"), 0),
            is_ready(pod),
        ),
    )


class Replicator:
    def __init__(self, store: Store, recorder: Recorder, faults: Faults, pace: Pace) -> None:
        self._store, self._recorder, self._faults, self._pace = store, recorder, faults, pace
        self._failures: dict[str, int] = {}
        self._ready_since: dict[str, float] = {}  # By pod: finer than the whole seconds of its conditions.

    def reconcile(self, namespace: str, name: str) -> float | None:
        one = self._store.get(REPLICASETS, namespace, name)
        if one is None:
            return None
        again: float | None = None
        refusal = ""
        if "deletionTimestamp" not in one["metadata"]:
            refusal = self._manage(one)
            uid = one["metadata"]["uid"]
            if refusal:
                self._failures[uid] = min(self._failures.get(uid, 0) + 1, 12)
                again = 0.05 * 2 ** self._failures[uid]
            else:
                self._failures.pop(uid, None)
        ready_again = self._write_status(one, refusal)
        return min((value for value in (again, ready_again) if value is not None), default=None)

    def _manage(self, one: JsonObject) -> str:
        """Make or delete pods until there are as many as wanted; returns why one could not be made."""
        pods = [pod for pod in self._store.owned(PODS, one) if is_active(pod)]
        missing = one["spec"]["replicas"] - len(pods)
        for _ in range(missing):
            try:
                pod = self.make_pod(one)
            except failures.ApiError as error:
                self._recorder.say(
                    one, "Warning", "FailedCreate", f"Error creating: {error.message}", "replicaset-controller"
                )
                return error.message
            self._recorder.say(
                one, "Normal", "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}", "replicaset-controller"
            )
        for pod in first_to_go(pods)[: max(-missing, 0)]:
            deletion.delete(self._store, PODS, pod, {})
            self._recorder.say(
                one, "Normal", "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}", "replicaset-controller"
            )
        return ""

    def make_pod(self, one: JsonObject) -> JsonObject:
        """Create one pod of a ReplicaSet; raises ApiError 403 when a quota or a fault refuses it."""
        template, meta = editable(one["spec"]["template"]), one["metadata"]
        pod_meta = {
            key: value
            for key, value in (template.get("metadata") or {}).items()
            if key in ("labels", "annotations", "finalizers")
        }
        owner = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "name": meta["name"],
            "uid": meta["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
        pod: JsonObject = {
            "metadata": {
                **pod_meta,
                "generateName": f"{meta['name']}-",
                "namespace": meta["namespace"],
                "ownerReferences": [owner],
            },
            "spec": template["spec"],
        }
        return self.admit(pod)

    def admit(self, pod: JsonObject) -> JsonObject:
        """Store a pod unless its namespace, a fault or a quota refuses it (ApiError 403)."""
        namespace = pod["metadata"]["namespace"]
        name = pod["metadata"].get("name") or pod["metadata"].get("generateName", "")
        if message := self._faults.refused_pods.get(namespace):
            raise failures.forbidden(PODS, name, message)
        for quota in self._store.find(RESOURCEQUOTAS, namespace):
            hard = quota["spec"].get("hard") or {}
            used = len(
                [
                    one
                    for one in self._store.find(PODS, namespace)
                    if one["status"].get("phase") not in ("Succeeded", "Failed")
                ]
            )
            for key in ("pods", "count/pods"):
                if key in hard and used + 1 > quantity(hard[key]):
                    text = f"exceeded quota: {quota['metadata']['name']}, requested: {key}=1, used: {key}={used}, limited: {key}={hard[key]}"
                    raise failures.forbidden(PODS, name, text)
        pod["spec"].setdefault("serviceAccountName", "default")
        pod["spec"].setdefault("serviceAccount", pod["spec"]["serviceAccountName"])
        pod["spec"].setdefault("enableServiceLinks", True)
        pod["spec"].setdefault("priority", 0)
        pod["spec"].setdefault(
            "tolerations",
            [
                {
                    "key": f"node.kubernetes.io/{key}",
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": 300,
                }
                for key in ("not-ready", "unreachable")
            ],
        )
        pod["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
        apply_defaults(PODS, pod)
        return self._store.create(PODS, pod)

    def _write_status(self, one: JsonObject, refusal: str) -> float | None:
        pods = [pod for pod in self._store.owned(PODS, one) if is_active(pod)]
        needed = self._pace.real(one["spec"].get("minReadySeconds") or 0)
        ready = [pod for pod in pods if is_ready(pod)]
        ages = [self._ready_for(pod) for pod in ready] if needed else [0.0 for _ in ready]
        labels = (one["spec"]["template"].get("metadata") or {}).get("labels") or {}
        labelled = [pod for pod in pods if labels.items() <= (pod["metadata"].get("labels") or {}).items()]
        counts = {
            "fullyLabeledReplicas": len(labelled),
            "readyReplicas": len(ready),
            "availableReplicas": sum(1 for seconds in ages if seconds >= needed),
        }

        def write(current: JsonObject) -> None:
            status: JsonObject = {"replicas": len(pods), "observedGeneration": current["metadata"].get("generation", 1)}
            status |= {key: value for key, value in counts.items() if value}
            if current["status"].get("conditions"):
                status["conditions"] = current["status"]["conditions"]
            if refusal:
                set_condition(status, "ReplicaFailure", "True", "FailedCreate", refusal, now(), clock=False)
            else:
                drop_condition(status, "ReplicaFailure")
            current["status"] = status

        self._store.edit(REPLICASETS, one["metadata"]["namespace"], one["metadata"]["name"], write)
        waiting = [needed - seconds for seconds in ages if seconds < needed]
        return max(min(waiting), 0.05) * self._pace.speed if waiting else None

    def _ready_for(self, pod: JsonObject) -> float:
        """Real seconds since a pod was first seen ready, since its last change of that."""
        key = f"{pod['metadata']['uid']} {(pod_condition(pod, 'Ready') or {})['lastTransitionTime']}"
        since = self._ready_since.setdefault(key, time.monotonic())
        return time.monotonic() - since

    def count_quota(self, namespace: str, name: str) -> None:
        pods = [
            pod
            for pod in self._store.find(PODS, namespace)
            if pod["status"].get("phase") not in ("Succeeded", "Failed")
        ]

        def write(quota: JsonObject) -> None:
            hard = quota["spec"].get("hard") or {}
            used = {key: str(len(pods)) if key in ("pods", "count/pods") else "0" for key in hard}
            quota["status"] = {"hard": hard, "used": used}

        self._store.edit(RESOURCEQUOTAS, namespace, name, write)
