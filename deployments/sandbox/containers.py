"""One container on a node: its image, its runs, its back-off, its probes, and the status that says so.

Reasons, messages and times follow the kubelet: pkg/kubelet/kuberuntime/kuberuntime_manager.go, images/image_manager.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING, Any

from deployments.sandbox.component import Log, Process
from deployments.sandbox.images import Program, PullError, digest_of, normalise, program_of
from deployments.sandbox.store import now

if TYPE_CHECKING:
    from deployments.sandbox.kubelet import Pod

JsonObject = dict[str, Any]
BACKOFF_FIRST, BACKOFF_MOST = 10.0, 300.0


class ConfigError(Exception):
    """What the container's configuration names is not there."""


class Container:
    def __init__(self, pod: Pod, spec: JsonObject, *, init: bool) -> None:
        self._pod, self._init = pod, init
        self.spec = spec
        self.name: str = spec["name"]
        self.image: str = spec["image"]
        self.ports = {8080, *(port["containerPort"] for port in spec.get("ports") or [])}
        self.process: Process | None = None
        self.log: Log | None = None
        self.previous_log: Log | None = None
        self.ready = False
        self.started = False
        self.ever_started = False
        self.succeeded = False
        self.finished: int | None = None
        self.stopped = asyncio.Event()
        self._stop = asyncio.Event()
        self._state: JsonObject = {
            "waiting": {"reason": "PodInitializing" if pod_has_init(pod) and not init else "ContainerCreating"}
        }
        self._last: JsonObject = {}
        self._restarts = 0
        self._identity = ""
        self._backoff = 0.0
        self._probing: asyncio.Task[None] | None = None

    # -------------------------------------------------------------- questions
    def status(self) -> JsonObject:
        full = normalise(self.image)
        found: JsonObject = {
            "name": self.name,
            "state": self._state,
            "lastState": self._last,
            "ready": self.ready if not self._init else self.succeeded,
            "restartCount": self._restarts,
            "image": full if full and self.ever_started else self.image,
            "imageID": f"{_repository(full)}@{digest_of(full)}" if full and self.ever_started else "",
        }
        if self._identity:
            found["containerID"] = f"containerd://{self._identity}"
        if not self._init:
            found["started"] = self.started
        return found

    @property
    def waiting_reason(self) -> str:
        return str(self._state.get("waiting", {}).get("reason", ""))

    @property
    def waiting_message(self) -> str:
        return str(self._state.get("waiting", {}).get("message", ""))

    # ------------------------------------------------------------------- life
    def be_running(self) -> None:
        """Be a container that became ready long ago."""
        full = normalise(self.image) or self.image
        program = program_of(full) or Program("pause", "1")
        process = self._begin(program, {})
        if program.component not in ("pause", "exit"):
            process.already_running()
        self.ready = self.started = True

    def stop(self) -> None:
        """Stop for good: no further run; `stopped` is set when the process has ended."""
        self._stop.set()
        if self.process:
            self.process.terminate()
        else:
            self.stopped.set()

    def abandon(self) -> None:
        """The pod is gone by force: nothing of this container goes on, not even its probes."""
        self.stop()
        if self._probing:
            self._probing.cancel()
        if self.log:
            self.log.end()

    async def live(self) -> None:
        """Run and run again until stopped, or finished for good by the restart policy."""
        while not self._stop.is_set():
            process = self.process or await self._make()
            if process is None:
                break
            code = await process.run()
            await self._ended(code)
            if self._stop.is_set() or self._is_done(code):
                break
            await self._back_off()
        self.stopped.set()

    def _is_done(self, code: int) -> bool:
        policy = self._pod.restart_policy
        if (self._init or policy != "Always") and code == 0:
            self.succeeded, self.finished = True, 0
        elif policy == "Never":
            self.finished = code
        self._pod.publish()
        return self.finished is not None

    async def _make(self) -> Process | None:
        """Get the image and the configuration and start a process; None when stopped before that."""
        program = await self._get_image()
        while program is not None and not self._stop.is_set():
            try:
                env = self._environment()
            except ConfigError as error:
                self._wait("CreateContainerConfigError", str(error))
                self._pod.say("Warning", "Failed", f"Error: {error}", self.name)
                await self._sleep(5)
                continue
            self._pod.say("Normal", "Created", f"Created container {self.name}", self.name)
            if self.ever_started:
                self._restarts += 1
            process = self._begin(program, env)
            self._pod.say("Normal", "Started", f"Started container {self.name}", self.name)
            self._pod.publish()
            self._probing = asyncio.create_task(self._probe())
            return process
        return None

    def _environment(self) -> dict[str, str]:
        env: dict[str, str] = {}
        for one in self.spec.get("env") or []:
            value = self._pod.value_of(one["valueFrom"]) if one.get("valueFrom") else one.get("value", "")
            if value is not None:
                env[one["name"]] = value
        return env

    def _begin(self, program: Program, env: dict[str, str]) -> Process:
        kubelet = self._pod.kubelet
        if self.log is not None:
            self.previous_log = self.log
        self.log = Log()
        self.process = Process(program, env, self.log, kubelet.faults, kubelet.pace)
        self._identity = uuid.uuid4().hex * 2
        self._state = {"running": {"startedAt": now()}}
        self.ever_started = True
        self.started = "startupProbe" not in self.spec
        return self.process

    async def _ended(self, code: int) -> None:
        if self._probing:
            self._probing.cancel()
        at = self._state.get("running", {}).get("startedAt", now())
        self.process, self.ready, self.started = None, False, False
        terminated = {
            "exitCode": code,
            "reason": "Completed" if code == 0 else "Error",
            "startedAt": at,
            "finishedAt": now(),
            "containerID": f"containerd://{self._identity}",
        }
        self._state = {"terminated": terminated}
        self._pod.publish()
        if not self._stop.is_set():
            await self._sleep(0.7)  # The kubelet looks again about once a second.

    async def _back_off(self) -> None:
        """The first restart is at once, each later one waits 10 s, 20 s, ... 300 s."""
        self._last = self._state if "terminated" in self._state else self._last
        if self._backoff:
            seconds = int(self._backoff)
            about = f"container={self.name} pod={self._pod.name}_{self._pod.namespace}({self._pod.uid})"
            shown = f"{seconds}s" if seconds < 60 else f"{seconds // 60}m{seconds % 60}s"
            self._wait("CrashLoopBackOff", f"back-off {shown} restarting failed {about}")
            self._pod.say("Warning", "BackOff", "Back-off restarting failed container", self.name)
            await self._sleep(self._backoff)
        self._backoff = min(self._backoff * 2 or BACKOFF_FIRST, BACKOFF_MOST)

    async def _get_image(self) -> Program | None:
        """The program of the image, once the node has it; None when stopped while waiting."""
        full = normalise(self.image)
        pod, images = self._pod, self._pod.kubelet.images
        if full is None:
            why = (
                "repository name must be lowercase" if self.image != self.image.lower() else "invalid reference format"
            )
            message = f'Failed to apply default image tag "{self.image}": couldn\'t parse image reference "{self.image}": invalid reference format'
            if why.startswith("repository"):
                message += f": {why}"
            self._wait("InvalidImageName", message)
            while not self._stop.is_set():
                pod.say("Warning", "InspectFailed", message, self.name)
                pod.say("Warning", "Failed", "Error: InvalidImageName", self.name)
                await self._sleep(12)
            return None
        policy, backoff = self.spec.get("imagePullPolicy", "IfNotPresent"), BACKOFF_FIRST
        while not self._stop.is_set():
            if images.holds(pod.node, full) and policy != "Always":
                pod.say("Normal", "Pulled", f'Container image "{self.image}" already present on machine', self.name)
                return program_of(full) or Program("pause", "1")
            if policy == "Never":
                message = f'Container image "{self.image}" is not present with pull policy of Never'
                pod.say("Warning", "ErrImageNeverPull", message, self.name)
                self._wait("ErrImageNeverPull", message)
                await self._sleep(10)
                continue
            error = await self._pull(full)
            if error is None:
                return program_of(full) or Program("pause", "1")
            await self._show_failed_pull(error, backoff)
            backoff = min(backoff * 2, BACKOFF_MOST)
        return None

    async def _pull(self, full: str) -> str | None:
        """Try to pull once; returns why it failed."""
        pod, kubelet = self._pod, self._pod.kubelet
        pod.say("Normal", "Pulling", f'Pulling image "{self.image}"', self.name)
        await self._sleep(kubelet.faults.pull_seconds)
        try:
            kubelet.images.pull(pod.node, self.image, full)
        except PullError as error:
            return str(error)
        pod.say(
            "Normal",
            "Pulled",
            f'Successfully pulled image "{self.image}" in {kubelet.faults.pull_seconds * 1000:.6f}ms',
            self.name,
        )
        return None

    async def _show_failed_pull(self, error: str, backoff: float) -> None:
        pod = self._pod
        pod.say("Warning", "Failed", f'Failed to pull image "{self.image}": {error}', self.name)
        pod.say("Warning", "Failed", "Error: ErrImagePull", self.name)
        self._wait("ErrImagePull", error)
        await self._sleep(min(1.5, backoff / 4))
        pod.say("Normal", "BackOff", f'Back-off pulling image "{self.image}"', self.name)
        pod.say("Warning", "Failed", "Error: ImagePullBackOff", self.name)
        self._wait("ImagePullBackOff", f'Back-off pulling image "{self.image}"')
        await self._sleep(backoff)

    # ----------------------------------------------------------------- probes
    async def _probe(self) -> None:
        """Startup probe until it passes, then readiness for good; without one a container is ready once it runs."""
        pod = self._pod
        startup, readiness = self.spec.get("startupProbe"), self.spec.get("readinessProbe")
        if startup:
            await self._sleep(startup.get("initialDelaySeconds", 0))
            while (why := self._failing(startup)) and not self._stop.is_set():
                pod.say("Warning", "Unhealthy", f"Startup probe failed: {why}", self.name)
                await self._sleep(startup["periodSeconds"])
            self.started = True
        if readiness is None:
            self.ready = True
            pod.publish()
            return
        await self._sleep(readiness.get("initialDelaySeconds", 0))
        while not self._stop.is_set():
            why = self._failing(readiness)
            if self.ready is bool(why):
                self.ready = not why
                pod.publish()
            if why:
                pod.say("Warning", "Unhealthy", f"Readiness probe failed: {why}", self.name)
            await self._sleep(readiness["periodSeconds"])

    def _failing(self, probe: JsonObject) -> str:
        """Why a probe fails; empty when it passes. Probes other than HTTP pass once the process listens or runs."""
        get = probe.get("httpGet")
        if get is None or self.process is None:
            return "" if self.process else "container is not running"
        port = get["port"]
        if not isinstance(port, int):
            port = next((one["containerPort"] for one in self.spec.get("ports") or [] if one.get("name") == port), 0)
        found = self.process.answer(get.get("path", "/")) if port in self.ports else None
        if found is None:
            address = f"{self._pod.address}:{port}"
            return f'Get "http://{address}{get.get("path", "/")}": dial tcp {address}: connect: connection refused'
        return "" if 200 <= found[0] < 400 else f"HTTP probe failed with statuscode: {found[0]}"

    # ------------------------------------------------------------------ small
    def _wait(self, reason: str, message: str) -> None:
        self._state = {"waiting": {"reason": reason, "message": message}}
        self._pod.publish()

    async def _sleep(self, seconds: float) -> None:
        """Wait, but no longer than until this container is stopped."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), self._pod.kubelet.pace.real(seconds))


def pod_has_init(pod: Pod) -> bool:
    return bool(pod.init) if hasattr(pod, "init") else False


def _repository(full: str) -> str:
    return full.partition("@")[0].rpartition(":")[0] if "@" not in full else full.partition("@")[0]
