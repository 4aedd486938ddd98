"""Reads ahead of its consumer in a thread, so that an engine that takes its time can be left at once."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType

from tasks.domain.errors import StoppedError

_DEPTH = 8
_LOOK = 0.2


class Ahead:
    """A context that yields what `opened` yields, up to eight chunks of it read ahead.

    `opened` is entered, read and left in a thread of its own, for an engine may think for minutes before its first
    byte.  What it raises is raised here.  `stop` is asked five times a second: `StoppedError`.
    """

    def __init__(self, opened: AbstractContextManager[Iterator[bytes]], where: str, stop: Callable[[], bool]) -> None:
        self._opened = opened
        self._where = where
        self._stop = stop
        self._chunks: queue.Queue[bytes | BaseException | None] = queue.Queue(_DEPTH)
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._read, name="docker-save", daemon=True)

    def __enter__(self) -> Iterator[bytes]:
        self._thread.start()
        return self._taken()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()

    def _taken(self) -> Iterator[bytes]:
        while True:
            try:
                item = self._chunks.get(timeout=_LOOK)
            except queue.Empty:
                item = b""
            if self._stop():
                raise StoppedError(f"Stopped while {self._where} sent images.")
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            if item:
                yield item

    def _read(self) -> None:
        try:
            with self._opened as chunks:
                for chunk in chunks:
                    self._put(chunk)
                    if self._left.is_set():
                        return
            self._put(None)
        except BaseException as error:  # noqa: BLE001 -- it is raised in the consumer's thread.
            self._put(error)

    def _put(self, item: bytes | BaseException | None) -> None:
        while not self._left.is_set():
            try:
                self._chunks.put(item, timeout=_LOOK)
            except queue.Full:
                continue
            return
