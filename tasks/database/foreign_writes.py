"""Watches a database for writes of others while it is restored.

A change stream, opened before the first write of the restore, tells each write of others.  Where the server
gives none (standalone, a user who may not) the counters of operations (`top`) or the collections' identities and
counts are compared about every second: weaker, for it sees changes and not each write, and the evidence says so.
The looking is done in a thread; `check` only asks what was found, and whether the thread still sees.
"""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bson import Timestamp
from pymongo.change_stream import DatabaseChangeStream
from pymongo.errors import OperationFailure, PyMongoError

from tasks.database.change_event import Author, Own, author, collection_of, replaces, told
from tasks.database.connection import Client, explain
from tasks.database.glance import COUNTS, OPERATIONS, Glance, Seen
from tasks.database.logs import LOG_COLLECTIONS
from tasks.database.restore.names import PREFIX
from tasks.domain.errors import DriftError, TemporaryError, UnprovenError

Stream = DatabaseChangeStream[dict[str, Any]]

_AWAIT_MILLISECONDS = 500
_PAUSE = 1.0
_SETTLED_POLLS = 2
_SILENCE = 240.0
"""Seconds without an answer after which the watch counts as blind: a server may be away for 60 and keep a
connection waiting for 120."""

_EXPANDED_FROM = (6, 0)
_GAP = {136, 280, 286}  # CappedPositionLost, ChangeStreamFatalError, ChangeStreamHistoryLost
_NO_STREAM = {8000, 13, 40573, 40324, 59, 72, 115, 303, 20}
"""Answers that mean there is no change stream for us: no replica set, no right, an unknown stage or command."""


