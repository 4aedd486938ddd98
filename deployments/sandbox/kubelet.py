"""The kubelets: one task for each pod that a node has, from its binding to its end."""

from __future__ import annotations

import asyncio
import base64
import itertools
import sys
import traceback
from collections.abc import Callable
from typing import Any

from deployments.sandbox.component import Log
from deployments.sandbox.containers import ConfigError, Container
from deployments.sandbox.faults import Faults, Pace
from deployments.sandbox.images import NodeImages
from deployments.sandbox.recorder import Recorder
from deployments.sandbox.resources import CONFIGMAPS, PODS, SECRETS
from deployments.sandbox.rollout import set_condition
from deployments.sandbox.store import Change, Store, now

JsonObject = dict[str, Any]


class Kubelet:
    """Runs the pods of every node and says in their status what it sees."""

    def __init__(self, store: Store, faults: Faults, pace: Pace, recorder: Recorder) -> None:
        self.store, self.faults, self.pace, self.recorder = store, faults, pace, recorder
        self.images = NodeImages(store, faults)
        self._pods: dict[str, Pod] = {}
        self._lost: dict[str, list[Pod]] = {}  # Lost nodes, with the pods whose objects were removed meanwhile.
        self._addresses = itertools.count(10)
        store.listen(self._observe)

    def pod(self, uid: str) -> Pod | None:
        return self._pods.get(uid)

    def lost(self, node: str) -> bool:
        """Whether nobody hears of a node: what runs on it goes on running."""
        return node in self._lost

    def lose(self, node: str) -> None:
        """Cut a node off: its kubelet hears nothing and says nothing, its containers run on."""
        self._lost.setdefault(node, [])

    def find_again(self, node: str) -> None:
        """The node is back: its kubelet ends what was to end meanwhile, starts what came, and says how all stands."""
        for pod in self._lost.pop(node, []):
            pod.gone()
        for obj in self.store.find(PODS, "", lambda one: one["spec"].get("nodeName") == node):
            known = self._pods.get(obj["metadata"]["uid"])
            ending = "deletionTimestamp" in obj["metadata"]
            if known is not None and ending:
                known.terminate()
            elif known is not None:
                known.publish()
            elif not ending:
                self._start(obj, running=False)
            else:
                self.store.remove(PODS, obj["metadata"]["namespace"], obj["metadata"]["name"])

    def adopt(self, pod: JsonObject) -> None:
        """Take a pod that runs already and is Ready: the installation as it is found."""
        self._start(pod, running=True)

    def next_address(self, node: str) -> str:
        number = next(self._addresses)
        return f"10.88.{0 if node.endswith('a') else 1}.{number % 240 + 2}"

    def _observe(self, change: Change) -> None:
        if change.resource is not PODS:
            return
        uid = change.obj["metadata"]["uid"]
        known = self._pods.get(uid)
        if change.kind == "DELETED":
            if known:
                del self._pods[uid]
                if known.node in self._lost:
                    self._lost[known.node].append(known)
                else:
                    known.gone()
        elif self.lost(change.obj["spec"].get("nodeName") or ""):
            return
        elif known is None and change.obj["spec"].get("nodeName") and "deletionTimestamp" not in change.obj["metadata"]:
            self._start(change.obj, running=False)
        elif known is not None and "deletionTimestamp" in change.obj["metadata"]:
            known.terminate()

    def _start(self, pod: JsonObject, *, running: bool) -> None:
        meta = pod["metadata"]
        worker = Pod(self, pod)
        self._pods[meta["uid"]] = worker
        worker.start(running=running)


