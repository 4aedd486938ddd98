"""One list-and-watch a kind and namespace, feeding a cache that all rollouts of the process share.

The protocol: kubernetes.io/docs/reference/using-api/api-concepts (efficient detection of changes), and client-go's
Reflector (tools/cache/reflector.go).  A watch ends in many ways, and each has its answer:

- cleanly, after the server's timeout: go on from the last resourceVersion;
- 410, as a status or as an event: list again; what the new list lacks is gone;
- 429, 5xx, a refused or broken connection (the API server restarts): wait with jitter, go on;
- silently (a half-open connection, a proxy that holds streams back): the read's idle limit, a little above the
  server's own timeout, breaks it; list again, since the next watch may be as silent;
- a line that is no event: drop the connection, go on from the last good one; list again when it repeats;
- 401 and 403: those who wait are told, since no retry mends it.
"""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tasks.cluster.answers import GoneError, JsonObject, ServerAwayError
from tasks.cluster.api import KubernetesApi, Lines
from tasks.cluster.retry import backoff, pause
from tasks.cluster.watch_cache import Cache
from tasks.domain.errors import TemporaryError, UpgradeError

PATHS = {
    "deployments": "/apis/apps/v1/namespaces/{}/deployments",
    "replicasets": "/apis/apps/v1/namespaces/{}/replicasets",
    "pods": "/api/v1/namespaces/{}/pods",
}
# A dead connection is found this many seconds after it died at the latest, at the price of one request as often.
SERVER_SECONDS = 30
IDLE_MARGIN = 8.0
BAD_LINES_BEFORE_LIST = 3
REFUSALS = 2
TRIES_BEFORE_LIST = 5
# A server that keeps bookmarks sends one before it ends a watch; two watches without a line may be a proxy's silence.
QUIET_BEFORE_LIST = 2


class _BadLineError(Exception):
    """A line of the stream that is no watch event."""


class Reflector:
    """Keeps one kind of one namespace in a `Cache`, on a daemon thread between `start()` and `stop()`."""

    def __init__(
        self,
        api: KubernetesApi,
        kind: str,
        namespace: str,
        cache: Cache,
        *,
        server_seconds: int = SERVER_SECONDS,
        idle_margin: float = IDLE_MARGIN,
    ) -> None:
        # Its own loop tries again, and stops at once when it is told to; the API's patience would hide that.
        self._api = api.patient(0)
        self._path = PATHS[kind].format(namespace)
        self._kind = kind
        self._cache = cache
        self._server_seconds = server_seconds
        self._idle = server_seconds + idle_margin
        self._rng = random.Random()  # noqa: S311 - jitter, not a secret
        self._ended = threading.Event()
        self._lines: Lines | None = None
        self._lock = threading.Lock()
        self._version = ""  # where the watch goes on; "" asks for a list
        self._thread = threading.Thread(target=self._run, name=f"watch {namespace}/{kind}", daemon=True)

    def start(self) -> None:
        """Begin; the cache is synced for the kind once the first list is in."""
        self._thread.start()

    def stop(self) -> None:
        """End the watch; a blocked read is woken.  Does not wait for the thread."""
        self._ended.set()
        with self._lock:
            if self._lines is not None:
                self._lines.close()

    def join(self, seconds: float) -> bool:
        """Wait for the thread to end; True where it did."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        attempt = bad_lines = refusals = quiet = 0
        while not self._ended.is_set():
            try:
                lines, seconds = self._round()
                attempt = 0 if lines or seconds > 1.0 else attempt + 1
                bad_lines = refusals = 0
                quiet = 0 if lines else quiet + (seconds > 1.0)
                if quiet >= QUIET_BEFORE_LIST:
                    self._version, quiet = "", 0
                # An empty watch that ends at once, again and again, is a server in trouble: do not spin.
                wait = 0.0 if attempt <= 1 else backoff(attempt, self._rng)
            except GoneError:
                self._version, wait = "", backoff(attempt, self._rng, cap=2.0)
                attempt += 1
            except _BadLineError:
                bad_lines += 1
                if bad_lines >= BAD_LINES_BEFORE_LIST:
                    self._version, bad_lines = "", 0
                wait = backoff(attempt, self._rng)
                attempt += 1
            except TemporaryError as error:
                self._cache.say(self._kind, error.observed or error.happened)
                # The cap is short: an API server that is back should be heard within seconds.
                wait = pause(error, attempt, self._rng, cap=3.0)
                attempt += 1
                silent = isinstance(error, ServerAwayError) and error.silent
                if silent or attempt % TRIES_BEFORE_LIST == 0:
                    self._version = ""  # the version itself may be the trouble (a restored etcd knows it not)
            except UpgradeError as error:
                refusals += 1
                if refusals >= REFUSALS:
                    self._cache.fail(error)
                    return
                wait = 0.5  # a token that has just expired is renewed by the next request
            except Exception as error:  # noqa: BLE001 - a watch that dies in silence leaves its users waiting
                self._cache.fail(_broken(self._path, error))
                return
            if wait and self._ended.wait(wait):
                return

    def _round(self) -> tuple[int, float]:
        """One list where needed, then one watch to its end: how many lines it brought, how many seconds it stood."""
        if not self._version:
            listing = self._api.list(self._path)
            self._cache.replace(self._kind, listing.items)
            self._cache.say(self._kind, "")
            self._version = listing.resource_version
        # Spread the ends, so that the watches of many namespaces do not come back in one moment.
        seconds = max(1, round(self._server_seconds * self._rng.uniform(0.8, 1.0)))
        query: dict[str, str | int | bool] = {
            "watch": True,
            "resourceVersion": self._version,
            "allowWatchBookmarks": True,
            "timeoutSeconds": seconds,
        }
        events, begin = 0, time.monotonic()
        with self._api.lines(self._path, query, self._idle) as lines, self._reading(lines):
            self._cache.say(self._kind, "")
            for text in lines:
                self._take(text)
                events += 1
        return events, time.monotonic() - begin

    @contextmanager
    def _reading(self, lines: Lines) -> Iterator[None]:
        """Let `stop()` reach the stream."""
        with self._lock:
            self._lines = lines
            if self._ended.is_set():
                lines.close()
        try:
            yield
        finally:
            with self._lock:
                self._lines = None

    def _take(self, text: bytes) -> None:
        """One event into the cache."""
        try:
            event = json.loads(text)
            kind, thing = str(event["type"]), event["object"]
            version = str(thing.get("metadata", {}).get("resourceVersion") or "")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _BadLineError from error
        if kind == "ERROR":
            raise _event_error(self._path, thing)
        if kind in ("ADDED", "MODIFIED"):
            self._cache.put(self._kind, thing)
        elif kind == "DELETED":
            self._cache.drop(self._kind, thing)
        elif kind != "BOOKMARK":
            raise _BadLineError
        if version:
            self._version = version


def _event_error(path: str, status: JsonObject) -> UpgradeError:
    """The error of an ERROR event: its object is a Status with HTTP's code."""
    code, message = status.get("code"), str(status.get("message") or "")
    observed = f"The watch of {path} was ended by the API server with {code}: {message}"
    if code == 410 or status.get("reason") in ("Expired", "Gone"):
        return GoneError("The watch is too old to go on.", observed=observed, next="List again.")
    return TemporaryError("The API server ended a watch.", observed=observed, next="It is opened again.")


