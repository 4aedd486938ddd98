"""Pieces of bytes made in a thread of their own, a few ahead of whoever takes them.

Reading, hashing and unzipping release the interpreter lock, so the thread that takes the pieces goes on meanwhile.
"""

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator

_WAITING = 4  # Pieces of a MiB that may wait: this bounds the memory.


def ahead(pieces: Iterator[bytes]) -> Generator[bytes, None, None]:
    """The same pieces in the same order.  What `pieces` raises is raised here, after what came before it.

    Close the generator, or take it to its end: only then is the thread surely gone.
    """
    waiting: queue.Queue[bytes | BaseException | None] = queue.Queue(_WAITING)
    abandoned = threading.Event()

    def make() -> None:
        try:
            for piece in pieces:
                waiting.put(piece)
                if abandoned.is_set():
                    return
            waiting.put(None)
        except BaseException as problem:  # noqa: BLE001 - carried to the thread that takes
            waiting.put(problem)

    thread = threading.Thread(target=make, name="archive-ahead", daemon=True)
    thread.start()
    try:
        while (piece := waiting.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        abandoned.set()
        while thread.is_alive():
            with contextlib.suppress(queue.Empty):
                waiting.get_nowait()
            thread.join(0.01)
