"""Bodies in Kubernetes' protobuf encoding, which newer kubectl sends for a few kinds: decoded into plain objects. Pure.

Field numbers are those of the generated.proto files of k8s.io/api and k8s.io/apimachinery. Answers are always JSON, which
every client accepts.
"""

from __future__ import annotations

import base64
from typing import Any

from deployments.sandbox import failures

JsonObject = dict[str, Any]
MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"

# Field number to (name, type); a type is text, int, bool, bytes, map, bytes-map or the name of a message.
_MESSAGES: dict[str, dict[int, tuple[str, str]]] = {
    "Unknown": {1: ("typeMeta", "TypeMeta"), 2: ("raw", "raw")},
    "TypeMeta": {1: ("apiVersion", "text"), 2: ("kind", "text")},
    "ObjectMeta": {
        1: ("name", "text"),
        2: ("generateName", "text"),
        3: ("namespace", "text"),
        6: ("resourceVersion", "text"),
        11: ("labels", "map"),
        12: ("annotations", "map"),
    },
    "SelfSubjectAccessReview": {1: ("metadata", "ObjectMeta"), 2: ("spec", "AccessSpec")},
    "AccessSpec": {1: ("resourceAttributes", "ResourceAttributes"), 2: ("nonResourceAttributes", "PathAttributes")},
    "ResourceAttributes": {
        1: ("namespace", "text"),
        2: ("verb", "text"),
        3: ("group", "text"),
        4: ("version", "text"),
        5: ("resource", "text"),
        6: ("subresource", "text"),
        7: ("name", "text"),
    },
    "PathAttributes": {1: ("path", "text"), 2: ("verb", "text")},
    "SelfSubjectRulesReview": {1: ("metadata", "ObjectMeta"), 2: ("spec", "RulesSpec")},
    "RulesSpec": {1: ("namespace", "text")},
    "Namespace": {1: ("metadata", "ObjectMeta")},
    "ServiceAccount": {1: ("metadata", "ObjectMeta")},
    "TokenRequest": {1: ("metadata", "ObjectMeta")},
    "ConfigMap": {1: ("metadata", "ObjectMeta"), 2: ("data", "map"), 3: ("binaryData", "bytes-map")},
    "Secret": {1: ("metadata", "ObjectMeta"), 2: ("data", "bytes-map"), 3: ("type", "text"), 4: ("stringData", "map")},
    "DeleteOptions": {
        1: ("gracePeriodSeconds", "int"),
        3: ("orphanDependents", "bool"),
        4: ("propagationPolicy", "text"),
    },
}


def decode(body: bytes) -> JsonObject:
    """A body as an object; raises ApiError 415 for a kind that is not known here, 400 for what is no such body."""
    if not body.startswith(_MAGIC):
        raise failures.bad_request("the object provided is unrecognized (must be of type protobuf)")
    try:
        outer = _message("Unknown", body[len(_MAGIC) :])
        kind = outer["typeMeta"]["kind"]
        if kind not in _MESSAGES:
            raise failures.unsupported_media_type()
        return {**outer["typeMeta"], **_message(kind, outer.get("raw", b""))}
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise failures.bad_request(f"the object provided is unrecognized: {error}") from error


def _message(kind: str, data: bytes) -> JsonObject:
    found: JsonObject = {}
    for number, value in _fields(data):
        name, of = _MESSAGES[kind].get(number, ("", ""))
        if not name:
            continue
        if of in ("map", "bytes-map"):
            entry = dict(_fields(value))
            key = entry.get(1, b"").decode()
            content = entry.get(2, b"")
            found.setdefault(name, {})[key] = content.decode() if of == "map" else base64.b64encode(content).decode()
        else:
            found[name] = _value(of, value)
    return found


def _value(of: str, value: Any) -> Any:
    match of:
        case "text":
            return value.decode()
        case "raw" | "int":
            return value
        case "bool":
            return bool(value)
        case _:
            return _message(of, value)


def _fields(data: bytes) -> list[tuple[int, Any]]:
    """(number, value) of each field: an int for varints, bytes for the rest."""
    found: list[tuple[int, Any]] = []
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        value: Any
        if wire == 0:
            value, at = _varint(data, at)
        elif wire == 2:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
        else:
            size = 8 if wire == 1 else 4
            value, at = data[at : at + size], at + size
        found.append((number, value))
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[at]
        result |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return result, at
