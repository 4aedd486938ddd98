"""The control loops: what reacts to which change, in which order. The decisions are in the modules that it calls."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable
from typing import Any

from deployments.sandbox.deletion import Collector
from deployments.sandbox.deployer import Deployer
from deployments.sandbox.faults import Faults, Pace
from deployments.sandbox.recorder import Recorder
from deployments.sandbox.replication import Replicator
from deployments.sandbox.resources import DEPLOYMENTS, NODES, PODS, REPLICASETS, RESOURCEQUOTAS
from deployments.sandbox.scheduling import Scheduler
from deployments.sandbox.store import Change, Store, controller_uid

JsonObject = dict[str, Any]
Key = tuple[str, str, str]


class Controllers:
    """A work queue over the store: a change marks keys, a key is reconciled until nothing is left to do."""

    def __init__(self, store: Store, faults: Faults, pace: Pace, recorder: Recorder) -> None:
        self._store, self._faults = store, faults
        self._marked: dict[Key, None] = {}
        self._wake = asyncio.Event()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._pace = pace
        self._collector = Collector(store)
        self._scheduler = Scheduler(store, recorder)
        deployer, replicator = Deployer(store, recorder, pace), Replicator(store, recorder, faults, pace)
        # Each returns the seconds (of the cluster) after which it wants to look again, or None.
        self._reconcilers: dict[str, Callable[[str, str], float | None]] = {
            "deployment": deployer.reconcile,
            "replicaset": replicator.reconcile,
            "quota": replicator.count_quota,
            "pod": self._scheduler.reconcile,
            "namespace": self._empty,
        }

    def start(self) -> asyncio.Task[None]:
        self._store.listen(self._observe)
        for resource, kind in ((DEPLOYMENTS, "deployment"), (REPLICASETS, "replicaset")):
            for obj in self._store.find(resource):
                self._mark(kind, obj)
        return asyncio.create_task(self._run())

    def _mark(self, kind: str, obj: JsonObject) -> None:
        self.mark(kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])

    def mark(self, kind: str, namespace: str, name: str) -> None:
        self._marked[kind, namespace, name] = None
        self._wake.set()

    def _observe(self, change: Change) -> None:
        obj, resource = change.obj, change.resource
        for namespace in self._collector.observe(change):
            self.mark("namespace", namespace, "")
        if resource is DEPLOYMENTS and change.kind != "DELETED":
            self._mark("deployment", obj)
        elif resource is REPLICASETS:
            if change.kind != "DELETED":
                self._mark("replicaset", obj)
            self._mark_owner(obj, DEPLOYMENTS, "deployment")
        elif resource is PODS:
            self._mark_owner(obj, REPLICASETS, "replicaset")
            if change.kind != "DELETED" and not obj["spec"].get("nodeName"):
                self._mark("pod", obj)
            if change.kind != "MODIFIED":
                self._for_all("quota", RESOURCEQUOTAS, obj["metadata"]["namespace"])
                self._for_all("deployment", DEPLOYMENTS, obj["metadata"]["namespace"])
                self._for_all("pod", PODS, "")
        elif resource is RESOURCEQUOTAS and change.kind != "DELETED":
            self._mark("quota", obj)
        elif resource is NODES:
            self._for_all("pod", PODS, "")

    def _mark_owner(self, obj: JsonObject, resource: Any, kind: str) -> None:
        uid = controller_uid(obj)
        for owner in self._store.find(resource, obj["metadata"]["namespace"]) if uid else []:
            if owner["metadata"]["uid"] == uid:
                self._mark(kind, owner)

    def _for_all(self, kind: str, resource: Any, namespace: str) -> None:
        for obj in self._store.find(resource, namespace):
            if resource is not PODS or not obj["spec"].get("nodeName"):
                self._mark(kind, obj)

    def _empty(self, namespace: str, _name: str) -> None:
        self._collector.empty(namespace)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._pace.sleep(0.01)  # A real controller hears of a change some milliseconds later.
            if self._faults.stalled_controllers:
                await asyncio.sleep(0.1)
                self._wake.set()
                continue
            marked, self._marked = list(self._marked), {}
            for key in marked:
                self._reconcile(key)
                await asyncio.sleep(0)

    def _reconcile(self, key: Key) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()
        kind, namespace, name = key
        try:
            again = self._reconcilers[kind](namespace, name)
        except Exception:  # noqa: BLE001 - A controller logs and tries again, whatever it was.
            traceback.print_exc(file=sys.stderr)
            again = 1.0
        if again is not None:
            loop = asyncio.get_running_loop()
            self._timers[key] = loop.call_later(self._pace.real(again) + 0.005, self.mark, kind, namespace, name)
