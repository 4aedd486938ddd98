"""Writes an archive: the announcement of every collection, then blocks of documents, then each end."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from tasks.database.archive.format import (
    EMPTY_CRC,
    MAGIC,
    TERMINATOR,
    BlockHeader,
    CollectionEntry,
    Header,
    Namespace,
    checksum,
)


class Sink(Protocol):
    """Where the bytes go."""

    def write(self, data: bytes, /) -> object:
        """Take `data`."""


@dataclass(slots=True)
class Written:
    """What one namespace holds so far: documents, their bytes, their CRC-64."""

    documents: int = 0
    bytes: int = 0
    crc: int = EMPTY_CRC


class ArchiveWriter:
    """One archive on its way to `sink`; namespaces may take turns.

    Call `documents` with runs of whole BSON documents as a server sent them: they are not looked into.
    Every announced namespace must be ended, also an empty one and a view, before `close`.
    """

    def __init__(self, sink: Sink, header: Header, entries: Iterable[CollectionEntry]) -> None:
        self._sink = sink
        self._open: dict[Namespace, Written] = {}
        self._current: Namespace | None = None
        sink.write(MAGIC + header.encode() + b"".join(entry.encode() for entry in entries) + TERMINATOR)

    def begin(self, namespace: Namespace) -> None:
        """Open `namespace`, which mongorestore needs to meet even if no document follows."""
        if namespace in self._open:
            raise ValueError(f"{namespace} was begun already")
        self._open[namespace] = Written()
        self._switch(namespace)

    def documents(self, namespace: Namespace, data: bytes, count: int) -> None:
        """Add `count` whole documents, `data`, to a namespace that was begun."""
        written = self._open[namespace]
        if not data:
            return
        written.documents += count
        written.bytes += len(data)
        written.crc = checksum(data, written.crc)
        self._switch(namespace)
        self._sink.write(data)

    def end(self, namespace: Namespace) -> Written:
        """Write the end of `namespace` with its checksum."""
        written = self._open.pop(namespace)
        closing = TERMINATOR if self._current is not None else b""
        self._current = None
        self._sink.write(closing + BlockHeader(namespace, eof=True, crc=written.crc).encode() + TERMINATOR)
        return written

    def close(self) -> None:
        """Raises ValueError when a namespace was begun and not ended: such an archive would be refused."""
        if self._open:
            raise ValueError(f"not ended: {', '.join(map(str, self._open))}")

    def _switch(self, namespace: Namespace) -> None:
        if namespace != self._current:
            closing = TERMINATOR if self._current is not None else b""
            self._current = namespace
            self._sink.write(closing + BlockHeader(namespace).encode())
