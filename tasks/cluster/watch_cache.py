"""What the watches of one namespace have brought, and who waits for it."""

import threading

from tasks.cluster.answers import JsonObject
from tasks.cluster.rollout_view import uid
from tasks.domain.errors import UpgradeError

GONE_KEPT = 200  # of each kind: who asks for what is gone asks within minutes


class Cache:
    """Objects of several kinds of one namespace, by uid.  Safe between threads; `version` grows with each change."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._objects: dict[str, dict[str, JsonObject]] = {}
        self._gone: dict[str, dict[str, JsonObject]] = {}
        self._lists: dict[str, int] = {}
        self._error: UpgradeError | None = None
        self._trouble: dict[str, str] = {}
        self._version = 0

    @property
    def version(self) -> int:
        """Grows with each change of an object, a list, an error."""
        with self._changed:
            return self._version

    def objects(self, kind: str) -> tuple[JsonObject, ...]:
        """The objects as they were received, shared and not copied: they are not to be written to."""
        with self._changed:
            return tuple(self._objects.get(kind, {}).values())

    def synced(self, kinds: tuple[str, ...]) -> bool:
        """True once each kind has been listed.  Raises the error that ended a watch for good (401, 403)."""
        with self._changed:
            if self._error is not None:
                raise self._error
            return all(kind in self._lists for kind in kinds)

    def gone(self, kind: str) -> tuple[JsonObject, ...]:
        """The last state of those whose deletion a watch told of; what a list only lacks is not among them."""
        with self._changed:
            return tuple(self._gone.get(kind, {}).values())

    def lists(self, kind: str) -> int:
        """How often the kind was listed: what came and went between two lists was not seen."""
        with self._changed:
            return self._lists.get(kind, 0)

    def trouble(self) -> str:
        """What keeps the watches from the API server just now, or "" where all of them are connected."""
        with self._changed:
            return "; ".join(sorted(set(self._trouble.values())))

    def wait(self, version: int, seconds: float) -> int:
        """Block until the version is another than `version`, or `seconds` passed; the version then."""
        with self._changed:
            self._changed.wait_for(lambda: self._version != version, max(0.0, seconds))
            return self._version

    def wake(self) -> None:
        """Have all who wait look again, though nothing changed: one of them has been told to end."""
        with self._changed:
            self._bump()

    def replace(self, kind: str, items: list[JsonObject]) -> None:
        """A whole list came: what it lacks is gone."""
        with self._changed:
            self._objects[kind] = {uid(item): item for item in items}
            self._lists[kind] = self._lists.get(kind, 0) + 1
            self._bump()

    def put(self, kind: str, item: JsonObject) -> None:
        """An object was added or changed."""
        with self._changed:
            self._objects.setdefault(kind, {})[uid(item)] = item
            self._bump()

    def drop(self, kind: str, item: JsonObject) -> None:
        """An object was deleted."""
        with self._changed:
            self._objects.get(kind, {}).pop(uid(item), None)
            gone = self._gone.setdefault(kind, {})
            gone[uid(item)] = item
            if len(gone) > GONE_KEPT:
                del gone[next(iter(gone))]
            self._bump()

    def fail(self, error: UpgradeError) -> None:
        """A watch ended for good."""
        with self._changed:
            self._error = error
            self._bump()

    def say(self, kind: str, trouble: str) -> None:
        """The watch of `kind` is in `trouble`, or connected ("")."""
        with self._changed:
            if self._trouble.get(kind, "") != trouble:
                self._trouble[kind] = trouble
                self._bump()

    def _bump(self) -> None:
        self._version += 1
        self._changed.notify_all()
