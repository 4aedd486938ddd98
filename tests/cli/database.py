"""The sandbox's database seen from outside: all that a backup has to bring back, compared byte for byte."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

NAME = "apinizerdb"
Snapshot = dict[str, tuple[Any, ...]]


@contextmanager
def opened(uri: str) -> Iterator[Any]:
    """The Apinizer database of a server."""
    with MongoClient[dict[str, Any]](uri) as client:
        yield client[NAME]


def snapshot(uri: str) -> Snapshot:
    """Documents as raw bytes by their order of _id, indexes and options of every collection."""
    raw: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
    with opened(uri) as database:
        return {
            info["name"]: (
                info["type"],
                repr(info.get("options", {})),
                sorted(repr(sorted(index.items(), key=str)) for index in _indexes(database, info)),
                sorted(document.raw for document in database.get_collection(info["name"], codec_options=raw).find()),
            )
            for info in database.list_collections()
        }


def _indexes(database: Any, info: dict[str, Any]) -> list[dict[str, Any]]:
    if info["type"] == "view":
        return []
    return [{k: v for k, v in index.items() if k != "ns"} for index in database[info["name"]].list_indexes()]
