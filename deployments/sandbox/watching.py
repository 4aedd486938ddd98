"""Watches: what each one is told of a change, and what faults do to it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from deployments.sandbox import failures
from deployments.sandbox.faults import Faults
from deployments.sandbox.resources import Resource
from deployments.sandbox.selectors import Predicate
from deployments.sandbox.store import Change, Store

JsonObject = dict[str, Any]


class BrokenConnectionError(Exception):
    """The connection ends in the middle of an answer, on purpose."""


@dataclass(frozen=True, slots=True)
class WatchRequest:
    resource: Resource
    namespace: str
    keep: Predicate
    version: str  # As asked: "" and "0" begin with what there is.
    seconds: float | None
    bookmarks: bool


def event_of(change: Change, request: WatchRequest) -> JsonObject | None:
    """What a watch says of a change: an object that begins to match is ADDED, one that stops is DELETED."""
    if change.resource is not request.resource:
        return None
    if request.namespace and change.obj["metadata"].get("namespace") != request.namespace:
        return None
    fits = change.kind != "DELETED" and request.keep(change.obj)
    fitted = change.before is not None and request.keep(change.before)
    if fits:
        return {"type": "MODIFIED" if fitted else "ADDED", "object": change.obj}
    if not fitted or change.before is None:
        return None
    meta = {**change.before["metadata"], "resourceVersion": str(change.version)}
    return {"type": "DELETED", "object": {**change.before, "metadata": meta}}


class Watches:
    """All open watches of one server."""

    def __init__(self, store: Store, faults: Faults) -> None:
        self._store, self._faults = store, faults
        self._open: set[asyncio.Queue[JsonObject | None]] = set()

    def drop_all(self) -> None:
        """End every open watch cleanly, now."""
        for queue in self._open:
            queue.put_nowait(None)

    def begin(self, request: WatchRequest) -> list[JsonObject]:
        """The events to begin with; raises ApiError 410 or 400 as the server answers them by HTTP status."""
        if request.version in ("", "0"):
            found = self._store.find(request.resource, request.namespace, request.keep)
            return [{"type": "ADDED", "object": obj} for obj in found]
        version = parse_version(request.version)
        if self._faults.gone_as_status > 0:
            self._faults.gone_as_status -= 1
            raise failures.expired(f"too old resource version: {version} ({self._store.version})")
        try:
            if self._faults.gone_as_event > 0:
                self._faults.gone_as_event -= 1
                raise failures.expired(f"too old resource version: {version} ({self._store.version})")
            changes = self._store.since(version)
        except failures.ApiError as error:
            return [{"type": "ERROR", "object": error.status}]
        return [event for change in changes if (event := event_of(change, request))]

    @contextmanager
    def opened(self, request: WatchRequest) -> Iterator[asyncio.Queue[JsonObject | None]]:
        """What the watch has to tell, as it comes; raises what `begin` raises.

        It listens from the first moment on: what changed while the answer's head is sent would be lost.
        """
        queue: asyncio.Queue[JsonObject | None] = asyncio.Queue()
        for event in self.begin(request):
            queue.put_nowait(event)

        def hear(change: Change) -> None:
            if event := event_of(change, request):
                queue.put_nowait(event)

        stop = self._store.listen(hear)
        self._open.add(queue)
        try:
            yield queue
        finally:
            stop()
            self._open.discard(queue)

    async def deliver(
        self, request: WatchRequest, queue: asyncio.Queue[JsonObject | None]
    ) -> AsyncGenerator[JsonObject]:
        """Events out of the queue, bookmarks between, until the time is over or a fault ends them; None ends it too."""
        loop, faults = asyncio.get_running_loop(), self._faults
        end = loop.time() + (request.seconds if request.seconds is not None else random.uniform(1800, 3600))
        marks = _mark_times(loop.time(), end, faults.bookmark_seconds)
        mark, sent = next(marks), 0
        while (left := end - loop.time()) > 0:
            try:
                event = await asyncio.wait_for(queue.get(), max(min(left, mark - loop.time()), 0))
            except TimeoutError:
                if loop.time() >= mark:
                    mark = next(marks)
                    if request.bookmarks and not faults.half_open_watches:
                        yield self._bookmark(request)
                continue
            if event is None:
                return
            if faults.half_open_watches:
                continue
            yield event
            sent += 1
            if event["type"] == "ERROR" or self._is_cut(sent):
                return

    def _is_cut(self, sent: int) -> bool:
        if self._faults.break_watches_after and sent >= self._faults.break_watches_after:
            raise BrokenConnectionError
        return bool(self._faults.drop_watches_after) and sent >= self._faults.drop_watches_after

    def _bookmark(self, request: WatchRequest) -> JsonObject:
        resource = request.resource
        meta = {"resourceVersion": str(self._store.version), "creationTimestamp": None}
        return {
            "type": "BOOKMARK",
            "object": {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta},
        }


def _mark_times(begin: float, end: float, every: float) -> Iterator[float]:
    """When bookmarks are due: every so often, and once shortly before the end, as the real watch cache does."""
    last = max(end - 2, begin + (end - begin) / 2)
    at = begin + every
    while at < last:
        yield at
        at += every
    yield last
    while True:
        yield end + 1


def parse_version(text: str) -> int:
    """A resourceVersion of a request as a number; raises ApiError 400 for other text."""
    if not text.isdigit():
        raise failures.bad_request(
            f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        )
    return int(text)
