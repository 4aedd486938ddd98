"""No manager may run while its database is put back: judged from the cluster's objects, and watched meanwhile."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

from tasks.cluster.answers import JsonObject
from tasks.cluster.planning import Connections
from tasks.cluster.rollout_view import name, select, uid
from tasks.cluster.watch import View, WatchHub
from tasks.domain.component import Component
from tasks.domain.discovery import recognised
from tasks.domain.errors import BlockedError, DriftError, TemporaryError, UpgradeError, UsageError
from tasks.domain.inventory import DeploymentFacts

PATIENCE = 8.0
"""Seconds without word from the cluster after which nobody can say that no manager runs."""
SYNC_SECONDS = 20.0
WATCH_SECONDS, IDLE_MARGIN = 8, 4.0
LOOK_SECONDS = 0.5
_OVER = {"Succeeded", "Failed"}

Place = tuple[str, str]
"""A cluster's name and a namespace."""


def managers_alive(
    managers: Iterable[str],
    deployments: Sequence[JsonObject],
    replicasets: Sequence[JsonObject],
    pods: Sequence[JsonObject],
) -> list[str]:
    """A sentence for each manager that runs, ends or is wanted in one namespace; empty where there is none.  Pure.

    `managers` are the uids of its known manager Deployments.  Besides their pods a pod counts whoever made it
    where a container of it runs a manager's image, and so does a Deployment that was made meanwhile.  A pod
    counts until it is gone: one that is terminating may still write.  One whose phase is Succeeded or Failed runs
    nothing any more (core/v1 PodPhase).
    """
    known = set(managers)
    wanted = [d for d in deployments if uid(d) in known or _runs_a_manager(d.get("spec", {}).get("template", {}))]
    told = [
        f"Deployment {name(d)} wants {count} pod{'s' if count > 1 else ''}"
        for d in wanted
        if (count := d.get("spec", {}).get("replicas", 1)) > 0
    ]
    alive = {uid(pod): pod for d in wanted for pod in select(d, replicasets, pods).pods}
    alive |= {uid(pod): pod for pod in pods if _runs_a_manager(pod)}
    for pod in alive.values():
        phase = pod.get("status", {}).get("phase", "Pending")
        if phase not in _OVER:
            told.append(f"pod {name(pod)} is {'terminating' if pod['metadata'].get('deletionTimestamp') else phase}")
    return sorted(told)


def _runs_a_manager(pod: JsonObject) -> bool:
    spec = pod.get("spec") or {}
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    return any(recognised(str(c.get("image", ""))) is Component.MANAGER for c in containers)


def watch_managers(connections: Connections) -> "ManagerWatch":
    """The watch over every manager of an installation; raise `UsageError` where none is found to be watched.

    Its watches are short: a dead connection must not hide for long that a manager started.
    """
    managers = connections.inventory().of(Component.MANAGER)
    if not managers:
        raise UsageError(
            "No manager was found, so it cannot be seen that none runs.",
            observed="No Deployment that may be read runs a manager's image.",
            next="Check the context and the namespaces. If there is none on purpose, say so: --no-cluster.",
        )
    hubs = {
        name: WatchHub(api, server_seconds=WATCH_SECONDS, idle_margin=IDLE_MARGIN)
        for name, api in connections.apis.items()
    }
    return ManagerWatch(hubs, managers)


