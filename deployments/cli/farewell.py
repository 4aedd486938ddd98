"""Ends the process when a run is over and its Prefect server is not there to be told."""

import os
import sys
import threading
from types import TracebackType
from typing import Self

from tasks.record.feed import Event, State

SECONDS = 45.0


class Farewell:
    """While the context lasts, gives Prefect so many seconds from the run's end on to record it; then ends the process.

    Prefect's client tries for minutes, and its threads hold the process up for longer; a person waits meanwhile, and
    what the run did is known: `complete` says it where nothing stopped it.  Exit code 0 where the run was complete, 1 where it was not.
    What a run does after one end, such as the rollback of an upgrade that failed, has its time again from its own end on.
    """

    def __init__(self, complete: str) -> None:
        self._complete, self._seconds = complete, SECONDS
        self._timer: threading.Timer | None = None
        self._failures: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stay()

    def hear(self, event: Event) -> None:
        """The run's end, among all its events; one that begins something after it takes it back."""
        if event.state is State.ENDED:
            self._stay()
            self._failures += [event.text] if event.text else []
            self._timer = threading.Timer(self._seconds, self._leave, (event.text,))
            self._timer.daemon = True
            self._timer.start()
        elif event.state is State.RUNNING:
            self._stay()

    def _stay(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _leave(self, last: str) -> None:
        failure = "\n\nError: ".join(self._failures)
        told = f"Error: {failure}" if failure else self._complete
        if failure and not last:
            told += "\nIt was rolled back since, completely: apinizer-upgrade status shows it."
        lines = f"\n{told}\nThe Prefect server did not answer for {self._seconds:.0f} s, so it does not know how the run ended.\n"
        os.write(sys.stderr.fileno(), lines.encode(errors="replace"))
        os._exit(1 if failure else 0)
