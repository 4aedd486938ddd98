"""A watch that remembers: what must not happen in some namespaces is seen when it comes, asked or not.

Its users ask it before each write; what came and went between two questions has had its effect too.
"""

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

from tasks.cluster.api import KubernetesApi
from tasks.cluster.rollout_view import generation_of, name, uid
from tasks.cluster.watch import View, WatchHub
from tasks.domain.errors import DriftError, TemporaryError, UpgradeError

PATIENCE = 8.0
"""Seconds without word from the cluster after which nobody can say what is there."""
SYNC_SECONDS = 20.0
WATCH_SECONDS, IDLE_MARGIN = 8, 4.0
LOOK_SECONDS = 0.5

Place = tuple[str, str]
"""A cluster's name and a namespace."""


def short_watches(apis: Mapping[str, KubernetesApi]) -> dict[str, WatchHub]:
    """Hubs of their own: a dead connection must not hide for long what happens."""
    return {name: WatchHub(api, server_seconds=WATCH_SECONDS, idle_margin=IDLE_MARGIN) for name, api in apis.items()}


def where(place: Place, sentence: str) -> str:
    """The sentence with its place in front."""
    cluster, namespace = place
    return f"{namespace}{' in ' + cluster if cluster else ''}: {sentence}"


class Lookout(ABC):
    """While the context lasts, `check()` answers at once whether anything unwanted exists or existed since it began.

    `hubs` are the clusters' watches by the cluster's name, `known` the uids of the Deployments that it is about.
    Entering waits for the first lists (`SYNC_SECONDS` at most) and raises what stands against beginning.
    """

    def __init__(
        self,
        hubs: Mapping[str, WatchHub],
        places: Iterable[Place],
        known: Iterable[str],
        *,
        patience: float = PATIENCE,
        sync_seconds: float = SYNC_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hubs, self._places, self._known = hubs, sorted(set(places)), frozenset(known)
        self._patience, self._sync_seconds, self._clock = patience, sync_seconds, clock
        self._lock = threading.Lock()  # several writers ask at once
        self._stack = contextlib.ExitStack()
        self._views: dict[Place, View] = {}
        self._judged: dict[Place, int] = {}
        self._generations: dict[Place, dict[str, int]] = {}
        self._seen: dict[str, None] = {}  # in the order in which it was seen
        self._deaf_since: float | None = None
        self._closed = threading.Event()

    @abstractmethod
    def _judge(self, place: Place, view: View) -> list[str]:
        """A sentence for each thing in one namespace that must not be."""

    @abstractmethod
    def _there(self, told: Sequence[str]) -> UpgradeError:
        """The error of what is there when it begins."""

    @abstractmethod
    def _appeared(self, told: Sequence[str]) -> DriftError:
        """The error of what came afterwards."""

    @abstractmethod
    def _deaf(self, trouble: str) -> TemporaryError:
        """The error of a cluster that gives no word."""

    def __enter__(self) -> Self:
        with self._stack:
            for place in self._places:
                self._views[place] = self._stack.enter_context(self._hubs[place[0]].view(place[1]))
            end = self._clock() + self._sync_seconds
            for view in self._views.values():
                while not view.synced():
                    if self._clock() > end:
                        raise self._deaf(view.trouble() or "The list of pods did not come.")
                    view.wait(view.version, 0.2)
            self._require_word()
            if told := [sentence for place in self._views for sentence in self._look(place)]:
                raise self._there(told)
            self._generations = {place: generations(view) for place, view in self._views.items()}
            for place in self._views:
                threading.Thread(target=self._follow, args=(place,), name="lookout", daemon=True).start()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._stack.close()

    def check(self) -> None:
        """Raise `DriftError` where anything unwanted was seen, `TemporaryError` where the cluster was silent too long."""
        with self._lock:
            for place in self._views:
                self._note(place)
            if self._seen:
                raise self._appeared(list(self._seen))
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
        return [where(place, sentence) for sentence in self._judge(place, view)]

    def _compare(self, place: Place) -> None:
        """A Deployment that was scaled up and down again in a silence has another generation."""
        before, now = self._generations[place], generations(self._views[place])
        names = {uid(d): name(d) for d in self._views[place].objects("deployments")}
        for one in sorted(self._known & now.keys()):
            if now[one] != before.get(one):
                told = f"Deployment {names[one]} was changed while the cluster did not answer"
                self._seen[where(place, told)] = None

    def _require_word(self) -> None:
        trouble = "; ".join(filter(None, (view.trouble() for view in self._views.values())))
        if not trouble:
            self._deaf_since = None
            return
        now = self._clock()
        self._deaf_since = now if self._deaf_since is None else self._deaf_since
        if now - self._deaf_since > self._patience:
            raise self._deaf(trouble)


def generations(view: View) -> dict[str, int]:
    """metadata.generation of the Deployments of one namespace, by uid."""
    return {uid(d): generation_of(d) for d in view.objects("deployments")}