def _broken(path: str, error: Exception) -> UpgradeError:
    return UpgradeError(
        "A watch of the cluster broke.",
        observed=f"{path}: {type(error).__name__}: {error}",
        safe="The rollout goes on in the cluster; it is only no longer seen here.",
        next="Go on when it answers: what is done already is found done.",
    )


class View:
    """One user's look at the shared cache of a namespace."""

    def __init__(self, cache: Cache, kinds: tuple[str, ...]) -> None:
        self._cache = cache
        self._kinds = kinds

    def synced(self) -> bool:
        """True once everything asked for has been listed; raises what ended a watch for good."""
        return self._cache.synced(self._kinds)

    def objects(self, kind: str) -> tuple[JsonObject, ...]:
        """All objects of `kind` in the namespace; shared, not to be written to."""
        return self._cache.objects(kind)

    def gone(self, kind: str) -> tuple[JsonObject, ...]:
        """The last state of those whose deletion was seen since the watch began (the last of them)."""
        return self._cache.gone(kind)

    def lists(self, kind: str) -> int:
        """How often the kind was listed; the same number twice: in between every change was seen."""
        return self._cache.lists(kind)

    @property
    def version(self) -> int:
        """Read it before `objects`, then `wait(version, ...)`: no change is missed."""
        return self._cache.version

    def wait(self, version: int, seconds: float) -> int:
        """Block until something changed since `version`, at most `seconds`."""
        return self._cache.wait(version, seconds)

    def wake(self) -> None:
        """Have all who wait look again, though nothing changed."""
        self._cache.wake()

    def trouble(self) -> str:
        """Why the view may be stale, or ""."""
        return self._cache.trouble()


class WatchHub:
    """The watches of one cluster, shared by all who wait: one a kind and namespace, ended with its last user."""

    def __init__(
        self, api: KubernetesApi, *, server_seconds: int = SERVER_SECONDS, idle_margin: float = IDLE_MARGIN
    ) -> None:
        self.api = api
        self._make: Callable[[str, str, Cache], Reflector] = lambda kind, namespace, cache: Reflector(
            api, kind, namespace, cache, server_seconds=server_seconds, idle_margin=idle_margin
        )
        self._lock = threading.Lock()
        self._caches: dict[str, tuple[Cache, dict[str, Reflector], list[tuple[str, ...]]]] = {}

    @contextmanager
    def view(self, namespace: str, kinds: tuple[str, ...] = ("deployments", "replicasets", "pods")) -> Iterator[View]:
        """Watch `kinds` of `namespace` while the context lasts."""
        with self._lock:
            cache, reflectors, users = self._caches.setdefault(namespace, (Cache(), {}, []))
            users.append(kinds)
            for kind in kinds:
                if kind not in reflectors:
                    reflectors[kind] = self._make(kind, namespace, cache)
                    reflectors[kind].start()
        try:
            yield View(cache, kinds)
        finally:
            self._leave(namespace, kinds)

    def _leave(self, namespace: str, kinds: tuple[str, ...]) -> None:
        with self._lock:
            _, reflectors, users = self._caches[namespace]
            users.remove(kinds)
            if not users:  # the whole namespace at once: kinds come and go together
                for reflector in reflectors.values():
                    reflector.stop()
                del self._caches[namespace]
