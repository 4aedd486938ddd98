"""The open lines to registries, broken off when a stop is asked for: one that stands still would not notice else."""

import socket
import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress

LOOK = 0.2


def never() -> bool:
    """Nobody asks to stop."""
    return False


class Lines:
    """Knows every socket that httpcore opened, by its trace; looks every `LOOK` seconds whether to stop."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        self._stop = stop
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._watch: threading.Thread | None = None

    def trace(self, event: str, info: Mapping[str, object]) -> None:
        """What httpcore calls (its "trace" extension): keeps the sockets of new connections."""
        if not event.endswith(("connect_tcp.complete", "start_tls.complete")):
            return
        line = getattr(info.get("return_value"), "get_extra_info", lambda _name: None)("socket")
        if isinstance(line, socket.socket):
            with self._lock:
                self._sockets.add(line)
                if self._watch is None and self._stop is not never:
                    self._watch = threading.Thread(
                        target=_look,
                        args=(weakref.ref(self), self._stop, self._closed),
                        name="registry lines",
                        daemon=True,
                    )
                    self._watch.start()

    def close(self) -> None:
        """Look no more."""
        self._closed.set()

    def break_off(self) -> None:
        """End every line there is."""
        with self._lock:
            lines = list(self._sockets)
        for line in lines:
            # The plain socket's: that of TLS would wait for the other side, and belongs to another thread.
            with suppress(OSError):
                socket.socket.shutdown(line, socket.SHUT_RDWR)


def _look(of: "weakref.ref[Lines]", stop: Callable[[], bool], closed: threading.Event) -> None:
    """Ends with the lines themselves, so that a client that nobody closed leaves no thread behind."""
    while not closed.wait(LOOK):
        lines = of()
        if lines is None:
            return
        if stop():
            lines.break_off()
        del lines
