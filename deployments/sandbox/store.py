"""The objects of the cluster, their resource versions and the history that watches read.

Objects in the store are never changed in place: a reader copies what it wants to change (`editable`) and writes it back.
Everything here runs on one event loop, so a read followed by a write is atomic as long as nothing is awaited between.
"""

from __future__ import annotations

import copy
import datetime as dt
import hashlib
import secrets
import string
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from deployments.sandbox import failures
from deployments.sandbox.resources import NAMESPACES, Resource
from deployments.sandbox.selectors import Predicate, everything

JsonObject = dict[str, Any]
Key = tuple[str, str]
_T = TypeVar("_T")
HISTORY = 5000  # Changes that a watch can go back.


@dataclass(frozen=True, slots=True)
class Change:
    """One write: the object after it (for DELETED: as it was last, with the deletion's version) and before it."""

    version: int
    kind: str
    resource: Resource
    obj: JsonObject
    before: JsonObject | None


def now() -> str:
    """The time as the API writes it, in whole seconds."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def editable(obj: _T) -> _T:
    return copy.deepcopy(obj)


def random_suffix(length: int = 5) -> str:
    """As `k8s.io/apimachinery/pkg/util/rand`: no vowels, so no words."""
    return "".join(secrets.choice("bcdfghjklmnpqrstvwxz2456789") for _ in range(length))


class Store:
    """Objects by resource, namespace and name; every write gets the next resource version and is told to listeners."""

    def __init__(self) -> None:
        self.version = 1000
        self.compacted = 1000
        self._objects: dict[Resource, dict[Key, JsonObject]] = {}
        self._history: deque[Change] = deque()
        self._listeners: list[Callable[[Change], None]] = []

    # ---- reading
    def get(self, resource: Resource, namespace: str, name: str) -> JsonObject | None:
        return self._objects.get(resource, {}).get((namespace, name))

    def must_get(self, resource: Resource, namespace: str, name: str) -> JsonObject:
        found = self.get(resource, namespace, name)
        if found is None:
            raise failures.not_found(resource, name)
        return found

    def find(self, resource: Resource, namespace: str = "", keep: Predicate = everything) -> list[JsonObject]:
        """Objects of one namespace (all when empty) in the order of their keys, as etcd gives them."""
        found = self._objects.get(resource, {})
        return [found[key] for key in sorted(found) if (not namespace or key[0] == namespace) and keep(found[key])]

    def resources(self) -> Iterator[Resource]:
        yield from list(self._objects)

    def since(self, version: int) -> list[Change]:
        """The changes after `version`; raises ApiError 410 when some of them are no longer known."""
        if version < self.compacted:
            raise failures.expired(f"too old resource version: {version} ({self.compacted})")
        return [change for change in self._history if change.version > version]

    # ---- listening
    def listen(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Call `listener` at every change; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def compact(self) -> None:
        """Forget the history: every older resource version is too old from here on."""
        self.version += 1
        self.compacted = self.version
        self._history.clear()

    # ---- writing
    def create(self, resource: Resource, obj: JsonObject) -> JsonObject:
        """Store a new object, giving it what the server gives; raises ApiError 409 when the name is taken."""
        obj = editable(obj)
        meta = obj.setdefault("metadata", {})
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + random_suffix()
        namespace = meta.get("namespace", "") if resource.namespaced else ""
        if self.get(resource, namespace, meta["name"]) is not None:
            raise failures.already_exists(resource, meta["name"])
        meta["uid"] = str(uuid.uuid4())
        meta["creationTimestamp"] = now()
        if resource.counts_generation:
            meta["generation"] = 1
        obj.setdefault("kind", resource.kind)
        obj.setdefault("apiVersion", resource.api_version)
        return self._commit("ADDED", resource, obj, None)

    def replace(self, resource: Resource, obj: JsonObject) -> JsonObject:
        """Write over an object that exists. Without any difference nothing is written, as the real server does.

        Raises ApiError 404 when it is gone, 409 when `obj` carries another resourceVersion than the stored one.
        """
        meta = obj["metadata"]
        namespace = meta.get("namespace", "") if resource.namespaced else ""
        current = self.must_get(resource, namespace, meta["name"])
        asked = meta.get("resourceVersion")
        if asked and asked != current["metadata"]["resourceVersion"]:
            raise failures.conflict(resource, meta["name"])
        meta["resourceVersion"] = current["metadata"]["resourceVersion"]
        if obj == current:
            return current
        if meta.get("deletionTimestamp") and not meta.get("finalizers") and current["metadata"].get("finalizers"):
            return self.remove(resource, namespace, meta["name"])
        return self._commit("MODIFIED", resource, editable(obj), current)

    def edit(
        self, resource: Resource, namespace: str, name: str, change: Callable[[JsonObject], None]
    ) -> JsonObject | None:
        """Change one object by a function, if it still exists: the way of controllers, which judge afresh each time."""
        current = self.get(resource, namespace, name)
        if current is None:
            return None
        copied = editable(current)
        change(copied)
        return self.replace(resource, copied)

    def remove(self, resource: Resource, namespace: str, name: str) -> JsonObject:
        """Take an object away for good; grace, finalizers and dependents are decided before."""
        current = self._objects[resource].pop((namespace, name))
        gone = editable(current)
        return self._commit("DELETED", resource, gone, current)

    def _commit(self, kind: str, resource: Resource, obj: JsonObject, before: JsonObject | None) -> JsonObject:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        if kind != "DELETED":
            namespace = obj["metadata"].get("namespace", "") if resource.namespaced else ""
            self._objects.setdefault(resource, {})[namespace, obj["metadata"]["name"]] = obj
        change = Change(self.version, kind, resource, obj, before)
        self._history.append(change)
        if len(self._history) > HISTORY:
            self.compacted = self._history.popleft().version
        for listener in list(self._listeners):
            listener(change)
        return obj

    # ---- small questions that many ask
    def owned(self, resource: Resource, owner: JsonObject) -> list[JsonObject]:
        """Objects in the owner's namespace whose controller it is."""
        uid, namespace = owner["metadata"]["uid"], owner["metadata"].get("namespace", "")
        return self.find(resource, namespace, lambda obj: controller_uid(obj) == uid)

    def namespace_is_ending(self, name: str) -> bool:
        namespace = self.get(NAMESPACES, "", name)
        return namespace is not None and "deletionTimestamp" in namespace["metadata"]


def controller_uid(obj: JsonObject) -> str:
    for owner in obj["metadata"].get("ownerReferences") or []:
        if owner.get("controller"):
            return str(owner["uid"])
    return ""


def safe_hash(text: str) -> str:
    """A short stable name part for a template, in the alphabet of `rand.SafeEncodeString`."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    alphabet = "bcdfghjklmnpqrstvwxz2456789"
    return "".join(alphabet[int(digit) % len(alphabet)] for digit in str(number)) or string.digits
