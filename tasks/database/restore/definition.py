"""Collections' definitions: how one is made again, and whether two are the same.

Sources: mongo-tools, mongorestore/metadata.go and restore.go (what is taken out of options and indexes before
they are sent), common/bsonutil (index keys of old servers); the server's `create`, `createIndexes`, `collMod`.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from tasks.database.archive.metadata import CollectionMetadata

Spec = dict[str, Any]

_MISSING: Any = object()

# Of old servers, or the collection's own and not a choice.
_NOT_FOR_CREATE = {"uuid", "autoIndexId", "flags", "temp", "idIndex", "create"}
_NOT_FOR_INDEX = {"ns", "background", "dropDups", "safe", "w", "buildUUID"}
_BOOLEAN = {"unique", "sparse", "hidden", "prepareUnique", "clustered", "capped"}
# What changes a collection's meaning when the server has it and the archive does not.
_TELLING_OPTIONS = {
    "validator", "capped", "collation", "timeseries", "clusteredIndex", "viewOn", "pipeline", "expireAfterSeconds",
    "encryptedFields",
}  # fmt: skip
_TELLING_INDEX = {
    "unique", "sparse", "expireAfterSeconds", "partialFilterExpression", "hidden", "collation", "prepareUnique",
    "wildcardProjection",
}  # fmt: skip
# What `collMod` can set on a collection that is there.
_MENDABLE = ("validator", "validationLevel", "validationAction", "changeStreamPreAndPostImages", "expireAfterSeconds")
_KEY_TEXTS = {"text", "hashed", "2d", "2dsphere", "geoHaystack", "columnstore", "wildcard", "queryable_encrypted_range"}


def options_for_create(options: Mapping[str, Any], *, with_expiry: bool = True) -> Spec:
    """The options that `create` takes.

    Without expiry, documents of a clustered collection or a time series that are past their time stay until
    they have been counted.
    """
    left_out = _NOT_FOR_CREATE if with_expiry else _NOT_FOR_CREATE | {"expireAfterSeconds"}
    kept = {name: value for name, value in options.items() if name not in left_out}
    if not kept.get("capped"):
        for name in ("capped", "size", "max"):
            kept.pop(name, None)
    return kept


def indexes_for_create(indexes: Iterable[Mapping[str, Any]]) -> list[Spec]:
    """What `createIndexes` is to be asked for: all but what the collection has by itself."""
    return [index_for_create(index) for index in indexes if not comes_by_itself(index)]


def comes_by_itself(index: Mapping[str, Any]) -> bool:
    """Whether the server makes the index with the collection: `_id`, and the one that a clustered one is."""
    return dict(index["key"]) == {"_id": 1} or bool(index.get("clustered"))


def index_for_create(index: Mapping[str, Any]) -> Spec:
    """One index as it is asked for: without what only told where it was, with keys that servers take today."""
    made = {name: value for name, value in index.items() if name not in _NOT_FOR_INDEX}
    made["key"] = {name: _key_value(value) for name, value in index["key"].items()}
    # Version 0 is of before 2.0; no server makes it any more.
    if made.get("v") not in {1, 2}:
        made.pop("v", None)
    return made


def _key_value(value: Any) -> Any:
    """Servers before 3.4 took anything as a direction and meant 1 by it (mongorestore's legacy conversion)."""
    if isinstance(value, str):
        return value if value in _KEY_TEXTS else 1
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or value == 0:
        return 1
    return value


def index_differences(wanted: Iterable[Mapping[str, Any]], found: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is not as the archive has it, one sentence for an index; none when all is there and nothing else."""
    there = {str(index["name"]): index for index in found}
    lines = []
    for index in map(index_for_create, wanted):
        name = str(index["name"])
        got = there.pop(name, None)
        if got is None:
            lines.append(f"The index {name} is missing.")
        elif odd := _differences(index, index_for_create(got), _TELLING_INDEX):
            lines.append(f"The index {name} differs in {', '.join(odd)}.")
        elif list(index["key"]) != list(got["key"]):
            lines.append(f"The index {name} has its keys in another order.")
    lines += [f"The index {name} is not in the archive." for name, index in there.items() if not comes_by_itself(index)]
    return lines


def option_differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """The names of options that are not as the archive has them."""
    return _differences(options_for_create(wanted), options_for_create(found), _TELLING_OPTIONS)


def mending(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> Spec:
    """The fields of a `collMod` that makes the options right; empty where nothing is to be done or it cannot."""
    odd = option_differences(wanted, found)
    if not odd or any(name not in _MENDABLE for name in odd):
        return {}
    return {name: _unset(name) if wanted.get(name) is None else wanted[name] for name in odd}


def mendable(options: Mapping[str, Any]) -> bool:
    """Whether a collection whose options were lost could be given them again."""
    return all(name in _MENDABLE for name in options_for_create(options))


def expires(definition: CollectionMetadata) -> bool:
    """Whether the server removes documents by itself once the collection has its options and indexes."""
    indexes = any("expireAfterSeconds" in index for index in definition.indexes)
    return indexes or "expireAfterSeconds" in definition.options


def _unset(name: str) -> Any:
    return {
        "validator": {},
        "validationLevel": "strict",
        "validationAction": "error",
        "changeStreamPreAndPostImages": {"enabled": False},
        "expireAfterSeconds": "off",
    }[name]


def _differences(wanted: Spec, found: Spec, telling: set[str]) -> list[str]:
    """Names whose values differ; what only the server has counts where it changes the meaning."""
    odd = [name for name, value in wanted.items() if not _same(name, value, found.get(name, _MISSING))]
    return odd + [
        name for name in found if name in telling and name not in wanted and not _same(name, found[name], False)
    ]


def _same(name: str, one: Any, other: Any) -> bool:
    if name in _BOOLEAN:
        return bool(one) == (other is not _MISSING and bool(other))
    return _equal(one, other)


def _equal(one: Any, other: Any) -> bool:
    """Equal as BSON values whose numbers may have changed their type and whose fields must keep their order."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return list(one) == list(other) and all(_equal(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other):
        return True
    return bool(one == other)
