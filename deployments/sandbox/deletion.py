"""How objects go: grace, finalizers, propagation to dependents, namespaces that end."""

from __future__ import annotations

import datetime as dt
from typing import Any

from deployments.sandbox import failures
from deployments.sandbox.resources import CONFIGMAPS, EVENTS, NAMESPACES, PODS, SERVICEACCOUNTS, Resource
from deployments.sandbox.store import Change, Store, now

JsonObject = dict[str, Any]
FOREGROUND = "foregroundDeletion"


def delete(store: Store, resource: Resource, obj: JsonObject, options: JsonObject) -> JsonObject:
    """Delete as DELETE does; returns the object as it is after it (gone, or marked).

    Raises ApiError 409 when a precondition of `options` does not hold.
    """
    meta = obj["metadata"]
    name, namespace = meta["name"], meta.get("namespace", "")
    for key, value in (options.get("preconditions") or {}).items():
        if value is not None and meta.get(key) != value:
            what = "UID" if key == "uid" else "ResourceVersion"
            raise failures.conflict(
                resource,
                name,
                f"the {what} in the precondition ({value}) does not match the {what} in record ({meta.get(key)}). The object might have been deleted and then recreated",
            )
    if resource is NAMESPACES:
        return store.edit(resource, "", name, _end_namespace) or obj
    if resource is PODS:
        grace = _grace(obj, options)
        if grace > 0:
            return store.edit(resource, namespace, name, lambda pod: _mark(pod, grace)) or obj
    policy = options.get("propagationPolicy") or ("Orphan" if options.get("orphanDependents") else "Background")
    if policy == "Orphan":
        _orphan(store, meta["uid"])
    if policy == "Foreground" and _dependents(store, meta["uid"]):
        return store.edit(resource, namespace, name, lambda one: _mark(one, 0, FOREGROUND)) or obj
    if meta.get("finalizers"):
        return store.edit(resource, namespace, name, lambda one: _mark(one, 0)) or obj
    return store.remove(resource, namespace, name)


def _grace(pod: JsonObject, options: JsonObject) -> int:
    """Seconds until the pod may be gone; at once where no kubelet has it or nothing runs."""
    if not pod["spec"].get("nodeName") or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    asked = options.get("gracePeriodSeconds")
    grace = int(pod["spec"].get("terminationGracePeriodSeconds", 30) if asked is None else asked)
    return min(grace, int(pod["metadata"].get("deletionGracePeriodSeconds", grace)))


def _mark(obj: JsonObject, grace: int, finalizer: str = "") -> None:
    meta = obj["metadata"]
    if finalizer:
        meta["finalizers"] = [*(one for one in meta.get("finalizers") or [] if one != finalizer), finalizer]
    if "deletionTimestamp" in meta and meta.get("deletionGracePeriodSeconds", 0) <= grace:
        return
    ends = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=grace)
    meta["deletionTimestamp"] = ends.strftime("%Y-%m-%dT%H:%M:%SZ")
    meta["deletionGracePeriodSeconds"] = grace
    if "generation" in meta:
        meta["generation"] += 1


def _end_namespace(namespace: JsonObject) -> None:
    namespace["metadata"].setdefault("deletionTimestamp", now())
    namespace["status"]["phase"] = "Terminating"


def _dependents(store: Store, uid: str) -> list[tuple[Resource, JsonObject]]:
    return [
        (resource, obj)
        for resource in store.resources()
        for obj in store.find(resource)
        if any(owner["uid"] == uid for owner in obj["metadata"].get("ownerReferences") or [])
    ]


def _orphan(store: Store, uid: str) -> None:
    def let_go(obj: JsonObject) -> None:
        rest = [owner for owner in obj["metadata"]["ownerReferences"] if owner["uid"] != uid]
        obj["metadata"]["ownerReferences"] = rest
        if not rest:
            del obj["metadata"]["ownerReferences"]

    for resource, obj in _dependents(store, uid):
        store.edit(resource, obj["metadata"].get("namespace", ""), obj["metadata"]["name"], let_go)


class Collector:
    """The garbage collector and the namespace controller, told of every change."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def observe(self, change: Change) -> list[str]:
        """React to a change: collect dependents, go on ending a namespace. Returns namespaces to look at again."""
        meta = change.obj["metadata"]
        if change.kind == "DELETED":
            for resource, obj in _dependents(self._store, meta["uid"]):
                self._collect(resource, obj, "Background")
            self._release_owners(change.obj)
            return [meta["namespace"]] if self._store.namespace_is_ending(meta.get("namespace", "")) else []
        if FOREGROUND in (meta.get("finalizers") or []) and "deletionTimestamp" in meta:
            left = _dependents(self._store, meta["uid"])
            for resource, obj in left:
                self._collect(resource, obj, "Foreground")
            if not _dependents(self._store, meta["uid"]):
                self._finish(change.resource, change.obj)
        if change.resource is NAMESPACES and change.kind == "ADDED":
            self._furnish(meta["name"])
        if change.resource is NAMESPACES and "deletionTimestamp" in meta:
            return [meta["name"]]
        return []

    def _collect(self, resource: Resource, obj: JsonObject, policy: str) -> None:
        if "deletionTimestamp" not in obj["metadata"]:
            delete(self._store, resource, obj, {"propagationPolicy": policy})

    def _release_owners(self, gone: JsonObject) -> None:
        for owner in gone["metadata"].get("ownerReferences") or []:
            for resource in self._store.resources():
                found = self._store.get(resource, gone["metadata"].get("namespace", ""), owner["name"])
                if (
                    found
                    and found["metadata"]["uid"] == owner["uid"]
                    and FOREGROUND in (found["metadata"].get("finalizers") or [])
                    and not _dependents(self._store, owner["uid"])
                ):
                    self._finish(resource, found)

    def _finish(self, resource: Resource, obj: JsonObject) -> None:
        self._store.edit(
            resource,
            obj["metadata"].get("namespace", ""),
            obj["metadata"]["name"],
            lambda one: one["metadata"].update(
                finalizers=[f for f in one["metadata"]["finalizers"] if f != FOREGROUND]
            ),
        )

    def _furnish(self, namespace: str) -> None:
        if self._store.get(SERVICEACCOUNTS, namespace, "default") is None:
            self._store.create(SERVICEACCOUNTS, {"metadata": {"name": "default", "namespace": namespace}})
        if self._store.get(CONFIGMAPS, namespace, "kube-root-ca.crt") is None:
            self._store.create(
                CONFIGMAPS, {"metadata": {"name": "kube-root-ca.crt", "namespace": namespace}, "data": {"ca.crt": ""}}
            )

    def empty(self, namespace: str) -> None:
        """Delete what an ending namespace holds; the namespace itself goes with the last of it."""
        if not self._store.namespace_is_ending(namespace):
            return
        left = 0
        for resource in self._store.resources():
            for obj in self._store.find(resource, namespace) if resource.namespaced else []:
                if "deletionTimestamp" not in obj["metadata"] and self._store.get(
                    resource, namespace, obj["metadata"]["name"]
                ):
                    delete(self._store, resource, obj, {})
            left += len(self._store.find(resource, namespace)) if resource.namespaced and resource is not EVENTS else 0
        if left == 0 and self._store.get(NAMESPACES, "", namespace):
            self._store.remove(NAMESPACES, "", namespace)
