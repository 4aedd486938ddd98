"""Oplog entries taken apart: single writes and commands in their order, transactions unfolded at their commit.

Source: the server's oplog entry format (`repl::OplogEntry`) and mongo-tools (`mongorestore/oplog.go`,
`common/txn`): a transaction is one `applyOps`, or several that are marked `partialTxn`, of one session and number;
a prepared one counts only with its `commitTransaction`.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from tasks.database.archive.format import Namespace
from tasks.database.bson_layout import BOOLEAN, DOCUMENT, INT32, TEXT
from tasks.database.element import Element, build, elements, fields, id_of
from tasks.database.oplog_update import updated
from tasks.domain.errors import UnprovenError

_VECTORED = Element(INT32, b"\1\0\0\0")
_NO_TIME = bytes(8)
_TRUE = Element(BOOLEAN, b"\1")


class Kind(StrEnum):
    """What an operation does to one document."""

    INSERT = "i"
    UPDATE = "u"
    DELETE = "d"


@dataclass(frozen=True, slots=True)
class Write:
    """One write; `change` is the whole document, the update, or the id of what is removed."""

    kind: Kind
    namespace: Namespace
    id: Element
    change: bytes

    def apply(self, document: bytes | None) -> bytes | None:
        """The document afterwards, None for none.  Raises UnknownUpdateError.

        Doing it again does no harm.  An update of a document that is not there does nothing: it was removed
        later in the interval, before the archive's copy of it was read.
        """
        if self.kind is Kind.INSERT:
            return self.change
        if self.kind is Kind.DELETE or document is None:
            return None
        after = updated(document, self.change)
        # A whole document may be logged without the _id that it keeps.
        return after if any(name == b"_id" for name, _ in elements(after)) else _with_id(after, self.id)


@dataclass(frozen=True, slots=True)
class Command:
    """A command on a database, or on a collection of it; `text` is its first value, where that is a text."""

    name: str
    database: str
    text: str
    body: bytes

    @property
    def namespace(self) -> Namespace:
        """The collection that most commands name first."""
        return Namespace(self.database, self.text)


@dataclass(slots=True)
class Unfolder:
    """Gives the writes and commands of entries that are fed in their order."""

    _open: dict[tuple[bytes, bytes], list[Write | Command]] = field(default_factory=dict)

    def feed(self, entry: bytes) -> list[Write | Command]:
        """What the entry does now.  Raises UnprovenError for an entry of a form that is not known here."""
        try:
            return self._fed(entry)
        except (ValueError, KeyError, UnicodeDecodeError) as problem:
            raise refused("An entry is not of the form that is known here.", f"{problem}") from None

    def _fed(self, entry: bytes) -> list[Write | Command]:
        found = fields(entry)
        kind = _text(found[b"op"])
        if kind == "n":
            return []
        namespace = _namespace(_text(found[b"ns"]))
        change = _document(found[b"o"])
        if kind == "c":
            return self._command(found, namespace, change)
        if kind not in set(Kind):
            raise refused("An operation of the oplog is not known here.", f"Operation {kind!r} on {namespace}.")
        selector = _document(found[b"o2"]) if kind == Kind.UPDATE else change
        return [Write(Kind(kind), namespace, id_of(selector), change)]

    def _command(self, found: dict[bytes, Element], namespace: Namespace, body: bytes) -> list[Write | Command]:
        inner = fields(body)
        name = next(iter(inner), b"")
        session = _session(found)
        if name == b"applyOps":
            nested = [one for _, raw in elements(inner[name].value) for one in self._fed(_document(raw))]
            return nested if session is None else self._part(found, inner, session, nested)
        if name in {b"commitTransaction", b"abortTransaction"}:
            done = self._open.pop(session, None) if session else None
            if name == b"abortTransaction":
                return []
            if done is None:
                raise _begun_before()
            return done
        first = inner.get(name)
        text = _text(first) if first is not None and first.kind == TEXT else ""
        return [Command(name.decode(), namespace.db, text, body)]

    def _part(
        self,
        found: dict[bytes, Element],
        inner: dict[bytes, Element],
        session: tuple[bytes, bytes],
        nested: list[Write | Command],
    ) -> list[Write | Command]:
        """A transaction's whole or one part of it."""
        before = self._open.pop(session, None)
        if before is None and _has_predecessor(found):
            raise _begun_before()
        both = [*(before or []), *nested]
        if inner.get(b"partialTxn") == _TRUE or inner.get(b"prepare") == _TRUE:
            self._open[session] = both
            return []
        return both


def refused(happened: str, observed: str) -> UnprovenError:
    """The error for an oplog that cannot be applied here."""
    return UnprovenError(
        "The archive's oplog cannot be applied.",
        observed=f"{happened} {observed}",
        safe="No collection was replaced.",
        next="Restore it with mongorestore --oplogReplay, or restore another backup.",
    )


def _session(found: dict[bytes, Element]) -> tuple[bytes, bytes] | None:
    """Of a transaction; inserts that a session sent at once (`multiOpType` 1) are none."""
    if b"lsid" not in found or b"txnNumber" not in found or found.get(b"multiOpType") == _VECTORED:
        return None
    return found[b"lsid"].value, found[b"txnNumber"].value


def _has_predecessor(found: dict[bytes, Element]) -> bool:
    before = found.get(b"prevOpTime")
    if before is None or before.kind != DOCUMENT:
        return False
    time = fields(before.value).get(b"ts")
    return time is not None and time.value != _NO_TIME


def _begun_before() -> UnprovenError:
    return refused("A transaction began before the archive's oplog does.", "Its first writes are missing.")


def _with_id(document: bytes, found: Element) -> bytes:
    return build({b"_id": found, **fields(document)})


def _text(element: Element) -> str:
    if element.kind != TEXT:
        raise ValueError("a field that should be a text is none")
    return element.value[4:-1].decode()


def _document(element: Element) -> bytes:
    if element.kind != DOCUMENT:
        raise ValueError("a field that should be a document is none")
    return element.value


def _namespace(text: str) -> Namespace:
    database, _, collection = text.partition(".")
    return Namespace(database, collection)
