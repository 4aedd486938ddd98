"""What an update in the oplog makes of a document: pure rules over raw BSON.

Sources: the server's `doc_diff` format (`$v: 2`: `{diff: {d, u, i, s<field>}}`, arrays `{a: true, l, u<n>, s<n>}`)
and the older `$v: 1` (`$set`, `$unset` of dotted paths).  As in the server's own replay, applying an update again
to a document that is already newer does no harm: a part that does not fit becomes null, and a later entry of the
same interval puts it right.
"""

from collections.abc import Callable
from functools import partial

from tasks.database.bson_layout import ARRAY, BOOLEAN, DOCUMENT, INT32, INT64, TEXT
from tasks.database.element import NULL_ELEMENT, Element, array, build, elements, fields

_EMPTY = Element(DOCUMENT, build({}))
_DESCRIBED = frozenset({b"updatedFields", b"removedFields", b"truncatedArrays"})
_INTEGERS = frozenset({INT32, INT64})
_Path = list[bytes]


class UnknownUpdateError(ValueError):
    """An update of a form that is not known here; the text says which."""


def updated(document: bytes, change: bytes) -> bytes:
    """`document` after an update whose `o` is `change`.  Raises UnknownUpdateError."""
    found = fields(change)
    version = found.pop(b"$v", None)
    number = _integer(version) if version else 1
    if not any(name.startswith(b"$") for name in found) and version is None:
        return change
    if number == 2 and found.keys() == {b"diff"} and found[b"diff"].kind == DOCUMENT:
        diff = found[b"diff"].value
        return _described(document, diff) if fields(diff).keys() & _DESCRIBED else _differing(document, diff)
    if number == 1 and found.keys() <= {b"$set", b"$unset"}:
        whole = Element(DOCUMENT, document)
        for path, value in _parts(found, b"$set").items():
            whole = _put(whole, path.split(b"."), value)
        for path in _parts(found, b"$unset"):
            whole = _removed(whole, path.split(b"."))
        return whole.value
    raise UnknownUpdateError(f"an update of version {number} with {_names(found)}")


def _differing(document: bytes, diff: bytes) -> bytes:
    sections = fields(diff)
    gone, new, added = (_parts(sections, name) for name in (b"d", b"u", b"i"))
    inner = {name[1:]: element for name, element in sections.items() if name.startswith(b"s")}
    if unknown := [name for name in sections if name not in {b"d", b"u", b"i"} and not name.startswith(b"s")]:
        raise UnknownUpdateError(f"a difference with {b', '.join(unknown).decode(errors='replace')}")
    result: dict[bytes, Element] = {}
    for name, element in elements(document):
        if name in gone or name in added:
            continue
        if name in inner:
            result[name] = _inside(element, inner[name])
        else:
            result[name] = new.pop(name, element)
    return build({**result, **new, **added})


def _inside(element: Element, diff: Element) -> Element:
    """A value after the difference inside it; null where it is of another type, which a later entry puts right."""
    if diff.kind != DOCUMENT:
        raise UnknownUpdateError("a difference that is no document")
    of_array = fields(diff.value).get(b"a") == Element(BOOLEAN, b"\1")
    if element.kind == ARRAY and of_array:
        return _differing_array(element, diff.value)
    if element.kind == DOCUMENT and not of_array:
        return Element(DOCUMENT, _differing(element.value, diff.value))
    return NULL_ELEMENT


def _differing_array(element: Element, diff: bytes) -> Element:
    values = [value for _, value in elements(element.value)]
    size = None
    for name, change in elements(diff):
        if name == b"a":
            continue
        if name == b"l":
            size = _integer(change)
            values = values[:size]
            continue
        kind, digits = name[:1], name[1:]
        if kind not in {b"u", b"s"} or not digits.isdigit():
            raise UnknownUpdateError(f"an array's difference with {name.decode(errors='replace')}")
        place = int(digits)
        before = values[place] if place < len(values) else NULL_ELEMENT
        values += [NULL_ELEMENT] * (place + 1 - len(values))
        values[place] = change if kind == b"u" else _inside(before, change)
    if size is not None:
        values += [NULL_ELEMENT] * (size - len(values))
    return array(values)


def _described(document: bytes, description: bytes) -> bytes:
    """The form of a change event's `updateDescription`, in which some servers of this protocol log their updates."""
    sections = fields(description)
    if unknown := sections.keys() - _DESCRIBED:
        raise UnknownUpdateError(f"a description with {b', '.join(unknown).decode(errors='replace')}")
    whole = Element(DOCUMENT, document)
    for cut in _parts(sections, b"truncatedArrays").values():
        said = fields(cut.value)
        size = _integer(said[b"newSize"])
        whole = _changed(whole, _text(said[b"field"]).split(b"."), partial(_cut, size=size))
    for path, value in _parts(sections, b"updatedFields").items():
        whole = _put(whole, path.split(b"."), value)
    for gone in _parts(sections, b"removedFields").values():
        whole = _removed(whole, _text(gone).split(b"."))
    return whole.value


def _put(whole: Element, path: _Path, value: Element) -> Element:
    return _changed(whole, path, lambda _: value, make=True)


def _removed(whole: Element, path: _Path) -> Element:
    return _changed(whole, path, lambda _: None)


def _cut(found: Element, *, size: int) -> Element:
    return array([value for _, value in elements(found.value)][:size]) if found.kind == ARRAY else found


def _changed(here: Element, path: _Path, act: Callable[[Element], Element | None], *, make: bool = False) -> Element:
    """`here` with `act` done to the value at `path`; None removes it, which leaves null in an array.

    A path that leads through a value that is neither document nor array is left alone, as in the server's replay.
    """
    name, rest = path[0], path[1:]
    if here.kind == ARRAY and name.isdigit():
        values = [value for _, value in elements(here.value)]
        place = int(name)
        if place >= len(values) and not make:
            return here
        values += [NULL_ELEMENT] * (place + 1 - len(values))
        values[place] = _step(values[place], rest, act, make=make) or NULL_ELEMENT
        return array(values)
    if here.kind != DOCUMENT:
        return here
    found = fields(here.value)
    if name not in found and not make:
        return here
    changed = _step(found.get(name, _EMPTY), rest, act, make=make)
    if changed is None:
        del found[name]
    else:
        found[name] = changed
    return Element(DOCUMENT, build(found))


def _step(value: Element, rest: _Path, act: Callable[[Element], Element | None], *, make: bool) -> Element | None:
    return _changed(value, rest, act, make=make) if rest else act(value)


def _parts(sections: dict[bytes, Element], name: bytes) -> dict[bytes, Element]:
    found = sections.get(name)
    if found is None:
        return {}
    if found.kind not in {DOCUMENT, ARRAY}:
        raise UnknownUpdateError(f"{name.decode()} is no document")
    return fields(found.value)


def _integer(element: Element) -> int:
    if element.kind not in _INTEGERS:
        raise UnknownUpdateError("a number that is no integer")
    return int.from_bytes(element.value, "little", signed=True)


def _text(element: Element) -> bytes:
    if element.kind != TEXT:
        raise UnknownUpdateError("a path that is no text")
    return element.value[4:-1]


def _names(found: dict[bytes, Element]) -> str:
    return b", ".join(found).decode(errors="replace") or "nothing"
