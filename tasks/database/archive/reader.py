"""Reads an archive in one pass and constant memory, and refuses whatever the format does not allow."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tasks.database.archive.format import (
    EMPTY_CRC,
    FORMAT_VERSION,
    MAGIC,
    BlockHeader,
    CollectionEntry,
    FormatError,
    Header,
    Namespace,
    UnknownFormatError,
    checksum,
    length_at,
)
from tasks.database.archive.recognition import ENOUGH, not_an_archive

_RUN = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Prelude:
    """What an archive announces before its data."""

    header: Header
    entries: tuple[CollectionEntry, ...]


@dataclass(frozen=True, slots=True)
class Documents:
    """A run of `count` whole documents of one namespace, at most about 1 MiB or one document."""

    namespace: Namespace
    data: bytes
    count: int


@dataclass(frozen=True, slots=True)
class NamespaceEnd:
    """A namespace came whole: its checksum is right."""

    namespace: Namespace
    documents: int
    bytes: int
    crc: int


@dataclass(slots=True)
class _Open:
    documents: int = 0
    bytes: int = 0
    crc: int = EMPTY_CRC


@dataclass(slots=True)
class _Window:
    """A moving window over the archive's pieces; `offset` counts the archive's bytes already passed."""

    pieces: Iterator[bytes]
    data: bytes = b""
    at: int = 0
    offset: int = 0

    def has(self, count: int) -> bool:
        """Whether `count` more bytes are there; they are then in `data` from `at`."""
        if len(self.data) - self.at >= count:
            return True
        parts = [self.data[self.at :]]
        missing = count - len(parts[0])
        while missing > 0 and (piece := next(self.pieces, None)) is not None:
            parts.append(piece)
            missing -= len(piece)
        self.offset += self.at
        self.data, self.at = b"".join(parts), 0
        return missing <= 0

    def take(self, count: int) -> bytes:
        taken = self.data[self.at : self.at + count]
        self.at += count
        return taken

    @property
    def position(self) -> int:
        return self.offset + self.at


@dataclass(slots=True)
class ArchiveReader:
    """The archive that `pieces` (of any sizes) make up.

    Call `prelude` first, then go through `blocks` to the end.  Both raise FormatError, whose text ends with
    the offset in the unzipped archive.
    """

    pieces: Iterable[bytes]
    _window: _Window = field(init=False)
    _allowed: set[Namespace] = field(init=False, default_factory=set)
    _awaited: list[tuple[Namespace, ...]] = field(init=False, default_factory=list)
    _open: dict[Namespace, _Open] = field(init=False, default_factory=dict)
    _ended: set[Namespace] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self._window = _Window(iter(self.pieces))

    def prelude(self) -> Prelude:
        """The header and what is announced."""
        try:
            return self._prelude()
        except FormatError as problem:
            raise self._located(problem) from problem

    def blocks(self) -> Iterator[Documents | NamespaceEnd]:
        """The data, in the order of the file; ends only when every announced namespace has ended rightly."""
        try:
            while self._window.has(1):
                yield from self._block()
            self._complete()
        except FormatError as problem:
            raise self._located(problem) from problem

    def _located(self, problem: FormatError) -> FormatError:
        return type(problem)(f"{problem}, at byte {self._window.position} of the unzipped archive")

    def _prelude(self) -> Prelude:
        if not self._window.has(len(MAGIC)) or self._window.data[: len(MAGIC)] != MAGIC:
            self._window.has(ENOUGH)
            raise not_an_archive(self._window.data)
        self._window.take(len(MAGIC))
        first = self._document()
        if first is None:
            raise FormatError("the header is missing")
        header = Header.decode(first)
        if header.version != FORMAT_VERSION:
            raise UnknownFormatError(f"format {header.version!r} is not {FORMAT_VERSION!r}, the one that is known")
        entries = []
        while (raw := self._document()) is not None:
            entry = CollectionEntry.decode(raw)
            if entry.namespace in self._allowed:
                raise FormatError(f"{entry.namespace} is announced twice")
            self._allowed.update(entry.data_namespaces)
            self._awaited.append(entry.data_namespaces)
            entries.append(entry)
        return Prelude(header, tuple(entries))

    def _block(self) -> Iterator[Documents | NamespaceEnd]:
        raw = self._document()
        if raw is None:
            raise FormatError("a terminator stands where a block header should")
        header = BlockHeader.decode(raw)
        namespace = header.namespace
        if namespace not in self._allowed:
            raise FormatError(f"{namespace} was not announced")
        if namespace in self._ended:
            raise FormatError(f"{namespace} goes on after its end")
        state = self._open.setdefault(namespace, _Open())
        if header.eof:
            yield self._end(header, state)
            return
        while run := self._run(namespace):
            state.documents += run.count
            state.bytes += len(run.data)
            state.crc = checksum(run.data, state.crc)
            yield run

    def _end(self, header: BlockHeader, state: _Open) -> NamespaceEnd:
        namespace = header.namespace
        if self._document() is not None:
            raise FormatError(f"{namespace} has a document in the block of its end")
        if state.crc != header.crc:
            raise FormatError(f"the checksum of {namespace} is {state.crc:016x}, the archive says {header.crc:016x}")
        del self._open[namespace]
        self._ended.add(namespace)
        return NamespaceEnd(namespace, state.documents, state.bytes, state.crc)

    def _complete(self) -> None:
        if self._open:
            raise FormatError(f"the archive ends before {', '.join(map(str, self._open))} does")
        for choices in self._awaited:
            if not self._ended.intersection(choices):
                raise FormatError(f"the archive ends without {choices[-1]}")

    def _document(self) -> bytes | None:
        """The next whole document, None for the terminator."""
        length = self._length()
        if length < 0:
            self._window.take(4)
            return None
        self._need(length)
        raw = self._window.take(length)
        if raw[-1]:
            raise FormatError("a document does not end with a zero byte")
        return raw

    def _length(self) -> int:
        self._need(4)
        return length_at(self._window.data, self._window.at)

    def _need(self, count: int) -> None:
        if not self._window.has(count):
            raise FormatError("the archive is cut short")

    def _run(self, namespace: Namespace) -> Documents | None:
        """As many whole documents as the window holds, at least one; None at the terminator."""
        length = self._length()
        if length < 0:
            self._window.take(4)
            return None
        self._need(length)
        data, start = self._window.data, self._window.at
        at, count, last = start, 0, min(len(data), start + _RUN)
        while length > 0 and at + length <= len(data):
            at += length
            count += 1
            if data[at - 1]:
                raise FormatError(f"a document of {namespace} does not end with a zero byte")
            if at + 4 > last:
                break
            length = length_at(data, at)
        return Documents(namespace, self._window.take(at - start), count)
