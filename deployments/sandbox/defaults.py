"""What the server adds to an object that leaves it out. Pure; from k8s.io/kubernetes/pkg/apis/{core,apps}/v1/defaults.go."""

from __future__ import annotations

import base64
from typing import Any

from deployments.sandbox.resources import Resource

JsonObject = dict[str, Any]


def apply_defaults(resource: Resource, obj: JsonObject) -> None:
    """Fill in, in place, what the server fills in."""
    obj["kind"], obj["apiVersion"] = resource.kind, resource.api_version
    match resource.plural:
        case "deployments":
            _default_deployment(obj.setdefault("spec", {}))
            obj.setdefault("status", {})
        case "replicasets":
            obj.setdefault("spec", {}).setdefault("replicas", 1)
            _default_pod(obj["spec"].get("template", {}).setdefault("spec", {}))
            obj.setdefault("status", {"replicas": 0})
        case "pods":
            _default_pod(obj.setdefault("spec", {}))
            obj.setdefault("status", {"phase": "Pending", "qosClass": "BestEffort"})
        case "services":
            _default_service(obj.setdefault("spec", {}))
            obj.setdefault("status", {"loadBalancer": {}})
        case "secrets":
            obj.setdefault("type", "Opaque")
            for key, value in (obj.pop("stringData", None) or {}).items():
                obj.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()
        case "namespaces":
            obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
            obj.setdefault("status", {"phase": "Active"})
            obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"].get("name", "")


def _give(obj: JsonObject, name: str, value: Any) -> Any:
    """Set a field that is absent or null, as decoding and defaulting do; returns what it now is."""
    if obj.get(name) is None:
        obj[name] = value
    return obj[name]


def _default_deployment(spec: JsonObject) -> None:
    _give(spec, "replicas", 1)
    strategy = _give(spec, "strategy", {})
    _give(strategy, "type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.get("rollingUpdate") or {}
        _give(rolling, "maxUnavailable", "25%")
        _give(rolling, "maxSurge", "25%")
        strategy["rollingUpdate"] = rolling
    _give(spec, "revisionHistoryLimit", 10)
    _give(spec, "progressDeadlineSeconds", 600)
    template = _give(spec, "template", {})
    template.setdefault("metadata", {}).setdefault("creationTimestamp", None)
    _default_pod(template.setdefault("spec", {}))


def _default_pod(spec: JsonObject) -> None:
    _give(spec, "restartPolicy", "Always")
    _give(spec, "terminationGracePeriodSeconds", 30)
    _give(spec, "dnsPolicy", "ClusterFirst")
    _give(spec, "securityContext", {})
    _give(spec, "schedulerName", "default-scheduler")
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        if isinstance(container, dict):
            _default_container(container)


def _default_container(container: JsonObject) -> None:
    image = str(container.get("image", ""))
    tag = image.rsplit("/", 1)[-1].partition(":")[2]
    latest = "@" not in image and tag in ("", "latest")
    _give(container, "imagePullPolicy", "Always" if latest else "IfNotPresent")
    _give(container, "terminationMessagePath", "/dev/termination-log")
    _give(container, "terminationMessagePolicy", "File")
    _give(container, "resources", {})
    for port in container.get("ports") or []:
        _give(port, "protocol", "TCP")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe := container.get(name):
            for key, value in (
                ("timeoutSeconds", 1),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("failureThreshold", 3),
            ):
                probe.setdefault(key, value)
            if "httpGet" in probe:
                probe["httpGet"].setdefault("scheme", "HTTP")


def _default_service(spec: JsonObject) -> None:
    _give(spec, "type", "ClusterIP")
    _give(spec, "sessionAffinity", "None")
    for port in spec.get("ports") or []:
        _give(port, "protocol", "TCP")
        _give(port, "targetPort", port.get("port"))
