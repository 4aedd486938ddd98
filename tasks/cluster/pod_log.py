"""Follow the log of a pod while it starts: the manager's migration, as the procedure has it.

The API server closes a followed log when its container ends, when it restarts itself, and after hours; each time it
is opened again from the time of the last line, so no line is told twice and none is left out.
"""

import re
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from tasks.cluster.api import KubernetesApi, Lines
from tasks.cluster.pod_state import finished, terminating
from tasks.cluster.rollout_view import name, new_replicaset, pods_of, select
from tasks.cluster.watch import View, WatchHub
from tasks.domain.errors import ForbiddenError, NotFoundError, UnauthorizedError, UpgradeError
from tasks.domain.step import RolloutStep

IDLE = 60.0  # a log may be silent; opening it again costs one request
AGAIN = 0.7
TAIL = 500  # lines: a migration that was over before its log could be followed
_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d) ?")


class PodLog:
    """Follows one container's log on a daemon thread; `emit` gets each line once, without its time stamp."""

    def __init__(
        self, api: KubernetesApi, namespace: str, pod: str, container: str, emit: Callable[[str], None]
    ) -> None:
        self._api = api.patient(0)
        self._path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        self._container = container
        self._emit = emit
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._lines: Lines | None = None
        self._since = ""
        self._last = ""
        self._thread = threading.Thread(target=self._run, name=f"log {pod}", daemon=True)

    def start(self) -> None:
        """Begin to follow; a container that has not started yet is waited for."""
        self._thread.start()

    def stop(self, seconds: float = 2.0) -> None:
        """End; waits at most `seconds` for the thread."""
        self._ended.set()
        with self._lock:
            if self._lines is not None:
                self._lines.close()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def catch_up(self) -> None:
        """Tell what was written since the last line that was told; for after `stop`, when the rollout was quicker."""
        query: dict[str, str | int | bool] = {"container": self._container, "timestamps": True, "tailLines": TAIL}
        if self._since:
            query["sinceTime"] = self._since
        with suppress(UpgradeError):
            for line in self._api.text(self._path, **query).splitlines():
                self._tell(line)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._follow()
            except (NotFoundError, ForbiddenError, UnauthorizedError):
                return  # the pod is gone, or its log is not for us: the wait for it tells what matters
            except UpgradeError:
                pass  # 400 while the container waits to start; a broken connection
            self._ended.wait(AGAIN)

    def _follow(self) -> None:
        query: dict[str, str | int | bool] = {"container": self._container, "follow": True, "timestamps": True}
        if self._since:
            query["sinceTime"] = self._since
        with self._api.lines(self._path, query, IDLE) as lines:
            with self._lock:
                self._lines = lines
                if self._ended.is_set():
                    lines.close()
            try:
                for raw in lines:
                    self._tell(raw.decode("utf-8", "replace").rstrip("\r"))
            finally:
                with self._lock:
                    self._lines = None

    def _tell(self, text: str) -> None:
        """Emit a line unless it was told before: `sinceTime` has whole seconds, the stamps have fractions."""
        match = _STAMP.match(text)
        if match is None:
            self._emit(text)
            return
        stamp = match[1] + (match[2] or ".").ljust(10, "0")
        if stamp <= self._last:
            return
        self._last, self._since = stamp, match[1] + match[3]
        self._emit(text[match.end() :])


class RolloutLog:
    """While the context lasts, follows the log of each new pod of a rollout as it appears.

    `emit(pod, line)` is called on other threads.  Nothing of it fails the rollout: a log that cannot be read is
    not followed.
    """

    def __init__(self, hub: WatchHub, step: RolloutStep, emit: Callable[[str, str], None]) -> None:
        self._hub = hub
        self._step = step
        self._emit = emit
        self._ended = threading.Event()
        self._wake: Callable[[], None] = lambda: None
        self._logs: dict[str, PodLog] = {}
        self._thread = threading.Thread(target=self._run, name=f"logs {step.key.name}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._wake()
        self._thread.join(2.0)
        for log in self._logs.values():
            log.stop()
            if kind is None:  # on a failure the diagnosis reads the log itself, and an interruption does not wait
                log.catch_up()

    def _run(self) -> None:
        with suppress(UpgradeError), self._hub.view(self._step.key.namespace) as view:
            self._wake = view.wake
            while not self._ended.is_set():
                version = view.version
                if view.synced():
                    self._look(view)
                view.wait(version, 0.5)
            if view.synced():
                self._look(view)

    def _look(self, view: View) -> None:
        key, images = self._step.key, {change.container: change.new for change in self._step.changes if not change.init}
        found = next((d for d in view.objects("deployments") if name(d) == key.name), None)
        picked = select(found, view.objects("replicasets"), view.objects("pods"))
        for pod in pods_of(picked, new_replicaset(picked)):
            if name(pod) in self._logs or terminating(pod) or finished(pod):
                continue
            asked = {c["name"]: c.get("image") for c in pod.get("spec", {}).get("containers") or ()}
            container = next((c for c, image in images.items() if asked.get(c) == image), "")
            if container:  # a pod of the old template (the cache is behind) has another image
                self._follow(name(pod), container)

    def _follow(self, pod: str, container: str) -> None:
        log = PodLog(self._hub.api, self._step.key.namespace, pod, container, lambda line: self._emit(pod, line))
        self._logs[pod] = log
        log.start()
