"""Tables, as kubectl asks for them (`Accept: application/json;as=Table`). Anything else gets the plain object.

Columns follow k8s.io/kubernetes/pkg/printers/internalversion/printers.go; those of priority 1 show with `-o wide`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from deployments.sandbox.exchange import Exchange
from deployments.sandbox.resources import Resource

JsonObject = dict[str, Any]
Column = tuple[str, int, Callable[[JsonObject], object]]


def _age(timestamp: str | None) -> str:
    """A duration as kubectl prints it (duration.HumanDuration, the coarse part)."""
    if not timestamp:
        return "<unknown>"
    at = dt.datetime.strptime(timestamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)
    seconds = max(int((dt.datetime.now(dt.UTC) - at).total_seconds()), 0)
    if seconds < 120:
        return f"{seconds}s"
    minutes = seconds // 60
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours = minutes // 60
    return f"{hours}h" if hours < 48 else f"{hours // 24}d"


def _created(obj: JsonObject) -> str:
    return _age(obj["metadata"].get("creationTimestamp"))


def _template(obj: JsonObject) -> JsonObject:
    return obj["spec"]["template"]["spec"]  # type: ignore[no-any-return]


def _names(obj: JsonObject) -> str:
    return ",".join(one["name"] for one in _template(obj)["containers"])


def _images(obj: JsonObject) -> str:
    return ",".join(one["image"] for one in _template(obj)["containers"])


def _selector(obj: JsonObject) -> str:
    labels = (obj["spec"].get("selector") or {}).get("matchLabels") or {}
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels))


def _count(name: str) -> Callable[[JsonObject], int]:
    return lambda obj: (obj.get("status") or {}).get(name) or 0


def _ready_pods(obj: JsonObject) -> str:
    return f"{_count('readyReplicas')(obj)}/{obj['spec']['replicas']}"


def pod_status(pod: JsonObject) -> str:
    """The STATUS column of `kubectl get pods`."""
    status = pod["status"]
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    shown: str = status.get("reason") or status.get("phase", "Unknown")
    for index, one in enumerate(status.get("initContainerStatuses") or []):
        state = one["state"]
        if state.get("terminated", {}).get("exitCode") == 0 and "terminated" in state:
            continue
        reason = state.get("terminated", state.get("waiting", {})).get("reason", "")
        total = len(pod["spec"]["initContainers"])
        return f"Init:{reason}" if reason and reason != "PodInitializing" else f"Init:{index}/{total}"
    for one in reversed(status.get("containerStatuses") or []):
        state = one["state"]
        reason = state.get("waiting", state.get("terminated", {})).get("reason", "")
        shown = reason or shown
    return shown


def _pod_ready(pod: JsonObject) -> str:
    statuses = pod["status"].get("containerStatuses") or []
    return f"{sum(bool(one['ready']) for one in statuses)}/{len(pod['spec']['containers'])}"


def _restarts(pod: JsonObject) -> int:
    return sum(one["restartCount"] for one in pod["status"].get("containerStatuses") or [])


def _node_status(node: JsonObject) -> str:
    ready = next((one["status"] for one in node["status"]["conditions"] if one["type"] == "Ready"), "Unknown")
    return ("Ready" if ready == "True" else "NotReady") + (
        ",SchedulingDisabled" if node["spec"].get("unschedulable") else ""
    )


def _event_object(event: JsonObject) -> str:
    involved = event["involvedObject"]
    return f"{involved.get('kind', '').lower()}/{involved.get('name', '')}"


_COLUMNS: dict[str, list[Column]] = {
    "deployments": [
        ("Ready", 0, _ready_pods),
        ("Up-to-date", 0, _count("updatedReplicas")),
        ("Available", 0, _count("availableReplicas")),
        ("Age", 0, _created),
        ("Containers", 1, _names),
        ("Images", 1, _images),
        ("Selector", 1, _selector),
    ],
    "replicasets": [
        ("Desired", 0, lambda obj: obj["spec"]["replicas"]),
        ("Current", 0, _count("replicas")),
        ("Ready", 0, _count("readyReplicas")),
        ("Age", 0, _created),
        ("Containers", 1, _names),
        ("Images", 1, _images),
        ("Selector", 1, _selector),
    ],
    "pods": [
        ("Ready", 0, _pod_ready),
        ("Status", 0, pod_status),
        ("Restarts", 0, _restarts),
        ("Age", 0, _created),
        ("IP", 1, lambda pod: pod["status"].get("podIP") or "<none>"),
        ("Node", 1, lambda pod: pod["spec"].get("nodeName") or "<none>"),
        ("Nominated Node", 1, lambda _pod: "<none>"),
        ("Readiness Gates", 1, lambda _pod: "<none>"),
    ],
    "nodes": [
        ("Status", 0, _node_status),
        ("Roles", 0, lambda _node: "<none>"),
        ("Age", 0, _created),
        ("Version", 0, lambda node: node["status"]["nodeInfo"]["kubeletVersion"]),
    ],
    "namespaces": [("Status", 0, lambda obj: obj["status"]["phase"]), ("Age", 0, _created)],
    "services": [
        ("Type", 0, lambda obj: obj["spec"]["type"]),
        ("Cluster-IP", 0, lambda obj: obj["spec"].get("clusterIP") or "<none>"),
        ("External-IP", 0, lambda _obj: "<none>"),
        (
            "Port(s)",
            0,
            lambda obj: ",".join(f"{one['port']}/{one['protocol']}" for one in obj["spec"].get("ports") or []),
        ),
        ("Age", 0, _created),
    ],
    "secrets": [
        ("Type", 0, lambda obj: obj["type"]),
        ("Data", 0, lambda obj: len(obj.get("data") or {})),
        ("Age", 0, _created),
    ],
    "configmaps": [("Data", 0, lambda obj: len(obj.get("data") or {})), ("Age", 0, _created)],
    "leases": [("Holder", 0, lambda obj: (obj.get("spec") or {}).get("holderIdentity") or ""), ("Age", 0, _created)],
}
_EVENT_COLUMNS: list[Column] = [
    ("Last Seen", 0, lambda event: _age(event.get("lastTimestamp"))),
    ("Type", 0, lambda event: event.get("type", "")),
    ("Reason", 0, lambda event: event.get("reason", "")),
    ("Object", 0, _event_object),
    ("Message", 0, lambda event: str(event.get("message", "")).strip()),
]


def _columns(resource: Resource) -> list[Column]:
    if resource.plural == "events":
        return _EVENT_COLUMNS
    name: Column = ("Name", 0, lambda obj: obj["metadata"]["name"])
    return [name, *_COLUMNS.get(resource.plural, [("Age", 0, _created)])]


def _wanted(exchange: Exchange) -> bool:
    return "as=Table" in exchange.accept and "g=meta.k8s.io" in exchange.accept


def _table(
    resource: Resource, objects: list[JsonObject], exchange: Exchange, meta: JsonObject, *, header: bool = True
) -> JsonObject:
    columns = _columns(resource)
    whole = exchange.query.get("includeObject") == "Object"
    rows = []
    for obj in objects:
        kept = {"kind": resource.kind, "apiVersion": resource.api_version, **obj}
        partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
        rows.append({"cells": [read(obj) for _, _, read in columns], "object": kept if whole else partial})
    shown = [
        {
            "name": name,
            "type": "string",
            "format": "name" if name == "Name" else "",
            "description": "",
            "priority": priority,
        }
        for name, priority, _ in columns
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": shown if header else [],
        "rows": rows,
    }


def of_list(resource: Resource, found: JsonObject, exchange: Exchange) -> JsonObject | None:
    """A list as a table; None when the client wants the list."""
    return _table(resource, found["items"], exchange, found["metadata"]) if _wanted(exchange) else None


def of_object(resource: Resource, obj: JsonObject, exchange: Exchange) -> JsonObject | None:
    """One object as a table; None when the client wants the object."""
    if not _wanted(exchange) or obj.get("kind") != resource.kind:
        return None
    return _table(resource, [obj], exchange, {"resourceVersion": obj["metadata"].get("resourceVersion", "")})


def of_event(resource: Resource, event: JsonObject, exchange: Exchange, *, header: bool) -> JsonObject | None:
    """A watch event with a table of one row, the columns in the first one only; None when the client wants the object."""
    if not _wanted(exchange) or event["type"] in ("ERROR", "BOOKMARK"):
        return None
    obj = event["object"]
    return {
        "type": event["type"],
        "object": _table(
            resource, [obj], exchange, {"resourceVersion": obj["metadata"]["resourceVersion"]}, header=header
        ),
    }