class Pod:
    """One pod on its node: its containers, and the status that they add up to."""

    def __init__(self, kubelet: Kubelet, obj: JsonObject) -> None:
        self.kubelet = kubelet
        meta = obj["metadata"]
        self.namespace, self.name, self.uid = meta["namespace"], meta["name"], meta["uid"]
        self.node: str = obj["spec"]["nodeName"]
        self.address = ""
        self.started = now()
        spec = obj["spec"]
        self.init = [Container(self, one, init=True) for one in spec.get("initContainers") or []]
        self.containers = [Container(self, one, init=False) for one in spec["containers"]]
        self.restart_policy = spec.get("restartPolicy", "Always")
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = False

    # -------------------------------------------------------------- questions
    def object(self) -> JsonObject | None:
        found = self.kubelet.store.get(PODS, self.namespace, self.name)
        return found if found and found["metadata"]["uid"] == self.uid else None

    def container(self, name: str) -> Container | None:
        return next((one for one in [*self.init, *self.containers] if one.name == name), None)

    def answer(self, port: int, path: str) -> tuple[int, bytes] | None:
        """What the process that listens on a port of this pod answers; None when none does."""
        for one in self.containers:
            if port in one.ports and one.process and (found := one.process.answer(path)):
                return found
        return None

    def value_of(self, source: JsonObject) -> str | None:
        """The value that an environment variable takes from elsewhere; raises ConfigError when it is not there."""
        for key, resource, word in (("secretKeyRef", SECRETS, "secret"), ("configMapKeyRef", CONFIGMAPS, "configmap")):
            if key not in source:
                continue
            ref = source[key]
            found = self.kubelet.store.get(resource, self.namespace, ref["name"])
            if found is None:
                if ref.get("optional"):
                    return None
                raise ConfigError(f'{word} "{ref["name"]}" not found')
            value = (found.get("data") or {}).get(ref["key"])
            if value is None:
                if ref.get("optional"):
                    return None
                raise ConfigError(f"couldn't find key {ref['key']} in {resource.kind} {self.namespace}/{ref['name']}")
            return base64.b64decode(value).decode() if resource is SECRETS else str(value)
        field = (source.get("fieldRef") or {}).get("fieldPath", "")
        fields: dict[str, str] = {
            "metadata.name": self.name,
            "metadata.namespace": self.namespace,
            "metadata.uid": self.uid,
            "spec.nodeName": self.node,
            "status.podIP": self.address,
        }
        return str(fields.get(field, ""))

    def say(self, kind: str, reason: str, message: str, container: str = "") -> None:
        obj = self.object()
        if obj is not None:
            field = f"spec.containers{{{container}}}" if container else ""
            self.kubelet.recorder.say(obj, kind, reason, message, "kubelet", host=self.node, field=field)

    # ------------------------------------------------------------------- life
    def start(self, *, running: bool) -> None:
        if running:
            self.address = self.kubelet.next_address(self.node)
            for one in self.containers:
                one.be_running()
            self.publish()
        self._tasks.append(asyncio.create_task(self._guard(self._live, running=running)))

    async def _guard(self, work: Callable[[bool], Any], *, running: bool) -> None:
        try:
            await work(running)
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 - One pod's trouble must not end the node; it is printed for the developer.
            traceback.print_exc(file=sys.stderr)

    async def _live(self, running: bool) -> None:  # noqa: FBT001
        if not running:
            self.publish()
            await self.kubelet.pace.sleep(0.25)  # Volumes, sandbox, network.
            self.address = self.kubelet.next_address(self.node)
            for one in self.init:
                await one.live()
        await asyncio.gather(*(one.live() for one in self.containers))
        self.publish()

    def terminate(self) -> None:
        if not self._ending:
            self._ending = True
            self._tasks.append(asyncio.create_task(self._guard(self._end, running=True)))

    async def _end(self, _running: bool) -> None:  # noqa: FBT001
        obj = self.object()
        grace = obj["metadata"].get("deletionGracePeriodSeconds", 30) if obj else 0
        for one in self.containers:
            if one.process:
                self.say("Normal", "Killing", f"Stopping container {one.name}", one.name)
            one.stop()
        waiting = [one.stopped.wait() for one in self.containers]
        try:
            await asyncio.wait_for(asyncio.gather(*waiting), self.kubelet.pace.real(grace))
        except TimeoutError:
            self._tasks[0].cancel()
        self.publish()
        await self.kubelet.pace.sleep(0.4)  # The runtime's clean-up, before the kubelet lets the object go.
        obj = self.object()
        if self.kubelet.lost(self.node):
            self._ending = False  # Whoever hears of the node again has to be told.
        elif obj is not None and not obj["metadata"].get("finalizers"):
            self.kubelet.store.remove(PODS, self.namespace, self.name)

    def gone(self) -> None:
        """The object is gone: nothing of it goes on running."""
        current = asyncio.current_task() if _in_task() else None
        for one in [*self.init, *self.containers]:
            one.abandon()
        for task in self._tasks:
            if task is not current:
                task.cancel()

    # ----------------------------------------------------------------- status
    def publish(self) -> None:
        """Write the pod's status as it now is."""
        if self.object() is not None and not self.kubelet.lost(self.node):
            self.kubelet.store.edit(PODS, self.namespace, self.name, self._write)

    def _write(self, pod: JsonObject) -> None:
        status = pod["status"]
        status["phase"] = self._phase()
        status["hostIP"] = "127.0.0.1"
        status["startTime"] = self.started
        if self.address:
            status["podIP"] = self.address
            status["podIPs"] = [{"ip": self.address}]
        initialised = all(one.succeeded for one in self.init)
        names = " ".join(one.name for one in self.containers if not one.ready)
        unready = f"containers with unready status: [{names}]"
        at = now()
        missing = f"containers with incomplete status: [{' '.join(one.name for one in self.init if not one.succeeded)}]"
        self._condition(status, "Initialized", initialised, "ContainersNotInitialized", missing, at)
        self._condition(status, "Ready", not names and initialised, "ContainersNotReady", unready, at)
        self._condition(status, "ContainersReady", not names and initialised, "ContainersNotReady", unready, at)
        status["containerStatuses"] = [one.status() for one in self.containers]
        if self.init:
            status["initContainerStatuses"] = [one.status() for one in self.init]

    def _condition(self, status: JsonObject, kind: str, value: bool, reason: str, message: str, at: str) -> None:  # noqa: FBT001
        set_condition(status, kind, str(value), "" if value else reason, "" if value else message, at, clock=False)
        found = next(one for one in status["conditions"] if one["type"] == kind)
        found["lastProbeTime"] = None
        if value:
            found.pop("reason", None)
            found.pop("message", None)
        else:
            found["message"] = message

    def _phase(self) -> str:
        if any(not one.succeeded for one in self.init):
            return "Pending"
        if self.restart_policy != "Always" and all(one.finished is not None for one in self.containers):
            return "Succeeded" if all(one.finished == 0 for one in self.containers) else "Failed"
        return "Running" if all(one.ever_started for one in self.containers) else "Pending"


def _in_task() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


def logs_of(pod: Pod | None, container: str) -> tuple[Log | None, Log | None]:
    """(current, previous) log of a container."""
    found = pod.container(container) if pod else None
    return (found.log, found.previous_log) if found else (None, None)
