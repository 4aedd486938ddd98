"""What happens in a run, told to whoever in this process listens (the command line's display).

The Prefect run's own log and artifacts are written by the tasks; this is for the process that runs them.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How the subject of an event is now; `LOG` lines are its own words and change nothing.

    `ENDED` is said once, of the whole run: its text is what stopped it, "" where it is complete.
    """

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    LOG = "log"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Event:
    """`subject` is a step of the run ("backup") or a Deployment's key; `share` of it is done, 0 to 1, if known.

    `passing` is one of many on the way, such as an amount of bytes: worth a line now and then where lines stay.
    """

    subject: str
    state: State
    text: str
    share: float | None = None
    passing: bool = False


Listener = Callable[[Event], None]
_listeners: list[Listener] = []
_lock = threading.Lock()


def publish(event: Event) -> None:
    """Tell every listener; one at a time, in the caller's thread."""
    with _lock:
        for listener in tuple(_listeners):
            listener(event)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have `listener` told of every event while the context lasts."""
    with _lock:
        _listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            _listeners.remove(listener)
