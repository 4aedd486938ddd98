"""Bytes on their way to the disk: compressed and hashed in a thread of its own.

The compression, the hash and the write all release the interpreter lock, so
the thread that reads the database goes on meanwhile.
"""

import hashlib
import os
import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import BinaryIO, Self

from isal import isal_zlib

_GZIP_WINDOW = 31  # zlib's way to ask for a gzip header and trailer.
_SLICE = 1024 * 1024
_WAITING = 2  # Batches of up to 16 MiB that may wait: this, not the database's size, bounds the memory.


class Outlet:
    """Writes to `file` what is put in, gzipped unless told otherwise.

    `watch(bytes_written)` is called about every MiB from the writing thread; what it raises stops the
    writing.  An error of the thread is raised by the next `write` or by `finish`.
    """

    def __init__(self, file: BinaryIO, *, gzip: bool = True, watch: Callable[[int], None] | None = None) -> None:
        self._file = file
        self._gzip = isal_zlib.compressobj(1, isal_zlib.DEFLATED, _GZIP_WINDOW) if gzip else None
        self._watch = watch
        self._hash = hashlib.sha256()
        self._waiting: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._error: BaseException | None = None
        self._abandoned = False
        self.size = 0
        """Bytes written so far."""
        self._thread = threading.Thread(target=self._run, name="archive-outlet", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Hand over `data`; waits while two batches are still on their way."""
        self._raise()
        self._waiting.put(data)

    def finish(self) -> str:
        """Everything on the disk (synced): the SHA-256 of the file's bytes, hexadecimal."""
        self._waiting.put(None)
        self._thread.join()
        self._raise()
        return self._hash.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self._abandoned = True
            self._waiting.put(None)
            self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (data := self._waiting.get()) is not None:
            if self._error is None and not self._abandoned:
                self._attempt(self._pass_on, data)
        if self._error is None and not self._abandoned:
            self._attempt(self._end)

    def _attempt(self, act: Callable[..., None], *arguments: bytes) -> None:
        try:
            act(*arguments)
        except BaseException as problem:  # noqa: BLE001 - carried to the thread that writes
            self._error = problem

    def _pass_on(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(view), _SLICE):
            if self._abandoned:
                return
            piece = view[start : start + _SLICE]
            self._emit(self._gzip.compress(piece) if self._gzip else piece)

    def _end(self) -> None:
        if self._gzip:
            self._emit(self._gzip.flush())
        self._file.flush()
        os.fsync(self._file.fileno())

    def _emit(self, data: bytes | memoryview) -> None:
        if not len(data):
            return
        self._hash.update(data)
        rest = memoryview(data)
        while rest:  # An unbuffered file may take a part only, as at the edge of a full disk.
            rest = rest[self._file.write(rest) :]
        self.size += len(data)
        if self._watch:
            self._watch(self.size)
