"""The oplog of the time in which a whole server is read, which makes its archive one point in time.

As `mongodump --oplog` does it (mongo-tools, `oplog_dump.go`): from the newest entry before the first read, or
the start of the oldest transaction that is still open, to the newest entry after the last read, both
included, under the name `oplog` of no database; refused where the interval holds what cannot be replayed or
the start of it has been overwritten.  One difference: every read here has read concern majority, because the
collections' reads have it: an interval that starts at a newer entry than they saw would have a gap.
"""

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final

import bson
from bson.timestamp import Timestamp
from pymongo.errors import OperationFailure

from tasks.database.archive.format import CollectionEntry, Namespace, split
from tasks.database.batch import Batch
from tasks.database.connection import Client
from tasks.database.listing import Session, batches
from tasks.database.manifest import OplogRecord
from tasks.domain.errors import TemporaryError

OPLOG = Namespace("", "oplog")
ENTRY = CollectionEntry(OPLOG, "", "")
"""How the archive announces it: without metadata."""

_COLLECTION = "oplog.rs"
_POSITION_LOST = 136
_TRIES = 4
_PAUSE = 0.25  # Seconds, doubled each time: one removal takes over a second on a busy server.
_MAJORITY = {"readConcern": {"level": "majority"}}
_RESHARDING = frozenset(
    {"reshardingOperations", "localReshardingOperations.donor", "localReshardingOperations.recipient"}
)
_NOT_REPLAYABLE: Final = ("renameCollection", "importCollection", "upgradeDowngradeViewlessTimeseries")
# What an entry that cannot be replayed must hold somewhere: only a batch with one of these is decoded.
_SIGNS = tuple(sign.encode() for sign in (*_NOT_REPLAYABLE, "admin.system.version", "eshardingOperations"))


def start(client: Client, session: Session) -> Timestamp | None:
    """Where the interval begins; None where the server has no oplog.  Raises OperationFailure where it is not shown."""
    open_transactions = {
        "find": "transactions",
        "filter": {"state": {"$in": ["prepared", "inProgress"]}},
        "sort": {"startOpTime": 1},
        "limit": 1,
        **_MAJORITY,
    }
    found = client["config"].command(open_transactions, session=session)["cursor"]["firstBatch"]
    newest = _end_of(client, session, -1)
    oldest = found[0].get("startOpTime", {}).get("ts") if found else None
    return min(newest, oldest) if newest and isinstance(oldest, Timestamp) else newest


def copy(client: Client, session: Session, since: Timestamp, write: Callable[[Batch], None]) -> OplogRecord:
    """Give every entry from `since` to now to `write`.  Raises TemporaryError where the interval is of no use."""
    until = _end_of(client, session, -1)
    _check_there(client, session, since)
    if until is None:
        raise _overwritten()
    find = {"find": _COLLECTION, "filter": {"ts": {"$gte": since, "$lte": until}}, **_MAJORITY}
    documents = 0
    with closing(batches(client, session, "local", find)) as source:
        for batch in source:
            check(batch.documents)
            documents += batch.count
            write(batch)
    # Once more: it may have been overwritten between the look and the copy.
    _check_there(client, session, since)
    return OplogRecord(first=(since.time, since.inc), last=(until.time, until.inc), documents=documents)


def check(entries: bytes) -> None:
    """Raises TemporaryError for a run of oplog entries with one that cannot be replayed.  Pure."""
    if not any(sign in entries for sign in _SIGNS):
        return
    for raw in split(entries):
        if why := not_replayable(bson.decode(raw)):
            raise TemporaryError(
                "The backup cannot be one point in time: something happened meanwhile that cannot be replayed.",
                observed=why,
                safe="Nothing was changed; the unfinished file was removed.",
                next="Try again when nobody changes the structure of the databases.",
            )


def not_replayable(entry: dict[str, Any]) -> str:
    """Why mongorestore could not replay an oplog entry, empty where it can (`oplogDocumentValidator`).  Pure."""
    namespace, change = entry.get("ns"), entry.get("o")
    if namespace == "admin.system.version":
        return "The server's feature version was changed."
    if not isinstance(change, dict):
        return ""
    if command := next((name for name in _NOT_REPLAYABLE if name in change), None):
        return f"{command} in {namespace}."
    if isinstance(namespace, str) and namespace.split(".")[0] == "config" and change.get("create") in _RESHARDING:
        return "A collection is being resharded."
    return ""


def _check_there(client: Client, session: Session, since: Timestamp) -> None:
    oldest = _end_of(client, session, 1)
    if oldest is None or oldest > since:
        raise _overwritten()


def _end_of(client: Client, session: Session, direction: int) -> Timestamp | None:
    """The newest (-1) or oldest (1) entry's time."""
    find = {"find": _COLLECTION, "sort": {"$natural": direction}, "limit": 1, "singleBatch": True, **_MAJORITY}
    for left in reversed(range(_TRIES)):
        try:
            found = client["local"].command(find, session=session)["cursor"]["firstBatch"]
        except OperationFailure as problem:
            # The oldest entries are removed while they are read: that says nothing about ours.
            if problem.code != _POSITION_LOST or not left:
                raise
            time.sleep(_PAUSE * 2 ** (_TRIES - 1 - left))
        else:
            return found[0]["ts"] if found else None
    return None


def _overwritten() -> TemporaryError:
    return TemporaryError(
        "The server's oplog is too small for the time that the backup took.",
        observed="The entry at which the backup began has been overwritten.",
        safe="Nothing was changed; the unfinished file was removed.",
        next="Try again when less is written, enlarge the oplog, or back up the Apinizer database alone.",
    )