class ForeignWrites:
    """What is known of the writes of others; made by `watch_for_others`."""

    def __init__(self, client: Client, database: str, run: str = "") -> None:
        self._client, self._database = client, database
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._own = Own(run=run)
        self._fatal: Counter[tuple[str, str]] = Counter()
        self._logs: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._aging: dict[str, bool] = {}
        self._polls = 0
        self._seen_to: Timestamp | None = None
        self._heard = time.monotonic()
        self._blind = ""
        self._glance = Glance(client, database)
        self._baseline: dict[str, Seen] = {}
        self.strength = ""
        """`change stream`, `operation counters` or `counts`."""
        self.notes: list[str] = []

    def own(self, *collections: str, data: bool = False) -> None:
        """Say before it is done that this run drops, renames, makes or modifies these live collections.

        With `data` it merges documents into them, too.  Its temporary collections need no announcement.
        """
        with self._lock:
            names = frozenset(collections)
            self._own = self._own.and_of(names, data=data)
            if data:
                self._note(f"Writes of others to {', '.join(sorted(names))} could not be told from this run's own.")

    def check(self) -> None:
        """At once, without asking the server: raise DriftError when somebody else writes, UnprovenError when nobody
        watches any more."""
        with self._lock:
            found, blind = sorted(self._fatal.items()), self._blind
            silent = time.monotonic() - self._heard
        if found:
            raise DriftError(
                f"Somebody else writes to the database {self._database} while it is restored.",
                observed="\n".join(f"{name or 'the database'}: {count} × {what}" for (name, what), count in found),
                safe="Each collection is whole, as it was or as restored; what is loaded waits under temporary names.",
                next="Find who writes (a manager elsewhere, a script, a shell), stop it, then restore again.",
            )
        if not blind and not self._closed.is_set() and silent > _SILENCE:
            blind = f"For {silent:,.0f} seconds the server did not answer the watch."
        if blind:
            raise self._unseen(blind)

    def settle(self, timeout: float = 60.0) -> None:
        """Wait until everything that was written before this call was looked at, then `check`.

        `timeout` is seconds.  Raises UnprovenError too when it was not looked at by then, and the driver's errors.
        """
        self.check()
        moment = self._client.admin.command("ping").get("operationTime")
        with self._lock:
            wanted = self._polls + _SETTLED_POLLS
        waiting = threading.Event()
        step = 0.05
        for _ in range(round(timeout / step)):
            with self._lock:
                # No event for a while, or one that is later than all that matters: a log may never be silent.
                past = moment is not None and self._seen_to is not None and self._seen_to > moment
                if past or self._polls >= wanted or self._fatal or self._blind:
                    break
            waiting.wait(step)
        else:
            self.check()
            raise self._unseen(f"The last look was not answered within {timeout:,.0f} seconds.")
        self.check()

    def _unseen(self, why: str) -> UnprovenError:
        return UnprovenError(
            f"It is not known whether somebody else wrote to the database {self._database} meanwhile.",
            observed=f"The watch for writes of others ended or stalled. {why}",
            safe="Each collection is whole, as it was or as restored; what is loaded waits under temporary names.",
            next="See that the manager is stopped and the database server answers; then restore again.",
        )

    def evidence(self) -> list[str]:
        """Sentences on how was watched and what else was written."""
        with self._lock:
            lines = [_STRENGTHS.get(self.strength, "Writes of others were not watched.")]
            lines += [self._log(name) for name in sorted(self._logs.keys() | self._lost.keys())]
            return lines + self.notes

    def _log(self, name: str) -> str:
        count, lost = self._logs[name] + self._lost[name], self._lost[name]
        line = f"{name} was written by others meanwhile ({count:,} changes)"
        if lost:
            return f"{line}: {lost:,} of them, and what was written since the last backup, went with the old collection when it was replaced."  # fmt: skip
        if name in self._own.structure and self.strength != "change stream":
            return f"{line}: what was written since the last backup went with the old collection when it was replaced."
        return f"{line}."

    def begin(self) -> Callable[[], None]:
        """Take the first look now, so that nothing later is missed; gives the work of the thread."""
        try:
            stream = self._open(None)
        except OperationFailure as problem:
            if problem.code not in _NO_STREAM:
                raise
            first = self._glance.first()
            self.strength = self._glance.strength
            return self._seeing(lambda: self._compare(first))
        self._baseline = self._glance.look()
        self.strength = "change stream"
        return self._seeing(lambda: self._follow(stream))

    def close(self) -> None:
        """End the thread's work."""
        self._closed.set()

    def _seeing(self, work: Callable[[], None]) -> Callable[[], None]:
        """`work`, whose end before its time is known to whoever checks."""

        def act() -> None:
            self._answered()
            why = "Its thread ended."
            try:
                work()
            except PyMongoError as problem:
                code = f", code {problem.code}" if isinstance(problem, OperationFailure) else ""
                why = f"The server or the driver refused it ({type(problem).__name__}{code})."
            except Exception as problem:  # noqa: BLE001 - told by check, whatever it is: a blind watch is worse
                why = f"It failed with {type(problem).__name__}."
            finally:
                with self._lock:
                    self._blind = "" if self._closed.is_set() else why

        return act

    def _answered(self) -> None:
        with self._lock:
            self._heard = time.monotonic()

    def _open(self, token: Mapping[str, Any] | None) -> Stream:
        # The restore's own documents are left out by the server: they would all come back over the wire.  A rename
        # is told by the name that was; only its event says what stood under the other one (SERVER-53478).
        own = {"ns.coll": {"$not": {"$regex": f"^{re.escape(PREFIX)}"}}}
        pipeline: list[dict[str, Any]] = [
            {"$match": {"$or": [own, {"operationType": "rename"}]}},
            {"$project": {"operationType": 1, "ns": 1, "to": 1, "clusterTime": 1}},
        ]
        version = tuple(self._client.admin.command("buildInfo")["versionArray"][:2])
        more: dict[str, Any] = {"show_expanded_events": True} if version >= _EXPANDED_FROM else {}
        database = self._client[self._database]
        return database.watch(pipeline, max_await_time_ms=_AWAIT_MILLISECONDS, start_after=token, **more)

    def _follow(self, stream: Stream) -> None:
        token: Mapping[str, Any] | None = None
        while not self._closed.is_set():
            try:
                with stream:
                    # At once: a server that goes away before its first answer is gone on with from here.
                    token = stream.resume_token or token
                    while not self._closed.is_set() and stream.alive:
                        event = stream.try_next()
                        token = stream.resume_token
                        self._take(event)
                if not self._closed.wait(_PAUSE):
                    stream = self._open(token)
            except PyMongoError as problem:
                if _is_final(problem):
                    return self._fall_back(problem)
                # The server is away: what was written meanwhile is told when it is back.
                reopened = self._reopen(token)
                if reopened is None:
                    return None
                stream = reopened
        return None

    def _reopen(self, token: Mapping[str, Any] | None) -> Stream | None:
        while not self._closed.wait(_PAUSE):
            try:
                return self._open(token)
            except PyMongoError as problem:
                if _is_final(problem):
                    self._fall_back(problem)
                    return None
        return None

    def _take(self, event: Mapping[str, Any] | None) -> None:
        self._answered()
        if event is None:
            with self._lock:
                self._polls += 1
            return
        name = collection_of(event)
        aging = frozenset({name}) if event.get("operationType") == "delete" and self._ages(name) else frozenset()
        with self._lock:
            match author(event, self._own, aging):
                case Author.OTHER:
                    self._fatal[name, told(event)] += 1
                case Author.LOG:
                    self._logs[name] += 1
                case Author.OURS if replaces(event):
                    # What others wrote to a log so far was written to the collection that is gone now.
                    for log in {name, collection_of(event, "to")} & self._logs.keys():
                        self._lost[log] += self._logs.pop(log)
                case _:
                    pass
            moment = event.get("clusterTime")
            self._seen_to = moment if isinstance(moment, Timestamp) else self._seen_to

    def _ages(self, collection: str) -> bool:
        """Whether the server itself removes documents by age there."""
        if collection not in self._aging:
            try:
                indexes = self._client[self._database][collection].list_indexes()
                self._aging[collection] = any("expireAfterSeconds" in index for index in indexes)
            except PyMongoError:
                return False
        return self._aging[collection]

    def _fall_back(self, problem: PyMongoError) -> None:
        """The stream cannot be gone on with: what is there now is compared with what was there at the start."""
        code = problem.code if isinstance(problem, OperationFailure) else type(problem).__name__
        self._note(f"The change stream broke off (code {code}); from then on counts were compared, which sees less.")
        self.strength = COUNTS
        self._compare(self._baseline)

    def _compare(self, before: dict[str, Seen]) -> None:
        while not self._closed.wait(_PAUSE):
            try:
                now = self._glance.look()
            except PyMongoError as problem:
                if isinstance(explain(problem, ""), TemporaryError):
                    continue
                raise
            self._answered()
            for name in before.keys() | now.keys():
                self._weigh(name, before.get(name), now.get(name))
            before = now
            with self._lock:
                self._polls += 1

    def _weigh(self, name: str, before: Seen | None, now: Seen | None) -> None:
        if before == now:
            return
        replaced = (before and before[0]) != (now and now[0])
        fewer = bool(before and now and now[1] < before[1])
        with self._lock:
            if name in self._own.data or (replaced and name in self._own.structure):
                return
            if name in LOG_COLLECTIONS and not replaced:
                self._logs[name] += 1
                return
        # Counters begin anew when the server does; documents go by age.
        if not replaced and fewer and (self.strength == OPERATIONS or self._ages(name)):
            return
        with self._lock:
            what = "made, dropped or replaced" if replaced else "its documents changed"
            self._fatal[name, what] += 1

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


_STRENGTHS = {
    "change stream": "Writes of others were watched with a change stream.",
    OPERATIONS: "The server gives no change stream: its counters of operations were compared every second instead, which sees less.",
    COUNTS: "The server gives no change stream: identities and counts were compared every second instead, which does not see updates.",
}  # fmt: skip


def _is_final(problem: PyMongoError) -> bool:
    """Whether the same question would be answered the same again, as of an event that is too large to be told."""
    if isinstance(problem, OperationFailure) and problem.code in _GAP | _NO_STREAM:
        return True
    return not isinstance(explain(problem, ""), TemporaryError)


@contextmanager
def watch_for_others(client: Client, database: str, run: str = "") -> Iterator[ForeignWrites]:
    """Watch `database` from now on until the context ends.  Raises the driver's errors if the first look fails.

    `run` is how the restore's own temporary collections are named (`restore.names.owner`): a rename of another
    restore's is somebody else's, also where this one announced the name that it takes.
    """
    watched = ForeignWrites(client, database, run)
    thread = threading.Thread(target=watched.begin(), name="foreign-writes", daemon=True)
    thread.start()
    try:
        yield watched
    finally:
        watched.close()
        thread.join(10 * _PAUSE)
