"""The scheduler: which node takes a pod, or why none does."""

from __future__ import annotations

from typing import Any

from deployments.sandbox.recorder import Recorder
from deployments.sandbox.resources import NODES, PODS
from deployments.sandbox.rollout import set_condition
from deployments.sandbox.store import Store, now

JsonObject = dict[str, Any]

_UNITS = {"m": 0.001, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def quantity(text: object) -> float:
    """A resource quantity (`500m`, `2Gi`, `4`) as a number."""
    shown = str(text)
    for unit in sorted(_UNITS, key=len, reverse=True):
        if shown.endswith(unit):
            return float(shown[: -len(unit)]) * _UNITS[unit]
    return float(shown)


def requests_of(pod: JsonObject) -> dict[str, float]:
    total = {"cpu": 0.0, "memory": 0.0, "pods": 1.0}
    for container in pod["spec"].get("containers") or []:
        for name, amount in ((container.get("resources") or {}).get("requests") or {}).items():
            total[name] = total.get(name, 0.0) + quantity(amount)
    return total


def why_not(pod: JsonObject, node: JsonObject, used: dict[str, float]) -> str:
    """Empty when the node takes the pod, else the scheduler's words for why it does not."""
    tolerations = pod["spec"].get("tolerations") or []
    selector = pod["spec"].get("nodeSelector") or {}
    labels = node["metadata"].get("labels") or {}
    if node["spec"].get("unschedulable") and not _tolerated(
        {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}, tolerations
    ):
        return "node(s) were unschedulable"
    if any(labels.get(key) != value for key, value in selector.items()):
        return "node(s) didn't match Pod's node affinity"
    for taint in node["spec"].get("taints") or []:
        if taint["effect"] in ("NoSchedule", "NoExecute") and not _tolerated(taint, tolerations):
            return f"node(s) had taint {{{taint['key']}: {taint.get('value', '')}}}, that the pod didn't tolerate"
    for name, amount in requests_of(pod).items():
        if amount and used.get(name, 0.0) + amount > quantity(node["status"]["allocatable"].get(name, 0)):
            return "Too many pods" if name == "pods" else f"Insufficient {name}"
    return ""


def _tolerated(taint: JsonObject, tolerations: list[JsonObject]) -> bool:
    return any(
        (not one.get("key") or one["key"] == taint["key"])
        and one.get("effect") in (None, "", taint["effect"])
        and (one.get("operator") == "Exists" or one.get("value", "") == taint.get("value", ""))
        for one in tolerations
    )


class Scheduler:
    def __init__(self, store: Store, recorder: Recorder) -> None:
        self._store, self._recorder = store, recorder

    def reconcile(self, namespace: str, name: str) -> float | None:
        pod = self._store.get(PODS, namespace, name)
        if pod is None or pod["spec"].get("nodeName") or "deletionTimestamp" in pod["metadata"]:
            return None
        load = self._load()
        reasons: dict[str, int] = {}
        fitting = []
        for node in self._store.find(NODES):
            reason = why_not(pod, node, load[node["metadata"]["name"]])
            if reason:
                reasons[reason] = reasons.get(reason, 0) + 1
            else:
                fitting.append(node["metadata"]["name"])
        if not fitting:
            self._refuse(pod, reasons)
            return 5.0
        chosen = min(fitting, key=lambda node: (self._siblings(pod, node), load[node]["pods"], node))
        self._bind(pod, chosen)
        return None

    def _load(self) -> dict[str, dict[str, float]]:
        load: dict[str, dict[str, float]] = {
            node["metadata"]["name"]: {"pods": 0.0} for node in self._store.find(NODES)
        }
        for pod in self._store.find(PODS):
            used = load.get(pod["spec"].get("nodeName") or "")
            if used is None or pod["status"].get("phase") in ("Succeeded", "Failed"):
                continue
            for name, amount in requests_of(pod).items():
                used[name] = used.get(name, 0.0) + amount
        return load

    def _siblings(self, pod: JsonObject, node: str) -> int:
        labels = pod["metadata"].get("labels")
        return len(
            self._store.find(
                PODS,
                pod["metadata"]["namespace"],
                lambda one: one["spec"].get("nodeName") == node and one["metadata"].get("labels") == labels,
            )
        )

    def _bind(self, pod: JsonObject, node: str) -> None:
        meta = pod["metadata"]

        def bind(one: JsonObject) -> None:
            one["spec"]["nodeName"] = node
            set_condition(one["status"], "PodScheduled", "True", "", "", now(), clock=False)
            found = next(c for c in one["status"]["conditions"] if c["type"] == "PodScheduled")
            for key in ("reason", "message"):
                found.pop(key, None)
            found["lastProbeTime"] = None

        self._store.edit(PODS, meta["namespace"], meta["name"], bind)
        self._recorder.say(
            pod,
            "Normal",
            "Scheduled",
            f"Successfully assigned {meta['namespace']}/{meta['name']} to {node}",
            "default-scheduler",
        )

    def _refuse(self, pod: JsonObject, reasons: dict[str, int]) -> None:
        total = len(self._store.find(NODES))
        parts = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        message = f"0/{total} nodes are available: {parts}."
        meta = pod["metadata"]

        def refuse(one: JsonObject) -> None:
            set_condition(one["status"], "PodScheduled", "False", "Unschedulable", message, now(), clock=False)
            next(c for c in one["status"]["conditions"] if c["type"] == "PodScheduled")["lastProbeTime"] = None

        self._store.edit(PODS, meta["namespace"], meta["name"], refuse)
        self._recorder.say(pod, "Warning", "FailedScheduling", message, "default-scheduler")
