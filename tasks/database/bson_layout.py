"""How long a BSON value is by its type, so that documents can be walked without decoding them.  Source: bsonspec.org."""

import struct
from typing import Final

DOUBLE, TEXT, DOCUMENT, ARRAY, BINARY, UNDEFINED, OBJECT_ID, BOOLEAN, DATE, NULL = range(0x01, 0x0B)
REGEX, POINTER, CODE, SYMBOL, SCOPED_CODE, INT32, TIMESTAMP, INT64, DECIMAL = range(0x0B, 0x14)
_FIXED: Final = {DOUBLE: 8, UNDEFINED: 0, OBJECT_ID: 12, BOOLEAN: 1, DATE: 8, NULL: 0, INT32: 4, TIMESTAMP: 8, INT64: 8, DECIMAL: 16, 0x7F: 0, 0xFF: 0}  # fmt: skip
_LENGTH: Final = struct.Struct("<i")


def after(raw: bytes, kind: int, at: int) -> int:
    """The offset after the value of type `kind` at `at`.  Raises ValueError, IndexError or struct.error for none."""
    if kind in _FIXED:
        return at + _FIXED[kind]
    if kind == REGEX:
        return raw.index(0, raw.index(0, at) + 1) + 1
    length: int = _LENGTH.unpack_from(raw, at)[0]
    if length < 0:
        raise ValueError("a value's length is negative")
    if kind in {DOCUMENT, ARRAY, SCOPED_CODE}:
        return at + length
    if kind in {TEXT, SYMBOL, CODE}:
        return at + 4 + length
    if kind == BINARY:
        return at + 5 + length
    if kind == POINTER:
        return at + 4 + length + 12
    raise ValueError(f"a value has the unknown type {kind:#x}")
