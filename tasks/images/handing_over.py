"""Hands blobs from the thread that reads a source to the thread that feeds one receiver: bounded, and broken off at once."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from threading import Condition

from tasks.domain.errors import TemporaryError, UpgradeError
from tasks.images.model import Blob

# What may lie between the two: enough to ride out hiccups of either side, little beside what a machine has.
BOUND = 8 * 1024 * 1024
# A receiver that takes nothing for so long is given up: SSH's keepalives and HTTP's timeouts should have ended it before.
PATIENCE = 300.0
# How often a waiting side looks whether the run was told to stop.
LOOK = 0.2

UNCHANGED = (
    "No component was changed; what the target holds already stays, and a new start sends only what is then missing."
)


class HandOver:
    """One receiver's side of a delivery: the reader puts blobs and bytes, the receiver's thread takes them."""

    def __init__(self, where: str, *, patience: float = PATIENCE) -> None:
        self._where = where
        self._patience = patience
        self._items: deque[Blob | bytes | None] = deque()
        self._size = 0
        self._takes = 0
        self._open = True
        self._ended = False
        self._changed = Condition()
        self.error: UpgradeError | None = None
        self.broken_at: float | None = None

    @property
    def open(self) -> bool:
        """Whether the receiver still takes anything."""
        return self._open

    def put(self, item: Blob | bytes | None, stop: Callable[[], bool]) -> None:
        """Hand over a blob's head, a piece of its bytes, or None at its end; waits for room.

        Returns at once where the receiver has gone, and gives it up where it takes nothing for `patience` seconds.
        """
        size = len(item) if isinstance(item, bytes) else 0
        with self._changed:
            takes, since = self._takes, time.monotonic()
            while self._open and self._size and self._size + size > BOUND and not stop():
                self._changed.wait(LOOK)
                if self._takes != takes:
                    takes, since = self._takes, time.monotonic()
                elif time.monotonic() - since > self._patience:
                    self._break(self._hung())
            if self._open:
                self._items.append(item)
                self._size += size
                self._changed.notify_all()

    def end(self) -> None:
        """All of it was handed over."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def break_off(self, error: UpgradeError) -> None:
        """Let the receiver's next look for a blob or for bytes raise `error`."""
        with self._changed:
            self._break(error)

    def leave(self) -> None:
        """The receiver takes nothing more; whoever waits to put goes on."""
        with self._changed:
            self._open = False
            self._items.clear()
            self._size = 0
            self._changed.notify_all()

    def blobs(self) -> Iterator[Blob]:
        """The blobs' heads until the end; between two of them the first one's `bytes` must be exhausted."""
        while (item := self._take()) is not None:
            assert isinstance(item, Blob)  # noqa: S101 -- heads and bytes alternate.
            yield item

    def pieces(self) -> Iterator[bytes]:
        """The bytes of the current blob."""
        while (item := self._take()) is not None:
            assert isinstance(item, bytes)  # noqa: S101 -- heads and bytes alternate.
            yield item

    def _take(self) -> Blob | bytes | None:
        with self._changed:
            while self.error is None and not self._items and not self._ended:
                self._changed.wait()
            if self.error is not None:
                raise self.error
            if not self._items:
                return None
            item = self._items.popleft()
            self._size -= len(item) if isinstance(item, bytes) else 0
            self._takes += 1
            self._changed.notify_all()
            return item

    def _break(self, error: UpgradeError) -> None:
        if self.error is None and self._open:
            self.error, self.broken_at = error, time.monotonic()
            self._open = False
            self._items.clear()
            self._size = 0
            self._changed.notify_all()

    def _hung(self) -> TemporaryError:
        return TemporaryError(
            f"{self._where} takes no more bytes.",
            observed=f"It took nothing for {self._patience:.0f} seconds.",
            safe=UNCHANGED,
            next="Look at the line and at the machine, then start again.",
        )