class ManagerWatch:
    """While the context lasts, `check()` answers at once whether a manager exists or existed since it began.

    `hubs` are the clusters' watches by the cluster's name.  Entering waits for the first lists (`SYNC_SECONDS`
    at most) and raises what `check()` raises.  Every change is looked at when it comes, asked or not: a manager
    that came and went between two questions has written too.
    """

    def __init__(
        self,
        hubs: Mapping[str, WatchHub],
        managers: Sequence[DeploymentFacts],
        *,
        patience: float = PATIENCE,
        sync_seconds: float = SYNC_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hubs, self._managers = hubs, managers
        self._patience, self._sync_seconds, self._clock = patience, sync_seconds, clock
        self._lock = threading.Lock()  # several writers of a restore ask at once
        self._stack = contextlib.ExitStack()
        self._views: dict[Place, View] = {}
        self._judged: dict[Place, int] = {}
        self._generations: dict[Place, dict[str, int]] = {}
        self._seen: dict[str, None] = {}  # in the order in which it was seen
        self._deaf_since: float | None = None
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        with self._stack:
            for key in sorted({(m.key.cluster, m.key.namespace) for m in self._managers}):
                self._views[key] = self._stack.enter_context(self._hubs[key[0]].view(key[1]))
            end = self._clock() + self._sync_seconds
            for view in self._views.values():
                while not view.synced():
                    if self._clock() > end:
                        raise _deaf(view.trouble() or "The list of pods did not come.")
                    view.wait(view.version, 0.2)
            self._require_word()
            if told := [sentence for place in self._views for sentence in self._look(place)]:
                raise _there(told, self._managers)
            self._generations = {place: _generations(view) for place, view in self._views.items()}
            for place in self._views:
                threading.Thread(target=self._follow, args=(place,), name="managers", daemon=True).start()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._stack.close()

    def check(self) -> None:
        """Raise `DriftError` where a manager appeared, `TemporaryError` where the cluster was silent for too long."""
        with self._lock:
            for place in self._views:
                self._note(place)
            if self._seen:
                raise _appeared(list(self._seen))
            self._require_word()

    def _follow(self, place: Place) -> None:
        """Look at every change of one namespace, and after a long silence at what it may have hidden."""
        view, silent_since = self._views[place], None
        while not self._closed.is_set():
            version, now = view.version, self._clock()
            if view.trouble():
                silent_since = now if silent_since is None else silent_since
            else:
                silent = 0.0 if silent_since is None else now - silent_since
                silent_since = None
                with self._lock, contextlib.suppress(UpgradeError):  # check() raises it to whoever asks
                    self._note(place)
                    if silent > self._patience:
                        self._compare(place)
            view.wait(version, LOOK_SECONDS)

    def _note(self, place: Place) -> None:
        version = self._views[place].version
        if self._judged.get(place) != version:
            self._seen |= dict.fromkeys(self._look(place))
            self._judged[place] = version

    def _look(self, place: Place) -> list[str]:
        view = self._views[place]
        view.synced()  # raises what ended the watch for good
        known = [m.uid for m in self._managers if (m.key.cluster, m.key.namespace) == place]
        found = managers_alive(known, view.objects("deployments"), view.objects("replicasets"), view.objects("pods"))
        return [_where(place, sentence) for sentence in found]

    def _compare(self, place: Place) -> None:
        """A Deployment that was scaled up and down again in a silence has another generation."""
        known = {m.uid for m in self._managers}
        before, now = self._generations[place], _generations(self._views[place])
        names = {uid(d): name(d) for d in self._views[place].objects("deployments")}
        for one in sorted(known & now.keys()):
            if now[one] != before.get(one):
                told = f"Deployment {names[one]} was changed while the cluster did not answer"
                self._seen[_where(place, told)] = None

    def _require_word(self) -> None:
        trouble = "; ".join(filter(None, (view.trouble() for view in self._views.values())))
        if not trouble:
            self._deaf_since = None
            return
        now = self._clock()
        self._deaf_since = now if self._deaf_since is None else self._deaf_since
        if now - self._deaf_since > self._patience:
            raise _deaf(trouble)


def _generations(view: View) -> dict[str, int]:
    return {uid(d): int(d["metadata"].get("generation", 0)) for d in view.objects("deployments")}


def _where(place: Place, sentence: str) -> str:
    cluster, namespace = place
    return f"{namespace}{' in ' + cluster if cluster else ''}: {sentence}"


def _there(told: Sequence[str], managers: Sequence[DeploymentFacts]) -> BlockedError:
    commands = [f"kubectl scale deployment {m.key.name} -n {m.key.namespace} --replicas=0" for m in managers]
    return BlockedError(
        "The manager runs, so its database cannot be put back.",
        observed="\n".join(told),
        next="\n".join(("Scale it to 0, wait until its pods are gone, then restore:", *commands)),
    )


def _appeared(told: Sequence[str]) -> DriftError:
    return DriftError(
        "A manager appeared while its database is being put back.",
        observed="\n".join(told),
        next="See who starts it (a deployment tool, an autoscaler, a colleague), scale it to 0, and run the restore again: "
        "it goes on where it ended.",
    )


def _deaf(trouble: str) -> TemporaryError:
    return TemporaryError(
        "The cluster cannot be asked whether a manager runs.",
        observed=trouble,
        next="When its API answers again, run the restore again: it goes on where it ended.",
    )
