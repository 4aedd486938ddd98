"""Deployment objects as an API server serves them, from the few words that a case gives."""

from collections.abc import Sequence
from typing import Any

from tasks.domain.discovery import Correction, JsonObject, deployment_facts
from tasks.domain.inventory import Inventory, sorted_deployments


def deployment_object(case: dict[str, Any]) -> JsonObject:
    """`at` is namespace/name; `runs` an image or a list of `{name, image, init, ports}`; `pods` 1; the rest is rare."""
    namespace, name = case["at"].split("/")
    runs = case["runs"] if isinstance(case["runs"], list) else [{"name": "main", "image": case["runs"]}]
    pods = case.get("pods", 1)
    ready = case.get("ready", pods)
    pod: JsonObject = {"containers": [], "initContainers": []}
    for container in runs:
        ports = [{"containerPort": p, "protocol": "TCP"} for p in container.get("ports", [])]
        pod["initContainers" if container.get("init") else "containers"].append(
            {"name": container["name"], "image": container["image"], "ports": ports}
        )
    return {
        "metadata": {
            "namespace": namespace,
            "name": name,
            "uid": f"uid-{namespace}-{name}",
            "resourceVersion": "100",
            "generation": 2,
            "labels": case.get("labels", {}),
            "annotations": case.get("annotations", {}),
        },
        "spec": {
            "replicas": pods,
            "paused": case.get("paused", False),
            "strategy": {"type": case.get("strategy", "RollingUpdate")},
            "selector": {"matchLabels": {"app": name}},
            "template": {"spec": pod},
        },
        "status": {
            "observedGeneration": 2,
            "replicas": pods,
            "updatedReplicas": pods,
            "readyReplicas": ready,
            "availableReplicas": ready,
        },
    }


def corrections_of(case: dict[str, Any]) -> list[Correction]:
    return [Correction.model_validate(c) for c in case.get("overrides", [])]


def inventory_of(deployments: Sequence[dict[str, Any]], corrections: Sequence[Correction] = ()) -> Inventory:
    found = (deployment_facts(deployment_object(d), d.get("cluster", ""), corrections) for d in deployments)
    return Inventory(deployments=sorted_deployments(d for d in found if d is not None))
