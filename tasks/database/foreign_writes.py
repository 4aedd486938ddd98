"""Watches a database for writes of others while it is restored.

A change stream, opened before the first write of the restore, tells each write of others.  Where the server
gives none (standalone, a user who may not) the counters of operations (`top`) or the collections' identities and
counts are compared about every second: weaker, for it sees changes and not each write, and the evidence says so.
The looking is done in a thread; `check` only asks what was found.
"""

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pymongo.change_stream import DatabaseChangeStream
from pymongo.errors import OperationFailure, PyMongoError

from tasks.database.change_event import Author, Own, author, collection_of
from tasks.database.connection import Client
from tasks.database.listing import identities
from tasks.database.logs import LOG_COLLECTIONS
from tasks.database.restore.names import PREFIX, is_own
from tasks.domain.errors import DriftError

Stream = DatabaseChangeStream[dict[str, Any]]

_AWAIT_MILLISECONDS = 500
_PAUSE = 1.0
_SETTLED_POLLS = 2
_TRIES = 5
_EXPANDED_FROM = (6, 0)
_GAP = {136, 280, 286}  # CappedPositionLost, ChangeStreamFatalError, ChangeStreamHistoryLost
_NO_STREAM = {8000, 13, 40573, 40324, 59, 72, 115, 303, 20}
"""Answers that mean there is no change stream for us: no replica set, no right, an unknown stage or command."""


