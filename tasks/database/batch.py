"""Documents cut out of a server's reply without decoding them.

A cursor's reply is `{cursor: {firstBatch|nextBatch: [document, …], id: int64, ns}, ok, …}`; its array of
documents is BSON itself (type byte, index as text, document), so the documents are slices of the reply.
Source: bsonspec.org and the server's `find` and `getMore` commands.
"""

import struct
from collections.abc import Iterator

from tasks.database.bson_layout import ARRAY, CODE, DOCUMENT, INT64, SYMBOL, TEXT, after

_INT32 = struct.Struct("<i")
_INT64 = struct.Struct("<q")
_STRINGS = (TEXT, CODE, SYMBOL)
_SMALLEST = 5  # A document without fields.
_RUN = 1000  # Members that one expression takes: it goes on to its end though the array may be over.


_DAMAGED = (IndexError, ValueError, struct.error)


class ReplyError(ValueError):
    """A server's reply that is not a cursor's."""


class Batch:
    """A cursor's reply: `count` whole documents one after the other, and the cursor to ask for more (0: none).

    `namespace` is the cursor's, `db.collection`: the name that `getMore` and `killCursors` want.  `size` is
    the bytes of the array that the documents are in.  They are cut out when they are first asked for, so that
    the next batch can be on its way meanwhile; `documents` and `count` raise ReplyError where they are none.
    """

    __slots__ = ("_at", "_cut", "_reply", "cursor", "namespace", "size")

    def __init__(self, reply: bytes, cursor: int, namespace: str, at: int) -> None:
        self.cursor, self.namespace = cursor, namespace
        self.size: int = _INT32.unpack_from(reply, at)[0]
        self._reply, self._at = reply, at
        self._cut: tuple[bytes, int] | None = None

    @property
    def documents(self) -> bytes:
        """Whole documents, byte for byte as the server sent them."""
        return self._parts()[0]

    @property
    def count(self) -> int:
        """How many documents there are."""
        return self._parts()[1]

    def _parts(self) -> tuple[bytes, int]:
        if self._cut is None:
            try:
                pieces = _members(self._reply, self._at)
            except _DAMAGED as problem:
                raise _no_cursor(problem) from problem
            self._cut = b"".join(pieces), len(pieces)
            self._reply = b""
        return self._cut


def cut(reply: bytes) -> Batch:
    """The batch in a raw reply.  Raises ReplyError when it holds none."""
    try:
        return _cut(reply)
    except _DAMAGED as problem:
        raise _no_cursor(problem) from problem


def _cut(reply: bytes) -> Batch:
    cursor, batch, namespace = None, None, ""
    for name, kind, start in _elements(reply, 0):
        if name == b"cursor" and kind == DOCUMENT:
            for inner, inner_kind, at in _elements(reply, start):
                if inner == b"id" and inner_kind == INT64:
                    cursor = _INT64.unpack_from(reply, at)[0]
                elif inner in {b"firstBatch", b"nextBatch"} and inner_kind == ARRAY:
                    batch = at
                elif inner == b"ns" and inner_kind in _STRINGS:
                    namespace = reply[at + 4 : at + 3 + _INT32.unpack_from(reply, at)[0]].decode()
    if cursor is None or batch is None:
        raise ReplyError("it has no batch or no cursor id")
    return Batch(reply, cursor, namespace, batch)


def _no_cursor(problem: Exception) -> ReplyError:
    return ReplyError(f"the reply is not a cursor's: {problem}")


def _elements(raw: bytes, start: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, type and offset of the value of each element of the document at `start`."""
    end = start + _INT32.unpack_from(raw, start)[0] - 1
    at = start + 4
    while at < end:
        kind = raw[at]
        zero = raw.index(0, at + 1, end)
        yield raw[at + 1 : zero], kind, zero + 1
        at = after(raw, kind, zero + 1)
    if at != end or raw[end]:
        raise ReplyError("a document's length is wrong")


def _members(raw: bytes, start: int) -> list[bytes]:
    """The documents of the array at `start`: the loop that every document passes, so one expression does it.

    The members of a BSON array are named by their index in decimal, so the bytes before each document are
    known: type, digits, zero.  The closing zero of the array ends a run, for it is not the type of a document.
    """
    length_at = _INT32.unpack_from
    end = start + length_at(raw, start)[0] - 1
    at = start + 4
    pieces: list[bytes] = []
    while at < end:
        before, number = at, len(pieces)
        digits = len(str(number))
        if raw[at + 1 : at + 2 + digits] != b"%d\0" % number:
            raise ReplyError("a batch's members are not numbered")
        width = digits + 2
        run = [
            raw[(begin := at + width) : (at := begin + length_at(raw, begin)[0])]
            for _ in range(min(_RUN, 10**digits - number))
            if raw[at] == DOCUMENT
        ]
        # A length that is negative or beyond the end makes a piece shorter than the way that was gone.
        if not run or sum(map(len, run)) + width * len(run) != at - before or min(map(len, run)) < _SMALLEST:
            raise ReplyError("a batch holds something else than documents")
        pieces += run
    if at != end or raw[end]:
        raise ReplyError("a batch's length is wrong")
    return pieces
