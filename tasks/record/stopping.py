"""The wish to stop: set once by a signal or a failed flow, looked at by every loop that waits.

Threads cannot be interrupted from outside, so whatever waits in one asks `asked()` at least once a second.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_wish = threading.Event()
_reasons: list[Callable[[], bool]] = []
_changing = threading.Lock()


def ask() -> None:
    """Ask everything that waits in this process to end at its next safe boundary."""
    _wish.set()


def clear() -> None:
    """A new run begins."""
    _wish.clear()


def asked() -> bool:
    """Whether to end: somebody asked, or a reason of `also` holds, which is as good as asked from then on."""
    if not _wish.is_set() and any(reason() for reason in tuple(_reasons)):
        ask()
    return _wish.is_set()


@contextmanager
def also(reason: Callable[[], bool]) -> Iterator[None]:
    """While the context lasts, end where `reason()` holds too.

    It is called at every question, so it must be quick, in any thread.  No thread has to notice anything for it: a
    process that was frozen is told by the first question after it wakes.
    """
    with _changing:
        _reasons.append(reason)
    try:
        yield
    finally:
        with _changing:
            _reasons.remove(reason)
