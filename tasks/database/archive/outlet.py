"""Bytes on their way to the disk: compressed in threads, then hashed and written in order by one more.

The compression, the hash and the write all release the interpreter lock, so the thread that reads the
database goes on meanwhile.  Each block is deflated by itself and ends at a byte (a sync flush), so that
blocks made at the same time are one deflate stream in a row, in one gzip member, as pigz writes it.
"""

import contextlib
import hashlib
import os
import queue
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import BinaryIO, ParamSpec, Self

from isal import isal_zlib

LEVEL = 2
"""Of python-isal's 0 to 3: a tenth slower than 1 and some hundredths smaller, which keeps near gzip -6."""

_BLOCK = 4 * 1024 * 1024  # Small blocks wait for the interpreter lock more often than they compress.
_HEADER = bytes.fromhex("1f8b08000000000000ff")
_LAST_BLOCK = bytes.fromhex("0300")  # An empty deflate block that is the last (RFC 1951, 3.2.3).
_TRAILER = struct.Struct("<II")
_RAW_WINDOW = -15  # zlib's way to ask for deflate without header and trailer.
_MOST_THREADS = 4
_WRITE_BACK = 32 * 1024 * 1024

Block = list[bytes]
_P = ParamSpec("_P")


class Outlet:
    """Writes to `file` what is put in, gzipped unless told otherwise.

    `watch(bytes_written)` is called after every write to the file, by the writing thread; what it raises
    stops the writing.  An error of a thread is raised by the next `write` or by `finish`.  Two blocks of
    4 MiB, or of one larger piece, wait at most beside those that the `threads` compress: this, not the
    database's size, bounds the memory.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        gzip: bool = True,
        watch: Callable[[int], None] | None = None,
        threads: int | None = None,
    ) -> None:
        self._file = file
        count = threads or min(_MOST_THREADS, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(count, "archive-deflate") if gzip else None
        self._watch = watch
        self._hash = hashlib.sha256()
        self._crc = self._length = 0
        self._block: Block = []
        self._held = 0
        self._room = threading.Semaphore((count if gzip else 0) + 2)
        self._waiting: queue.Queue[tuple[Block, Future[Block] | None] | None] = queue.Queue()
        self._error: BaseException | None = None
        self._abandoned = False
        self.size = 0
        """Bytes written so far."""
        self._thread = threading.Thread(target=self._run, name="archive-outlet", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Hand over `data`; waits while enough is on its way already."""
        self._raise()
        self._block.append(data)
        self._held += len(data)
        if self._held >= _BLOCK:
            self._hand_over()

    def finish(self) -> str:
        """Everything on the disk (synced): the SHA-256 of the file's bytes, hexadecimal."""
        if self._block:
            self._hand_over()
        self._close()
        self._raise()
        return self._hash.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self._abandoned = True
            self._close()

    def _hand_over(self) -> None:
        block, self._block, self._held = self._block, [], 0
        self._room.acquire()
        self._waiting.put((block, self._pool.submit(_deflated, block) if self._pool else None))

    def _close(self) -> None:
        self._waiting.put(None)
        self._thread.join()
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        self._attempt(self._begin)
        while (item := self._waiting.get()) is not None:
            self._attempt(self._pass_on, *item)
            self._room.release()
        self._attempt(self._end)

    def _attempt(self, act: Callable[_P, None], *arguments: _P.args, **named: _P.kwargs) -> None:
        if self._error is not None or self._abandoned:
            return
        try:
            act(*arguments, **named)
        except BaseException as problem:  # noqa: BLE001 - carried to the thread that writes
            self._error = problem

    def _begin(self) -> None:
        if self._pool:
            self._emit(_HEADER)

    def _pass_on(self, block: Block, deflated: Future[Block] | None) -> None:
        for piece in deflated.result() if deflated else block:
            self._emit(piece)
        for piece in block:
            self._crc = isal_zlib.crc32(piece, self._crc)
            self._length += len(piece)

    def _end(self) -> None:
        if self._pool:
            self._emit(_LAST_BLOCK + _TRAILER.pack(self._crc, self._length & 0xFFFF_FFFF))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _emit(self, data: bytes) -> None:
        if not data:
            return
        self._hash.update(data)
        before = self.size
        rest = memoryview(data)
        while rest and not self._abandoned:  # An unbuffered file may take a part only, as at a full disk's edge.
            rest = rest[self._file.write(rest) :]
        self.size += len(data)
        if self.size // _WRITE_BACK > before // _WRITE_BACK:
            self._write_back()
        if self._watch:
            self._watch(self.size)

    def _write_back(self) -> None:
        # The kernel begins to write now what would else all wait for the sync at the end, and keeps no copy.
        with contextlib.suppress(OSError, AttributeError):  # A pipe has no pages; macOS has no such call.
            os.posix_fadvise(self._file.fileno(), 0, self.size, os.POSIX_FADV_DONTNEED)


def _deflated(block: Block) -> Block:
    deflate = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, _RAW_WINDOW)
    return [*map(deflate.compress, block), deflate.flush(isal_zlib.Z_SYNC_FLUSH)]
