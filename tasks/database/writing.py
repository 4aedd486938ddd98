"""Documents written as they are: a server puts the time in the place of an empty timestamp, if nobody forbids it.

Source: SERVER-88750.  A top-level `Timestamp(0, 0)` other than the `_id` becomes the current time in `insert`, in
a replacing `update` and in an upsert, unless the command says `bypassEmptyTsReplacement`.  Servers before 8.0 know
that only in later releases of their series; the command and its fields are then refused as unknown.
"""

import re
import threading
from collections.abc import Iterable
from weakref import WeakKeyDictionary

from pymongo.errors import OperationFailure

from tasks.database.connection import Client, explain
from tasks.database.element import TIMESTAMP, elements
from tasks.domain.errors import TemporaryError, UnprovenError

_BYPASS = {"bypassEmptyTsReplacement": True}
_INVALID_LENGTH, _UNAUTHORIZED = 16, 13
_NOWHERE = "apinizer-restore.none"
_PERHAPS = re.compile(rb"\x11[^\x00]+\x00{9}")
_EMPTY = bytes(8)

_takes: WeakKeyDictionary[Client, bool] = WeakKeyDictionary()
_asking = threading.Lock()


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
