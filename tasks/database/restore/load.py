"""The archive's documents into copies beside what is there: one pass, several collections at once."""

import contextvars
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure

from tasks.database.archive.format import FormatError, Namespace, split
from tasks.database.archive.inlet import Inlet
from tasks.database.archive.metadata import CollectionMetadata
from tasks.database.archive.reader import ArchiveReader, Documents
from tasks.database.element import filter_of, id_of
from tasks.database.fingerprint import Fingerprint
from tasks.database.proof import Proof
from tasks.database.restore.patience import passing
from tasks.database.restore.work import Work
from tasks.domain.errors import DamagedArchiveError, UpgradeError

_LANES = 3
"""Collections that are written at once; an archive interleaves four at most."""

_WAITING = 2
"""Runs (1 MiB, or one document of 16 MiB) that may wait in each lane: this bounds the memory."""

_AT_ONCE = 50_000
"""Documents in one command; servers take 100,000."""

_DUPLICATE, _UNAUTHORIZED = 11000, 13
_MODULUS = 1 << 128


@dataclass(slots=True)
class Copy:
    """A collection on its way: where its documents go, how it is defined, and what they should amount to then.

    `again` are documents that were there already with the same bytes: archived twice, or sent twice, which cannot be
    told apart any more once something was `resent`.
    """

    collection: str
    definition: CollectionMetadata
    expected: Fingerprint = field(default_factory=Fingerprint)
    again: Fingerprint = field(default_factory=Fingerprint)
    resent: bool = False

    @property
    def ordered(self) -> bool:
        """Whether the order of its documents is part of what it holds."""
        return bool(self.definition.options.get("capped"))

    def is_whole(self, found: Fingerprint) -> bool:
        """Whether a copy that reads as `found` holds every document that the archive has, and nothing else."""
        all_of_it = (self.expected.documents, self.expected.total)
        each_once = (all_of_it[0] - self.again.documents, (all_of_it[1] - self.again.total) % _MODULUS)
        return (found.documents, found.total) in {all_of_it, each_once}


def load(
    work: Work, archive: Path, proof: Proof, copies: dict[Namespace, Copy], told: Callable[[Namespace, int, int], None]
) -> None:
    """Insert the documents of each of the archive's namespaces in `copies`.

    `told` gets the namespace, documents and bytes of each run that the server has confirmed.  Raises
    DamagedArchiveError when the file is not the one that was proved any more.
    """
    with archive.open("rb") as file, _Lanes() as lanes:
        inlet = Inlet(file)
        reader = ArchiveReader(inlet.pieces())
        try:
            reader.prelude()
            for block in reader.blocks():
                if not isinstance(block, Documents):
                    continue
                work.stop_if_asked()
                if copy := copies.get(block.namespace):
                    lanes.put(block.namespace, _task(work, copy, block, told))
        except FormatError:
            raise _changed(archive) from None
        lanes.finish()
        if (inlet.sha256, inlet.size) != (proof.sha256, proof.size):
            raise _changed(archive)


def insert(work: Work, copy: Copy, data: bytes) -> None:
    """Insert a run of whole documents, again where the connection was lost in the middle of it."""
    documents = [RawBSONDocument(document) for document in split(data)]
    for start in range(0, len(documents), _AT_ONCE):
        _insert(work, copy, documents[start : start + _AT_ONCE])


def _insert(work: Work, copy: Copy, documents: list[RawBSONDocument]) -> None:
    first = True
    # Documents from before a validator may not fit it.  Only then, for not every user may pass it over.
    bypass = bool(copy.definition.options.get("validator"))

    def once() -> None:
        nonlocal first, bypass
        # In order where the order is the content; on a second try what got in comes first anyway.
        ordered, copy.resent, first = copy.ordered and first, copy.resent or not first, False
        try:
            # As a command: the driver's own way is half as fast with small documents.
            reply = work.insert(copy.collection, documents, ordered=ordered, bypass=bypass)
        except OperationFailure as problem:
            if problem.code != _UNAUTHORIZED or not bypass:
                raise
            first, bypass = True, False
            return once()
        return _settle(work, copy, documents, reply, ordered=ordered)

    work.write(once)


def _task(work: Work, copy: Copy, block: Documents, told: Callable[[Namespace, int, int], None]) -> Callable[[], None]:
    def act() -> None:
        copy.expected.add(block.data, block.count)
        insert(work, copy, block.data)
        told(block.namespace, block.count, len(block.data))

    return act


def _settle(work: Work, copy: Copy, documents: list[RawBSONDocument], reply: dict[str, Any], *, ordered: bool) -> None:
    """Documents whose `_id` is there: the same one again, or one that changed while it was archived.

    A backup of a database that is being written may meet a document twice; what it met later is newer.
    """
    errors: list[dict[str, Any]] = reply.get("writeErrors", [])
    unconfirmed = [reply["writeConcernError"]] if "writeConcernError" in reply else []
    others = {int(error.get("code", 0)) for error in [*errors, *unconfirmed]} - {_DUPLICATE}
    if others and all(passing(OperationFailure("", code)) for code in others):
        raise OperationFailure("", min(others))  # To be tried again: what got in is then there already.
    if others:
        raise UpgradeError(
            f"The server did not take documents of the archive into {copy.collection}.",
            observed=f"{len(errors)} of {len(documents)}, with code {', '.join(map(str, sorted(others)))}.",
            next="Look the code up in the server's documentation and its log.",
        )
    collection = work.raw(copy.collection)
    for error in errors:
        document = documents[int(error["index"])]
        raw = bytes(document.raw)
        same_id = filter_of([id_of(raw)])
        existing = collection.find_one(same_id)
        if existing is None or existing.raw == raw:
            copy.again.add(raw)
            continue
        work.replace(copy.collection, same_id, document)
        copy.expected.take(bytes(existing.raw))
    if ordered and errors and (rest := documents[int(errors[0]["index"]) + 1 :]):
        _insert(work, copy, rest)


class _Lanes:
    """Threads that write; all of a namespace go through one lane, so that they stay in their order."""

    def __init__(self) -> None:
        self._queues: list[queue.Queue[Callable[[], None] | None]] = [queue.Queue(_WAITING) for _ in range(_LANES)]
        self._lane_of: dict[Namespace, int] = {}
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(self._run, waiting), daemon=True)
            for waiting in self._queues
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self._failure is None:
            self._failure = error  # What still waits is not done.
        self._end()

    def put(self, namespace: Namespace, task: Callable[[], None]) -> None:
        """Hand over a task; raises what a task of any lane raised."""
        lane = self._lane_of.setdefault(namespace, len(self._lane_of) % _LANES)
        while True:
            self._raise()
            try:
                return self._queues[lane].put(task, timeout=0.5)
            except queue.Full:
                continue

    def finish(self) -> None:
        """Wait until all is done; raises what a task raised."""
        self._end()
        self._raise()

    def _end(self) -> None:
        for thread, waiting in zip(self._threads, self._queues, strict=True):
            if thread.is_alive():
                waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self, waiting: "queue.Queue[Callable[[], None] | None]") -> None:
        while (task := waiting.get()) is not None:
            if self._failure is not None:
                continue  # Emptied, so that nobody waits for room in it.
            try:
                task()
            except BaseException as problem:  # noqa: BLE001 - raised by the thread that hands over
                if self._failure is None:
                    self._failure = problem


def _changed(archive: Path) -> DamagedArchiveError:
    return DamagedArchiveError(
        f"The archive {archive.name} changed while it was being restored.",
        observed="Its bytes are not those that were proved a moment ago.",
        next="See who writes to it; restore from a file that stays.",
    )
