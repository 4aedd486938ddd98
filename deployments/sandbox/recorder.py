"""Event objects, counted up when the same thing happens to the same object again."""

from __future__ import annotations

import itertools
from typing import Any

from deployments.sandbox.resources import EVENTS
from deployments.sandbox.store import Store, now

JsonObject = dict[str, Any]


class Recorder:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._numbers = itertools.count(0x17A0000000000001)
        self._seen: dict[tuple[str, ...], str] = {}

    def say(
        self, obj: JsonObject, kind: str, reason: str, message: str, source: str, *, host: str = "", field: str = ""
    ) -> None:
        """Record an event of `kind` Normal or Warning about `obj`; `field` is the fieldPath of a container."""
        meta = obj["metadata"]
        namespace = meta.get("namespace", "default")
        if self._store.namespace_is_ending(namespace):
            return
        identity = (meta["uid"], kind, reason, message, source, field)
        known = self._store.get(EVENTS, namespace, self._seen.get(identity, ""))
        if known is not None:
            self._store.edit(
                EVENTS,
                namespace,
                known["metadata"]["name"],
                lambda event: event.update(count=event["count"] + 1, lastTimestamp=now()),
            )
            return
        name = f"{meta['name']}.{next(self._numbers):x}"
        self._seen[identity] = name
        involved = {
            "kind": obj["kind"],
            "name": meta["name"],
            "uid": meta["uid"],
            "apiVersion": obj["apiVersion"],
            "resourceVersion": meta["resourceVersion"],
        }
        if "namespace" in meta:
            involved["namespace"] = namespace
        if field:
            involved["fieldPath"] = field
        at = now()
        self._store.create(
            EVENTS,
            {
                "kind": "Event",
                "apiVersion": "v1",
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": involved,
                "reason": reason,
                "message": message,
                "source": {"component": source, **({"host": host} if host else {})},
                "firstTimestamp": at,
                "lastTimestamp": at,
                "count": 1,
                "type": kind,
                "eventTime": None,
                "reportingComponent": "",
                "reportingInstance": "",
            },
        )
