"""What a server will not take of an archive's definitions, found out with empty collections."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pymongo.errors import OperationFailure

from tasks.database.archive.metadata import CollectionMetadata
from tasks.database.connection import Client, explain
from tasks.database.restore.definition import index_for_create, indexes_for_create, options_for_create
from tasks.domain.errors import ForbiddenError, TemporaryError, UnauthorizedError

_PROBE = "trial"
_PLAIN_INDEX = frozenset({"v", "key", "name", "unique", "sparse", "expireAfterSeconds"})


@dataclass(frozen=True, slots=True)
class Refused:
    """What of one collection the server refused: its options, or indexes by name, each with the server's code."""

    options: str = ""
    indexes: tuple[tuple[str, str], ...] = ()

    def lines(self, namespace: object) -> list[str]:
        """A sentence for each thing that could not be tried."""
        lines = [f"{namespace}: the options of the collection ({self.options})."] if self.options else []
        return lines + [f"{namespace}: the index {name} ({why})." for name, why in self.indexes]


def try_definition(client: Client, database: str, definition: CollectionMetadata) -> Refused | None:
    """Make an empty collection with the options and the unusual indexes of `definition`, and drop it again.

    None where the server takes them all.  Raises the driver's errors, but for a refusal.
    """
    options = options_for_create(definition.options)
    indexes = [index for index in indexes_for_create(definition.indexes) if not _plain(index)]
    if not options and not indexes:
        return None
    refused_options, refused = "", []
    try:
        refused_options = _attempt(client, database, {"create": _PROBE, **options})
        if refused_options:
            client[database].command({"create": _PROBE})
        for index in indexes:
            command = {"createIndexes": _PROBE, "indexes": [index_for_create(index)]}
            if why := _attempt(client, database, command):
                refused.append((str(index["name"]), why))
    finally:
        client[database].drop_collection(_PROBE)
    return Refused(refused_options, tuple(refused)) if refused_options or refused else None


def _attempt(client: Client, database: str, command: dict[str, Any]) -> str:
    try:
        client[database].command(command)
    except OperationFailure as problem:
        # A server that is away, or a right that is missing, says nothing about the definition.
        if isinstance(explain(problem, ""), TemporaryError | ForbiddenError | UnauthorizedError):
            raise
        details = problem.details or {}
        return f"code {problem.code} {details.get('codeName', '')}".strip()
    return ""


def _plain(index: Mapping[str, Any]) -> bool:
    return index.keys() <= _PLAIN_INDEX and all(isinstance(way, int | float) for way in index["key"].values())


def try_definitions(client: Client, database: str, definitions: Iterable[CollectionMetadata]) -> dict[str, Refused]:
    """By the collection's name, what the server would not take; views are not tried."""
    found = {}
    for definition in definitions:
        if "viewOn" not in definition.options and (refused := try_definition(client, database, definition)):
            found[definition.name] = refused
    return found
