"""The server as it is seen from here before and after a tool read it.

A tool reads a collection that was dropped meanwhile as an empty one and says nothing: only a second look can tell.
"""

from dataclasses import dataclass

from pydantic import SecretStr
from pymongo.errors import OperationFailure

from tasks.database.archive.format import Namespace
from tasks.database.connection import Client, facts, open_database
from tasks.database.listing import identities
from tasks.database.manifest import SourceRecord
from tasks.database.primary import Primary, primary, source, still
from tasks.database.restore.names import is_own
from tasks.database.scope import Scope
from tasks.database.tools.address import Address
from tasks.database.tools.find import Tool
from tasks.domain.errors import NotFoundError, TemporaryError

Identities = dict[Namespace, tuple[str, bytes]]

_LOOK_SECONDS = 6.0
_UNAUTHORIZED = 13


@dataclass(frozen=True, slots=True)
class Standing:
    """The primary, where a backup of it is from, bytes of documents, and each collection's UUID and options."""

    primary: Primary
    source: SourceRecord
    size: int
    collections: Identities

    @property
    def replicated(self) -> bool:
        """Whether it has an oplog that a tool can take."""
        return bool(self.primary.set_name) and not self.primary.router


def look_from_here(tool: Tool, address: Address, uri: SecretStr, scope: Scope) -> Standing | None:
    """The server, None where only the tool's own machine reaches it.

    Raises UsageError (not the primary), NotFoundError (no such database), and as `open_database` does.
    """
    if tool.ssh and address.loopback:
        return None
    try:
        with open_database(uri.get_secret_value(), timeout=_LOOK_SECONDS) as client:
            seen = primary(client)
            names = _databases(client, scope)
            size = sum(facts(client, name).size for name in names)
            standing = Standing(seen, source(client, seen), size, _collections(client, names))
    except TemporaryError:
        if tool.ssh:
            return None
        raise
    for name in scope.databases:
        if not any(namespace.db == name for namespace in standing.collections):
            raise NotFoundError(
                f"The server has no database {name}.",
                next="Check the database's name (dbName in the secret mongo-db-credentials, usually apinizerdb).",
            )
    return standing


def changes_since(uri: SecretStr, before: Standing, scope: Scope, *, safe: str) -> list[str]:
    """Sentences on what was made meanwhile.

    Raises TemporaryError where the primary changed, or a collection of `scope` was dropped or made anew.
    """
    with open_database(uri.get_secret_value(), timeout=_LOOK_SECONDS) as client:
        still(client, before.primary)
        after = _collections(client, _databases(client, scope))
    asked = {namespace: one for namespace, one in before.collections.items() if scope.takes(namespace)}
    if changed := sorted(str(namespace) for namespace, one in asked.items() if after.get(namespace) != one):
        raise TemporaryError(
            "Collections were dropped or changed while mongodump read them.",
            observed=", ".join(changed),
            safe=safe,
            next="Try again when nobody changes collections.",
        )
    new = sorted(str(name) for name in after.keys() - before.collections.keys() if scope.takes(name))
    return [f"Made during the backup and perhaps not in it: {', '.join(new)}."] if new else []


def _databases(client: Client, scope: Scope) -> list[str]:
    """The databases of `scope`; of a whole server none where this user may not list them."""
    if not scope.whole_server:
        return list(scope.databases)
    try:
        return [name for name in client.list_database_names() if scope.takes_database(name)]
    except OperationFailure as problem:
        if problem.code != _UNAUTHORIZED:
            raise
        return []


def _collections(client: Client, databases: list[str]) -> Identities:
    found: Identities = {}
    with client.start_session() as session:
        for database in databases:
            for name, identity in identities(client, session, database).items():
                if not is_own(name):
                    found[Namespace(database, name)] = identity
    return found
