"""Kinds of collections and indexes that were read and checked, but that no server of this project's tests knows.  Pure.

They are carried as the archive has them.  Whether a server takes them back only a rehearsal against such a
server shows; until then `verify` names them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from tasks.database.archive.metadata import CollectionMetadata

JsonObject = Mapping[str, Any]

_KEYS = {"text": "text", "hashed": "hashed", "geoHaystack": "geoHaystack", "columnstore": "column store"}
_INDEX_OPTIONS = {"prepareUnique": "prepareUnique", "columnstoreProjection": "column store"}
_OPTIONS = {
    "timeseries": "time series",
    "capped": "capped",
    "encryptedFields": "encrypted",
    "storageEngine": "engine-optioned",
}


# Deprecated types of BSON that the driver cannot write; the key of their extended JSON, and what takes their place.
_RETYPED = {"$symbol": "a text", "$undefined": "null", "$dbPointer": "a document"}


def retyped(definitions: Iterable[tuple[str, str]]) -> list[str]:
    """A sentence for each definition that is not written back as it is; namespaces with their metadata's text."""
    return [
        f"The definition of {namespace} holds a value of the type {key[1:]}, which is written back as {instead}."
        for namespace, text in definitions
        for key, instead in _RETYPED.items()
        if f'{{"{key}":' in text
    ]


def untried(definitions: Iterable[tuple[str, CollectionMetadata]]) -> list[str]:
    """A sentence for each kind, with where it occurs; `definitions` are namespaces with their definitions."""
    found: dict[str, list[str]] = {}
    for namespace, metadata in definitions:
        for kind in _collection_kinds(metadata.options):
            found.setdefault(f"{kind} collection", []).append(namespace)
        for index in metadata.indexes:
            for kind in _index_kinds(index):
                found.setdefault(f"{kind} index", []).append(f"{namespace} {index['name']}")
    return [
        f"Read, but tried on no server: {kind} ({', '.join(sorted(places))})." for kind, places in sorted(found.items())
    ]


def _collection_kinds(options: JsonObject) -> set[str]:
    return {kind for name, kind in _OPTIONS.items() if options.get(name)}


def _index_kinds(index: JsonObject) -> set[str]:
    kinds = {_KEYS[value] for value in index["key"].values() if isinstance(value, str) and value in _KEYS}
    return kinds | {kind for name, kind in _INDEX_OPTIONS.items() if index.get(name)}
