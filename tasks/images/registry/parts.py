"""Cuts a stream into the parts in which it is uploaded, and keeps what may have to be sent again (pure)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

# A layer up to this size goes in one request, as every registry takes it; a larger one in several, so that a broken
# line costs one part and not the layer.
PART = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Part:
    """Some pieces of a stream that begin at byte `start`; `last` where the stream ends with them."""

    start: int
    pieces: tuple[bytes, ...]
    last: bool

    @property
    def size(self) -> int:
        return sum(len(piece) for piece in self.pieces)

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.start + self.size

    def rest(self, offset: int) -> "Part":
        """What of it is at `offset` and after."""
        left, kept = offset - self.start, []
        for piece in self.pieces:
            if left < len(piece):
                kept.append(piece[left:] if left else piece)
            left = max(0, left - len(piece))
        return Part(offset, tuple(kept), self.last)


def in_parts(chunks: Iterable[bytes], size: int = PART) -> Iterator[Part]:
    """The stream in parts of at most `size` bytes and at least one, the last one marked as such."""
    start = 0
    pieces: list[bytes] = []
    gathered = 0
    for chunk in chunks:
        view = chunk
        while view:
            # Only with more to come is it known that a full part was not the last.
            if gathered == size:
                yield Part(start, tuple(pieces), last=False)
                start, pieces, gathered = start + gathered, [], 0
            piece = view[: size - gathered]
            pieces.append(piece)
            gathered += len(piece)
            view = view[len(piece) :]
    yield Part(start, tuple(pieces), last=True)


@dataclass(slots=True)
class Kept:
    """The parts from a stream's beginning, as long as they are no more than `limit` bytes."""

    limit: int
    parts: list[Part] = field(default_factory=list)
    _whole: bool = True

    def add(self, part: Part) -> None:
        if not self._whole:
            return
        self.parts.append(part)
        if part.end > self.limit:
            self._whole = False
            self.parts.clear()

    @property
    def whole(self) -> bool:
        """Whether everything so far is here, so that the stream can begin again."""
        return self._whole
