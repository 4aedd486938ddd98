"""Checksums of what passes by, in a thread beside: two of them over the same bytes take the time of one."""

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Self

# Below this the thread costs more than it saves.
_LITTLE: Final = 64 * 1024


class Sum:
    """A SHA-256 whose work is done in a thread; `sealed` tells the one over the first `until` bytes only."""

    def __init__(self, until: int = -1) -> None:
        self._hash = hashlib.sha256()
        self._left = until
        self._sealed = ""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="bundle-sum")
        self._last: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def update(self, data: bytes) -> None:
        self._settle()
        if len(data) < _LITTLE:
            self._add(data)
        else:
            self._last = self._pool.submit(self._add, data)

    def hexdigest(self) -> str:
        self._settle()
        return self._hash.hexdigest()

    def sealed(self) -> str:
        """Of the first `until` bytes; "" where there were not as many."""
        self._settle()
        return self._sealed

    def _add(self, data: bytes) -> None:
        if 0 <= self._left <= len(data) and not self._sealed:
            self._hash.update(data[: self._left])
            self._sealed = self._hash.hexdigest()
            data, self._left = data[self._left :], -1
        self._hash.update(data)
        self._left -= len(data)

    def _settle(self) -> None:
        if self._last is not None:
            self._last.result()
            self._last = None
