"""What documents a collection holds, in one number that does not depend on their order.

The number is the sum, modulo 2**128, of a 128-bit BLAKE2b of each document's bytes: documents may come from
any server, in any order and in any runs, and sums of parts are the sum of the whole.  It tells damage, loss and
doubling; it is no defence against somebody who chooses documents in order to deceive it.
"""

import struct
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any

from tasks.database.connection import Client
from tasks.database.listing import batches
from tasks.domain.errors import StoppedError

Run = bytes
"""Whole BSON documents, one after the other."""

_BITS = 128
_ALL = (1 << _BITS) - 1
_SMALLEST = 5

_length_at = struct.Struct("<i").unpack_from
_hash = partial(blake2b, digest_size=_BITS // 8)


@dataclass(slots=True)
class Fingerprint:
    """The fingerprint of the documents that were added so far; two are equal when documents and sum are.

    `documents` is their count, `bytes` their bytes.
    """

    documents: int = 0
    bytes: int = 0
    total: int = 0

    def add(self, documents: Run, count: int | None = None) -> None:
        """Take in a run of whole BSON documents; `count`, where the caller knows it, is held against the run.

        Raises ValueError for bytes that are no run of documents or not so many.
        """
        digests = [_hash(document).digest() for document in _split(documents)]
        if count is not None and count != len(digests):
            raise ValueError(f"{len(digests)} documents came where {count} were announced")
        self.documents += len(digests)
        self.bytes += len(documents)
        self.total = (self.total + sum(map(int.from_bytes, digests))) & _ALL

    def take(self, documents: Run) -> None:
        """Take a run of documents, each added before, out again: what an update or a removal does."""
        digests = [_hash(document).digest() for document in _split(documents)]
        self.documents -= len(digests)
        self.bytes -= len(documents)
        self.total = (self.total - sum(map(int.from_bytes, digests))) & _ALL

    def merge(self, other: "Fingerprint") -> None:
        """Take in what another one took in, as several readers of one collection need it."""
        self.documents += other.documents
        self.bytes += other.bytes
        self.total = (self.total + other.total) & _ALL

    @property
    def value(self) -> str:
        """The sum as 32 hexadecimal digits."""
        return f"{self.total:032x}"


def read_content(
    client: Client, database: str, collection: str, *, stop: Callable[[], bool] = lambda: False, read_concern: str = ""
) -> Fingerprint:
    """The fingerprint of all documents that a collection holds now; empty where there is no such collection.

    `stop` is asked at each batch (16 MiB at most).  Raises StoppedError, ReplyError and the driver's errors.
    """
    found = Fingerprint()
    find: dict[str, Any] = {"find": collection}
    if read_concern:
        find["readConcern"] = {"level": read_concern}
    with client.start_session() as session, closing(batches(client, session, database, find)) as source:
        for batch in source:
            found.add(batch.documents, batch.count)
            if stop():
                raise StoppedError("Comparing was stopped.", observed=f"{database}.{collection} was being read.")
    return found


def _split(run: Run) -> list[Run]:
    """The documents of a run: the loop that every document passes, so nothing but the cut is in it."""
    documents: list[Run] = []
    keep = documents.append
    length_at = _length_at
    at, end = 0, len(run)
    while at + 4 <= end:
        after = at + length_at(run, at)[0]
        if after < at + _SMALLEST or after > end:
            raise ValueError("the bytes are no run of documents")
        keep(run[at:after])
        at = after
    if at != end:
        raise ValueError("the bytes are no run of documents")
    return documents
