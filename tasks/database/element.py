"""Raw BSON documents taken apart into their values and put together again, byte for byte.

Nothing is decoded that need not be: what Python's own types would lose (symbols, undefined, the payload of a
NaN, the order of fields) stays as the server wrote it.

Sources: bsonspec.org; the order of values is the server's, manual page "Comparison/Sort Order".
"""

import struct
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import bson
from bson import Decimal128
from bson.raw_bson import RawBSONDocument

from tasks.database.archive.metadata import EXACT
from tasks.database.bson_layout import (
    ARRAY,
    BOOLEAN,
    DATE,
    DECIMAL,
    DOCUMENT,
    DOUBLE,
    INT32,
    INT64,
    NULL,
    OBJECT_ID,
    SYMBOL,
    TEXT,
    TIMESTAMP,
    after,
)

_NUMBERS = frozenset({DOUBLE, INT32, INT64, DECIMAL})
_TEXTS = frozenset({TEXT, SYMBOL})

_INT32 = struct.Struct("<i")
_INT64 = struct.Struct("<q")
_UINT64 = struct.Struct("<Q")
_DOUBLE = struct.Struct("<d")
_ID = b"_id"


class Element(NamedTuple):
    """A value: its BSON type and its bytes without type and name."""

    kind: int
    value: bytes

    def decoded(self) -> Any:
        """The value as the driver decodes it; dates are `DatetimeMS`."""
        return bson.decode(build({b"v": self}), EXACT)["v"]


NULL_ELEMENT = Element(NULL, b"")


def elements(document: bytes) -> Iterator[tuple[bytes, Element]]:
    """Name and value of each field in its order.  Raises ValueError for bytes that are no document."""
    try:
        end = _INT32.unpack_from(document)[0] - 1
        if end != len(document) - 1 or document[end]:
            raise ValueError("a document's length is wrong")
        at = 4
        while at < end:
            kind = document[at]
            begin = document.index(0, at + 1, end) + 1
            end_of_value = after(document, kind, begin)
            yield document[at + 1 : begin - 1], Element(kind, document[begin:end_of_value])
            at = end_of_value
    except (struct.error, IndexError) as problem:
        raise ValueError("a document is cut short") from problem
    if at != end:
        raise ValueError("a document's length is wrong")


def fields(document: bytes) -> dict[bytes, Element]:
    """All fields by their names, in their order."""
    return dict(elements(document))


def build(found: Mapping[bytes, Element]) -> bytes:
    """The document that holds these fields in this order."""
    parts = [b"%c%s\0%s" % (element.kind, name, element.value) for name, element in found.items()]
    return _INT32.pack(sum(map(len, parts)) + 5) + b"".join(parts) + b"\0"


def array(found: list[Element]) -> Element:
    """An array of these values."""
    return Element(ARRAY, build({b"%d" % place: element for place, element in enumerate(found)}))


def id_of(document: bytes) -> Element:
    """The `_id`, which a server keeps as the first field.  Raises ValueError where there is none."""
    for name, element in elements(document):
        if name == _ID:
            return element
    raise ValueError("a document has no _id")


def at_path(document: bytes, path: str) -> Element | None:
    """The value at a dotted path; a number names a field or a place in an array.  None where there is none."""
    here = Element(DOCUMENT, document)
    for name in path.encode().split(b"."):
        if here.kind not in {DOCUMENT, ARRAY}:
            return None
        found = next((element for key, element in elements(here.value) if key == name), None)
        if found is None:
            return None
        here = found
    return here


def key(element: Element) -> object:
    """Equal for the values that an `_id` index holds for equal: 1, 1.0 and NumberLong(1) are one key."""
    if element.kind in _NUMBERS:
        return "number", _number(element)
    if element.kind in {DOCUMENT, ARRAY}:
        return element.kind, tuple((name, key(value)) for name, value in elements(element.value))
    return element.kind, element.value


def compare(left: Element, right: Element) -> int | None:
    """-1, 0 or 1 in the server's order of two values of one kind; None where it makes no sense to compare them.

    Numbers of all types are one kind, so are texts and symbols.  Two values of different kinds have a place in
    the server's order too, but it says nothing about which is newer; nor does it for documents and arrays.
    """
    first, second = _rank(left), _rank(right)
    if first is None or second is None or first[0] != second[0]:
        return None
    return int(first[1] > second[1]) - int(first[1] < second[1])


def filter_of(ids: list[Element]) -> RawBSONDocument:
    """`{_id: {$in: [...]}}` with the very bytes of the ids."""
    inner = Element(DOCUMENT, build({b"$in": array(ids)}))
    return RawBSONDocument(build({_ID: inner}))


def _rank(element: Element) -> tuple[str, Any] | None:
    kind, value = element
    if kind in _NUMBERS:
        number = _number(element)
        # The server holds NaN for less than every number.
        return "number", (0, 0) if number == "NaN" else (1, number)
    if kind in _TEXTS:
        return "text", value[4:-1]
    if kind == DATE:
        return "date", _INT64.unpack(value)[0]
    if kind == TIMESTAMP:
        return "timestamp", _UINT64.unpack(value)[0]
    if kind in {OBJECT_ID, BOOLEAN}:
        return f"{kind}", value
    return None


def _number(element: Element) -> Decimal | str:
    kind, value = element
    if kind == INT32:
        return Decimal(_INT32.unpack(value)[0])
    if kind == INT64:
        return Decimal(_INT64.unpack(value)[0])
    number = Decimal(_DOUBLE.unpack(value)[0]) if kind == DOUBLE else Decimal128.from_bid(value).to_decimal()
    return "NaN" if number.is_nan() else number
