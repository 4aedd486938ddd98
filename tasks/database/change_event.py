"""What a change stream's event says about who writes to a database that is being restored: pure rules.

Source: MongoDB's manual, "Change Events"; `create`, `createIndexes`, `dropIndexes` and `modify` come only from
servers that give expanded events (6.0 and later).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tasks.database.logs import LOG_COLLECTIONS
from tasks.database.restore.names import PREFIX

_DATA = frozenset({"insert", "update", "replace", "delete"})
_STRUCTURE = frozenset({"drop", "rename", "create", "createIndexes", "dropIndexes", "modify", "dropDatabase",
                        "shardCollection", "reshardCollection", "refineCollectionShardKey"})  # fmt: skip


class Author(StrEnum):
    """Whose write it is.  A log's and a removal by age are nobody's fault; NOBODY is no write at all."""

    OURS = "ours"
    LOG = "log"
    AGE = "age"
    OTHER = "other"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Own:
    """What this run itself does to collections that are not its temporary ones.

    `structure` names those it drops, renames, makes or modifies, `data` those it merges documents into: there
    the writes of others cannot be told from its own.  `run` is how its temporary ones are named, where known.
    """

    structure: frozenset[str] = frozenset()
    data: frozenset[str] = frozenset()
    run: str = ""

    def and_of(self, names: frozenset[str], *, data: bool) -> "Own":
        """With some names more."""
        return Own(self.structure | names, self.data | (names if data else frozenset()), self.run)


def author(event: Mapping[str, Any], own: Own, aging: frozenset[str] = frozenset()) -> Author:
    """Who wrote what `event` tells; `aging` are collections with a TTL index, from which the server removes."""
    kind, collection = event.get("operationType", ""), collection_of(event)
    if kind not in _DATA and kind not in _STRUCTURE:
        return Author.NOBODY
    # Views and the like are kept in system collections; their own event follows or is not given.
    if collection.startswith("system."):
        return Author.NOBODY
    if kind == "rename":
        return _renamer(collection, collection_of(event, "to"), own)
    if kind in _STRUCTURE:
        return Author.OURS if collection in own.structure else Author.OTHER
    if collection in own.data:
        return Author.OURS
    if collection in LOG_COLLECTIONS:
        return Author.LOG
    if kind == "delete" and collection in aging:
        return Author.AGE
    return Author.OTHER


def _renamer(old: str, new: str, own: Own) -> Author:
    """Who renamed: what stood under the new name is gone with it, and nothing else tells that.

    Both names have to be this run's: announced, or temporary ones of its own.
    """
    ends = (old, new)
    if all(name.startswith(PREFIX) for name in ends):
        return Author.NOBODY
    ours = all(name in own.structure or name.startswith(f"{PREFIX}{own.run}") for name in ends)
    return Author.OURS if ours else Author.OTHER


def replaces(event: Mapping[str, Any]) -> bool:
    """Whether a collection is gone with what `event` tells."""
    return event.get("operationType") in {"drop", "rename"}


def told(event: Mapping[str, Any]) -> str:
    """What was done, in words for people."""
    kind = str(event.get("operationType", ""))
    return f"rename to {collection_of(event, 'to')}" if kind == "rename" else kind


def collection_of(event: Mapping[str, Any], field: str = "ns") -> str:
    """The collection's name, empty for what concerns the whole database; `to` has the new one of a rename."""
    namespace = event.get(field)
    name = namespace.get("coll", "") if isinstance(namespace, Mapping) else ""
    return name if isinstance(name, str) else ""
