"""The wish to stop: set once by a signal or a failed flow, looked at by every loop that waits.

Threads cannot be interrupted from outside, so whatever waits in one asks `asked()` at least once a second.
"""

import threading

_wish = threading.Event()


def ask() -> None:
    """Ask everything that waits in this process to end at its next safe boundary."""
    _wish.set()


def clear() -> None:
    """A new run begins."""
    _wish.clear()


def asked() -> bool:
    """Whether to end."""
    return _wish.is_set()
