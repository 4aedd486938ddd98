"""Documents written as they are: a server puts the time in the place of an empty timestamp, if nobody forbids it.

Source: SERVER-88750.  A top-level `Timestamp(0, 0)` other than the `_id` becomes the current time in `insert`, in
a replacing `update` and in an upsert, unless the command says `bypassEmptyTsReplacement`.  Servers before 8.0 know
that only in later releases of their series; the command and its fields are then refused as unknown.
"""

import re
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure

from tasks.database.archive.format import Namespace
from tasks.database.bson_layout import TIMESTAMP
from tasks.database.connection import Client, explain
from tasks.database.element import Element, build, elements
from tasks.domain.errors import TemporaryError, UnprovenError

_BYPASS = {"bypassEmptyTsReplacement": True}
_INVALID_LENGTH, _UNAUTHORIZED = 16, 13
_NOWHERE = "apinizer-restore.none"
_PERHAPS = re.compile(rb"\x11[^\x00]+\x00{9}")
_EMPTY = bytes(8)

_takes: WeakKeyDictionary[Client, bool] = WeakKeyDictionary()
_asking = threading.Lock()


_STATEMENTS = {"insert": "documents", "update": "updates", "delete": "deletes"}


class Change(NamedTuple):
    """What is to become of the document with this `_id`: a document in its place, or none."""

    id: Element
    document: bytes | None


class Written(NamedTuple):
    """How many documents were found that were to be replaced or removed, and what was refused, by place."""

    matched: int
    errors: list[dict[str, Any]]


def insert(client: Client, target: Namespace, documents: Sequence[bytes], *, bypass: bool = False) -> Written:
    """Insert documents as they are, each by itself; all but what is refused is there then, on a majority.

    With `bypass` a validator is passed over, which not every user may.
    """
    return _send(client, target, "insert", [RawBSONDocument(one) for one in documents], documents, bypass=bypass)


def replace(
    client: Client, target: Namespace, changes: Sequence[Change], *, upsert: bool = False, bypass: bool = False
) -> Written:
    """Put documents in the place of those with their `_id`; with `upsert` also where there is none."""
    documents = [one.document for one in changes if one.document is not None]
    statements = [
        {"q": _by_id(one.id), "u": RawBSONDocument(one.document), "upsert": upsert}
        for one in changes
        if one.document is not None
    ]
    return _send(client, target, "update", statements, documents, bypass=bypass)


def delete(client: Client, target: Namespace, ids: Sequence[Element]) -> Written:
    """Remove the documents with these ids."""
    return _send(client, target, "delete", [{"q": _by_id(one), "limit": 1} for one in ids], (), bypass=False)


def _send(
    client: Client,
    target: Namespace,
    name: Literal["insert", "update", "delete"],
    statements: Sequence[Any],
    documents: Sequence[bytes],
    *,
    bypass: bool,
) -> Written:
    # As a command: the driver's own ways have no place for the option.
    command: dict[str, Any] = {name: target.collection, _STATEMENTS[name]: statements, "ordered": False}
    command |= {"writeConcern": {"w": "majority"}}
    if name != "delete":
        command |= verbatim(client, str(target), documents)
    if bypass:
        command["bypassDocumentValidation"] = True
    reply = client[target.db].command(command)
    if unconfirmed := reply.get("writeConcernError"):
        raise OperationFailure("", int(unconfirmed.get("code", 0)), unconfirmed)
    return Written(int(reply.get("n", 0)), list(reply.get("writeErrors", [])))


def _by_id(found: Element) -> RawBSONDocument:
    return RawBSONDocument(build({b"_id": found}))


def verbatim(client: Client, where: str, documents: Iterable[bytes]) -> dict[str, bool]:
    """The fields with which an `insert` or `update` command writes `documents` as they are; none where none help.

    `where` names the collection in an error.  Raises UnprovenError for a document that this server would change,
    and the driver's errors.
    """
    if keeps_empty_timestamps(client):
        return dict(_BYPASS)
    if changed := sum(holds_empty_timestamp(document) for document in documents):
        raise UnprovenError(
            f"The database server would change documents of {where} while it writes them.",
            observed=f"At least {changed:,} hold an empty timestamp, Timestamp(0, 0), in whose place this server puts "
            "the current time; it does not know the option that forbids it (bypassEmptyTsReplacement).",
            next="Update the server to the last release of its series, which knows it from 5.0 on; or restore with "
            "the engine mongodump (tools 100.12 or later), or without this collection.",
        )
    return {}


def keeps_empty_timestamps(client: Client) -> bool:
    """Whether this server knows `bypassEmptyTsReplacement`; asked once of each server as long as a client is open.

    It is asked with an `insert` of no documents, which every server refuses, and earlier where it does not know a field.
    """
    with _asking:
        found = _takes.get(client)
        if found is None:
            found = _takes[client] = _ask(client)
        return found


def _ask(client: Client) -> bool:
    try:
        client["admin"].command({"insert": _NOWHERE, "documents": [], **_BYPASS})
    except OperationFailure as problem:
        if isinstance(explain(problem, ""), TemporaryError):
            raise
        return problem.code in {_INVALID_LENGTH, _UNAUTHORIZED}
    return True


def holds_empty_timestamp(document: bytes) -> bool:
    """Whether a top-level field other than `_id` is `Timestamp(0, 0)`."""
    # The search is much faster than a look at each field; what it finds may be anywhere in the document.
    return _PERHAPS.search(document) is not None and any(
        element.kind == TIMESTAMP and element.value == _EMPTY and name != b"_id" for name, element in elements(document)
    )
