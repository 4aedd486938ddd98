"""Several collections read at once, each in a thread of its own; their batches come out in one place.

What the batches are for stays in the thread that asks: threads only read.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import NamedTuple

from pymongo.errors import OperationFailure

from tasks.database.batch import Batch
from tasks.database.connection import Client
from tasks.database.listing import BATCH_BYTES, Collection, Session, batches
from tasks.database.survey import UNAUTHORIZED, refused

_IN_ALL = 8 * 1024 * 1024  # Bytes of the batches that are asked for at once: with it the memory is bounded.
_IDLE = 2.0  # Seconds without a batch after which the caller is asked whether to go on.
_PATIENCE = 10.0  # Seconds that threads are waited for at the end; one that a hung server holds ends by itself.


class Read(NamedTuple):
    """A batch of a collection; None after its last one."""

    collection: Collection
    batch: Batch | None


_Item = Read | BaseException | None


def read_all(
    client: Client, wanted: Iterable[Collection], *, concern: str, count: int, idle: Callable[[], None]
) -> Generator[Read, None, None]:
    """Every batch of `wanted`, whose collections are begun in their order, `count` at a time.

    `idle` is called every two seconds in which no batch came; what it raises ends the reading.  The first
    error of a thread is raised here and stops the others.  Close the generator and all stop at the end of
    their batch, their cursors closed.
    """
    crew = _Crew(client, wanted, concern, count)
    try:
        yield from crew.take(idle)
    finally:
        crew.dismiss()


class _Crew:
    def __init__(self, client: Client, wanted: Iterable[Collection], concern: str, count: int) -> None:
        self._client, self._concern, self._size = client, concern, min(BATCH_BYTES, _IN_ALL // count)
        self._wanted = deque(wanted)
        self._over = threading.Event()
        self._ready: queue.Queue[_Item] = queue.Queue(count)
        self._threads = [threading.Thread(target=self._run, name=f"read-{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def take(self, idle: Callable[[], None]) -> Generator[Read, None, None]:
        left = len(self._threads)
        while left:
            try:
                item = self._ready.get(timeout=_IDLE)
            except queue.Empty:
                idle()
                continue
            if item is None:
                left -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item

    def dismiss(self) -> None:
        self._over.set()
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end and (alive := [thread for thread in self._threads if thread.is_alive()]):
            self._drain()  # A thread may wait for room.
            alive[0].join(0.05)

    def _drain(self) -> None:
        while True:
            try:
                self._ready.get_nowait()
            except queue.Empty:
                return

    def _run(self) -> None:
        try:
            with self._client.start_session(causal_consistency=False) as session:
                while not self._over.is_set():
                    try:
                        collection = self._wanted.popleft()
                    except IndexError:
                        break
                    self._read(session, collection)
        except BaseException as problem:  # noqa: BLE001 - carried to the thread that asks
            self._ready.put(problem)
        finally:
            self._ready.put(None)

    def _read(self, session: Session, collection: Collection) -> None:
        if (data := collection.data) is not None:
            find = {"find": data.collection, "readConcern": {"level": self._concern}}
            try:
                with closing(batches(self._client, session, data.db, find, size=self._size)) as source:
                    for batch in source:
                        if self._over.is_set():
                            return
                        self._ready.put(Read(collection, batch))
            except OperationFailure as problem:
                raise refused(data) if problem.code == UNAUTHORIZED else problem from None
        self._ready.put(Read(collection, None))
