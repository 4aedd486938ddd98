"""Which right a server found missing, and the role that has it.  Pure.

Only names out of a fixed list and a database's name are taken from the server's text: the rest may quote anything.
Source: MongoDB's builtin_roles.cpp, and the manual's "Built-In Roles".
"""

import re
from typing import NamedTuple

_REFUSAL = re.compile(
    r"not authorized on (?P<database>[\w-]{1,63}) to execute command \{ (?P<command>\w+): \"?(?P<name>[^\",}]*)"
)
_READS = {
    "aggregate", "collStats", "count", "dbStats", "distinct", "find", "getMore", "listCollections", "listIndexes",
}  # fmt: skip
_WRITES = {
    "create", "createIndexes", "delete", "drop", "dropIndexes", "findAndModify", "insert", "renameCollection", "update",
}  # fmt: skip
_ADMINISTERS = {"collMod", "dropDatabase", "validate"}
_OF_THE_SERVER = {"listDatabases", "replSetGetConfig", "replSetGetStatus", "serverStatus", "top"}
_BUCKETS = "system.buckets."


class Missing(NamedTuple):
    """What was refused, as a sentence, and what to do about it."""

    observed: str
    next: str


def missing(text: str) -> Missing | None:
    """What the server's refusal says is missing, None where it is not understood."""
    found = _REFUSAL.search(text)
    command = found["command"] if found else ""
    if found is None or command not in _READS | _WRITES | _ADMINISTERS | _OF_THE_SERVER:
        return None
    database = found["database"]
    buckets = found["name"].startswith(_BUCKETS)
    what = f"It may not {command} in {database}" + (", on the buckets of a time series" if buckets else "") + "."
    bypass = "bypassDocumentValidation: true" in text
    return Missing(what, _role(command, database, buckets=buckets, bypass=bypass))


def _role(command: str, database: str, *, buckets: bool, bypass: bool) -> str:
    if command in _OF_THE_SERVER:
        return "Give the user the role `clusterMonitor` in the database admin."
    if buckets and command not in _ADMINISTERS:
        role = "backup` (to read) and `restore" if command in _WRITES else "backup"
        return f"Give the user the role `{role}` in the database admin: readWrite does not reach the buckets of a time series."
    if command in _READS:
        return f"Give the user the role `readWrite` on {database}, or `backup` in the database admin for backups alone."
    if command in _ADMINISTERS or bypass:
        why = "pass over validation" if bypass and command in _WRITES else command
        return f"Give the user the roles `readWrite` and `dbAdmin` on {database}: readWrite alone may not {why}."
    return f"Give the user the role `readWrite` on {database}."