class ForeignWrites:
    """What is known of the writes of others; made by `watch_for_others`."""

    def __init__(self, client: Client, database: str) -> None:
        self._client, self._database = client, database
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._own = Own()
        self._fatal: Counter[tuple[str, str]] = Counter()
        self._logs: Counter[str] = Counter()
        self._aging: dict[str, bool] = {}
        self._polls = 0
        self._baseline: dict[str, _Seen] = {}
        self.strength = ""
        """`change stream`, `operation counters` or `counts`."""
        self.notes: list[str] = []

    def own(self, *collections: str, data: bool = False) -> None:
        """Say before it is done that this run drops, renames, makes or modifies these live collections.

        With `data` it merges documents into them, too.  Its temporary collections need no announcement.
        """
        with self._lock:
            names = frozenset(collections)
            self._own = Own(self._own.structure | names, self._own.data | (names if data else frozenset()))
            if data:
                self._note(f"Writes of others to {', '.join(sorted(names))} could not be told from this run's own.")

    def check(self) -> None:
        """Raise DriftError when somebody else writes; at once, without asking the server."""
        with self._lock:
            found = sorted(self._fatal.items())
        if found:
            raise DriftError(
                f"Somebody else writes to the database {self._database} while it is restored.",
                observed="\n".join(f"{name or 'the database'}: {count} × {what}" for (name, what), count in found),
                safe="Each collection is whole, as it was or as restored; what is loaded waits under temporary names.",
                next="Find who writes (a manager elsewhere, a script, a shell), stop it, then restore again.",
            )

    def settle(self, timeout: float = 15.0) -> None:
        """Wait until everything that was written before this call was looked at, then `check`."""
        with self._lock:
            wanted = self._polls + _SETTLED_POLLS
        waiting = threading.Event()
        step = 0.05
        for _ in range(round(timeout / step)):
            with self._lock:
                if self._polls >= wanted or self._fatal:
                    break
            waiting.wait(step)
        else:
            self._note("The last look at the writes of others was not answered.")
        self.check()

    def evidence(self) -> list[str]:
        """Sentences on how was watched and what else was written."""
        with self._lock:
            lines = [_STRENGTHS.get(self.strength, "Writes of others were not watched.")]
            lines += [f"{name} was written by others meanwhile ({count:,} changes)." for name, count in sorted(self._logs.items())]  # fmt: skip
            return lines + self.notes

    def begin(self) -> Callable[[], None]:
        """Take the first look now, so that nothing later is missed; gives the work of the thread."""
        try:
            stream = self._open(None)
        except OperationFailure as problem:
            if problem.code not in _NO_STREAM:
                raise
            first = self._first_look()
            return lambda: self._compare(first)
        self._baseline = self._look()
        self.strength = "change stream"
        return lambda: self._follow(stream)

    def close(self) -> None:
        """End the thread's work."""
        self._closed.set()

    def _open(self, token: Mapping[str, Any] | None) -> Stream:
        # The restore's own documents are left out by the server: they would all come back over the wire.
        pipeline: list[dict[str, Any]] = [
            {"$match": {"ns.coll": {"$not": {"$regex": f"^{re.escape(PREFIX)}"}}}},
            {"$project": {"operationType": 1, "ns": 1}},
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
                if isinstance(problem, OperationFailure) and problem.code in _GAP | _NO_STREAM:
                    return self._fall_back(problem.code)
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
            except OperationFailure as problem:
                if problem.code in _GAP | _NO_STREAM:
                    self._fall_back(problem.code)
                    return None
            except PyMongoError:
                continue
        return None

    def _take(self, event: Mapping[str, Any] | None) -> None:
        if event is None:
            with self._lock:
                self._polls += 1
            return
        name = collection_of(event)
        aging = frozenset({name}) if event.get("operationType") == "delete" and self._ages(name) else frozenset()
        with self._lock:
            match author(event, self._own, aging):
                case Author.OTHER:
                    self._fatal[name, str(event["operationType"])] += 1
                case Author.LOG:
                    self._logs[name] += 1
                case _:
                    pass

    def _ages(self, collection: str) -> bool:
        """Whether the server itself removes documents by age there."""
        if collection not in self._aging:
            try:
                indexes = self._client[self._database][collection].list_indexes()
                self._aging[collection] = any("expireAfterSeconds" in index for index in indexes)
            except PyMongoError:
                return False
        return self._aging[collection]

    def _fall_back(self, code: int | None) -> None:
        """The stream cannot be gone on with: what is there now is compared with what was there at the start."""
        self._note(f"The change stream broke off (code {code}); from then on counts were compared, which sees less.")
        self.strength = "counts"
        self._compare(self._baseline)

    def _first_look(self) -> "dict[str, _Seen]":
        try:
            self._client.admin.command("top")
            self.strength = "operation counters"
        except PyMongoError:
            self.strength = "counts"
        return self._look()

    def _look(self) -> "dict[str, _Seen]":
        """Identities and counts that belong together: a rename of ours in between makes both be taken again."""
        found, writes = self._identities(), dict[str, int]()
        for _ in range(_TRIES):
            writes, before = self._writes(found), found
            found = self._identities()
            if found == before:
                break
        return {name: (identity, writes.get(name, 0)) for name, identity in found.items()}

    def _identities(self) -> dict[str, tuple[str, bytes]]:
        with self._client.start_session() as session:
            return {
                name: identity
                for name, identity in identities(self._client, session, self._database).items()
                if not name.startswith("system.") and not is_own(name)
            }

    def _writes(self, found: Mapping[str, tuple[str, bytes]]) -> dict[str, int]:
        if self.strength == "operation counters":
            totals = self._client.admin.command("top")["totals"]
            return {name: _writes(totals.get(f"{self._database}.{name}", {})) for name in found}
        return {name: self._count(name) for name, (uuid, _) in found.items() if uuid}

    def _count(self, name: str) -> int:
        return int(self._client[self._database].command({"count": name})["n"])

    def _compare(self, before: "dict[str, _Seen]") -> None:
        while not self._closed.wait(_PAUSE):
            try:
                now = self._look()
            except PyMongoError:
                continue
            for name in before.keys() | now.keys():
                self._weigh(name, before.get(name), now.get(name))
            before = now
            with self._lock:
                self._polls += 1

    def _weigh(self, name: str, before: "_Seen | None", now: "_Seen | None") -> None:
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
        if not replaced and fewer and (self.strength == "operation counters" or self._ages(name)):
            return
        with self._lock:
            what = "made, dropped or replaced" if replaced else "its documents changed"
            self._fatal[name, what] += 1

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


_Seen = tuple[tuple[str, bytes], int]
_STRENGTHS = {
    "change stream": "Writes of others were watched with a change stream.",
    "operation counters": "The server gives no change stream: its counters of operations were compared every second instead, which sees less.",
    "counts": "The server gives no change stream: identities and counts were compared every second instead, which does not see updates.",
}  # fmt: skip


@contextmanager
def watch_for_others(client: Client, database: str) -> Iterator[ForeignWrites]:
    """Watch `database` from now on until the context ends.  Raises the driver's errors if the first look fails."""
    watched = ForeignWrites(client, database)
    thread = threading.Thread(target=watched.begin(), name="foreign-writes", daemon=True)
    thread.start()
    try:
        yield watched
    finally:
        watched.close()
        thread.join(10 * _PAUSE)


def _writes(total: Mapping[str, Any]) -> int:
    return sum(int(total.get(kind, {}).get("count", 0)) for kind in ("insert", "update", "remove"))
