"""A node that nobody hears of any more, as the node controller then writes it (pkg/controller/nodelifecycle), and its return."""

from __future__ import annotations

from typing import Any

from deployments.sandbox.kubelet import Kubelet
from deployments.sandbox.resources import NODES, PODS
from deployments.sandbox.rollout import set_condition
from deployments.sandbox.store import Store, now

JsonObject = dict[str, Any]
UNREACHABLE = "node.kubernetes.io/unreachable"


def lose(store: Store, kubelet: Kubelet, name: str) -> None:
    """Cut a node off, and note it at once: without the 40 s for which the node controller waits.

    Its containers run on, and its pods stay as they are: those that are deleted stay Terminating.
    """
    store.must_get(NODES, "", name)
    kubelet.lose(name)
    at = now()

    def unknown(node: JsonObject) -> None:
        for one in list(node["status"]["conditions"]):
            message = "Kubelet stopped posting node status."
            set_condition(node["status"], one["type"], "Unknown", "NodeStatusUnknown", message, at, clock=False)
        rest = [one for one in node["spec"].get("taints") or [] if one["key"] != UNREACHABLE]
        effects = ("NoSchedule", "NoExecute")
        node["spec"]["taints"] = [*rest, *({"key": UNREACHABLE, "effect": one, "timeAdded": at} for one in effects)]

    def not_ready(pod: JsonObject) -> None:
        for one in pod["status"].get("conditions") or []:
            if one["type"] == "Ready" and one["status"] == "True":
                one |= {"status": "False", "lastTransitionTime": at}

    store.edit(NODES, "", name, unknown)
    for pod in store.find(PODS, "", lambda one: one["spec"].get("nodeName") == name):
        store.edit(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"], not_ready)


def find_again(store: Store, kubelet: Kubelet, name: str) -> None:
    """The node is heard of again; one whose object was deleted meanwhile stays unknown to the cluster."""
    reasons = {
        "MemoryPressure": ("False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        "DiskPressure": ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        "PIDPressure": ("False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        "Ready": ("True", "KubeletReady", "kubelet is posting ready status"),
    }

    def well(node: JsonObject) -> None:
        for kind, (value, reason, message) in reasons.items():
            set_condition(node["status"], kind, value, reason, message, now(), clock=False)
        rest = [one for one in node["spec"].get("taints") or [] if one["key"] != UNREACHABLE]
        node["spec"].pop("taints", None)
        if rest:
            node["spec"]["taints"] = rest

    if store.get(NODES, "", name) is not None:
        store.edit(NODES, "", name, well)
    kubelet.find_again(name)
