"""The metadata of a collection as mongodump writes it: canonical extended JSON.

`{"options": {…}, "indexes": […], "uuid": "hex", "collectionName": "…", "type": "…"}`, without spaces;
options, uuid and type are left out when they are empty; a view has no indexes.
Source: mongodb/mongo-tools, mongodump/metadata_dump.go.
"""

import binascii
import json
from dataclasses import dataclass, field
from typing import Any

import bson
from bson import json_util
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError

from tasks.database.archive.format import FormatError

EXACT: CodecOptions[dict[str, Any]] = CodecOptions(
    document_class=dict, datetime_conversion=DatetimeConversion.DATETIME_MS
)
"""Decoding that keeps what Python's own types would lose: dates out of range, UUID bytes, key order."""

_JSON = json_util.JSONOptions(
    json_mode=json_util.JSONMode.CANONICAL,
    document_class=dict,
    datetime_conversion=DatetimeConversion.DATETIME_MS,
)


@dataclass(frozen=True, slots=True)
class CollectionMetadata:
    """A collection's definition; `options` and `indexes` are decoded BSON, keys in the server's order."""

    name: str
    type: str = ""
    uuid: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    indexes: tuple[dict[str, Any], ...] = ()

    def encode(self) -> str:
        """The text that goes into the archive."""
        fields: dict[str, Any] = {}
        if self.options:
            fields["options"] = self.options
        fields["indexes"] = list(self.indexes)
        if self.uuid:
            fields["uuid"] = self.uuid
        fields["collectionName"] = self.name
        if self.type:
            fields["type"] = self.type
        return json_util.dumps(fields, json_options=_JSON, ensure_ascii=False, separators=(",", ":"))

    def comes_back(self) -> bool:
        """Whether the text reads back to the very bytes of options and indexes.

        It does not for what extended JSON itself cannot tell apart, such as a validator with the operator
        `{"$regex": …, "$options": …}`, which reads back as a regular expression of the same meaning.
        """
        again = decode(self.encode())
        return bson.encode(again.options) == bson.encode(self.options) and [
            bson.encode(index) for index in again.indexes
        ] == [bson.encode(index) for index in self.indexes]


def decode(text: str) -> CollectionMetadata:
    """Read the text.  Raises FormatError where it is no metadata, or an index has no key or no name."""
    try:
        fields = json_util.loads(text, json_options=_JSON)
    except (json.JSONDecodeError, BSONError, ValueError, TypeError, KeyError, OverflowError, RecursionError,
            binascii.Error) as problem:  # fmt: skip
        raise FormatError("the metadata is not extended JSON") from problem
    if not isinstance(fields, dict):
        raise FormatError("the metadata is not an object")
    options, indexes = fields.get("options", {}), fields.get("indexes")
    if not isinstance(options, dict) or not isinstance(indexes, list):
        raise FormatError("the metadata has no options and indexes of the right type")
    for index in indexes:
        if not (isinstance(index, dict) and isinstance(index.get("key"), dict) and _is_name(index.get("name"))):
            raise FormatError("an index definition has no key or no name")
    texts = [fields.get(name, "") for name in ("collectionName", "type", "uuid")]
    if not all(isinstance(text, str) for text in texts):
        raise FormatError("the metadata's name, type or uuid is no text")
    return CollectionMetadata(texts[0], texts[1], texts[2], options, tuple(indexes))


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != ""
