"""Artifacts of a run in Prefect.  Showing is not doing: one that cannot be kept never fails a step or holds it up.

They are written by a thread of their own, in order: a server that is away costs each call a minute of tries.
"""

import contextvars
import queue
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.logging import get_run_logger

DISTANCE = 1.5  # seconds between two updates of one gauge
FAILURES = 2  # in a row: then the server is away, and what comes is dropped

Act = Callable[[], object]


def keep_page(key: str, markdown: str, description: str) -> None:
    """A page of Markdown under `key`."""
    _writer.put(lambda: create_markdown_artifact(markdown, key=key, description=description))


def keep_table(key: str, rows: Sequence[dict[str, Any]], description: str) -> None:
    """A table under `key`; one dictionary a row."""
    _writer.put(lambda: create_table_artifact(list(rows), key=key, description=description))


class Gauge:
    """The progress of one thing, from 0 to 1, with a line of text.

    Updates keep a distance, for the server's sake; the last one is always shown.  It belongs to the run that it was made
    in, from whatever thread it is moved: a thread of a step's own knows of no run.
    """

    def __init__(self, name: str, description: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._description = description
        self._clock = clock
        self._shown_at = clock()
        self._id: UUID | None = None
        self._run = contextvars.copy_context()
        self._put(lambda: self._make(f"progress-{slug(name)}"))

    def show(self, share: float, text: str) -> None:
        """Move it, unless it moved a moment ago and is not done."""
        now = self._clock()
        if share >= 1.0 or now - self._shown_at >= DISTANCE:
            self._shown_at = now
            self._put(lambda: self._update(share, text))

    def _put(self, act: Act) -> None:
        _writer.put(act, self._run)

    def _make(self, key: str) -> None:
        self._id = cast("UUID", create_progress_artifact(0.0, key=key, description=self._description))

    def _update(self, share: float, text: str) -> None:
        if self._id is not None:
            percent = round(min(max(share, 0.0), 1.0) * 100, 1)
            update_progress_artifact(self._id, percent, description=f"{self._description}: {text}")


def slug(text: str) -> str:
    """A key as Prefect wants it: lower-case letters, digits and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def flush(seconds: float) -> bool:
    """Wait until what was kept so far is written, at most `seconds`; whether it is."""
    return _writer.flush(seconds)


class _Writer:
    """Does what it is given, one after another, on a thread of its own, in the giver's context (the task run)."""

    def __init__(self) -> None:
        self._acts: queue.SimpleQueue[tuple[contextvars.Context, Act]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._failures = 0

    def put(self, act: Act, context: contextvars.Context | None = None) -> None:
        self._acts.put((context or contextvars.copy_context(), lambda: self._tried(act)))
        with self._lock:
            if self._thread is None or not self._thread.is_alive():  # a forked process has no thread yet
                self._thread = threading.Thread(target=self._run, name="artifacts", daemon=True)
                self._thread.start()

    def flush(self, seconds: float) -> bool:
        done = threading.Event()
        self._acts.put((contextvars.Context(), done.set))
        return self._thread is None or done.wait(seconds)

    def forgive(self) -> None:
        """A new run begins: its server may be there again."""
        self._failures = 0

    def _run(self) -> None:
        while True:
            context, act = self._acts.get()
            context.run(act)

    def _tried(self, act: Act) -> None:
        if self._failures >= FAILURES:
            return
        try:
            act()
        except Exception as error:  # noqa: BLE001 - whatever the server or the client does, the rollout goes on
            self._failures += 1
            get_run_logger().warning("An artifact could not be kept: %s", type(error).__name__)
        else:
            self._failures = 0


_writer = _Writer()


def begin() -> None:
    """A run begins."""
    _writer.forgive()
