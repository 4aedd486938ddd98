"""How far one step of a run is, told to the display and to the run's gauge, not more often than a person can read."""

import threading
import time
from collections.abc import Callable

from tasks.record.artifacts import Gauge
from tasks.record.feed import Event, State, publish

DISTANCE = 0.5  # seconds between two lines; each change of the twentieth part is told besides


class ShareTold:
    """Tells `subject`'s progress; safe between threads.

    A gauge of the same name is kept as an artifact of the run where `description` says what it shows.
    """

    def __init__(self, subject: str, description: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._subject, self._clock = subject, clock
        self._gauge = Gauge(subject, description) if description else None
        self._lock = threading.Lock()
        self._part, self._at = -1, clock() - DISTANCE

    def show(self, done: int, total: int, text: str) -> None:
        """`done` of `total` (0: not known) is done; `text` says what at."""
        share = min(done / total, 1.0) if total > 0 else 0.0
        with self._lock:
            now = self._clock()
            if int(share * 20) == self._part and now - self._at < DISTANCE:
                return
            self._part, self._at = int(share * 20), now
        publish(Event(self._subject, State.RUNNING, text, share, passing=True))
        if self._gauge is not None:
            self._gauge.show(share, text)

    def complete(self, text: str) -> None:
        """All of it is done."""
        if self._gauge is not None:
            self._gauge.show(1.0, text)
