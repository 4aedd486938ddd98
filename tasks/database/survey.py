"""What a backup is to take: the collections of its scope, how large they are, and whether they may be read."""

from collections.abc import Iterable
from typing import Any

from pymongo.errors import OperationFailure

from tasks.database.archive.format import Namespace
from tasks.database.connection import Client
from tasks.database.listing import Collection, Session, collections
from tasks.database.scope import Scope
from tasks.domain.errors import ForbiddenError, NotFoundError, TemporaryError

UNAUTHORIZED = 13
# FailedToParse, InvalidOptions, CommandNotSupported, ReadConcernMajorityNotEnabled: a server without it.
_NO_MAJORITY = {9, 72, 115, 148}


def databases(client: Client, session: Session, scope: Scope) -> list[str]:
    """The databases to archive, sorted.  Raises ForbiddenError where this user may not see all of them."""
    if not scope.whole_server:
        return sorted(set(scope.databases))
    # Without `authorizedDatabases: false` a server leaves out in silence what this user may not see.
    command = {"listDatabases": 1, "nameOnly": True, "authorizedDatabases": False}
    try:
        answer = client.admin.command(command, session=session)
    except OperationFailure as problem:
        if problem.code != UNAUTHORIZED:
            raise
        raise _forbidden("list the server's databases") from None
    return sorted(name for entry in answer["databases"] if scope.takes_database(name := str(entry["name"])))


def look(client: Client, session: Session, scope: Scope, server: tuple[int, ...]) -> list[Collection]:
    """Every collection, view and time series that is there, those to leave out included, in the order of names.

    Raises ForbiddenError.
    """
    found: list[Collection] = []
    for database in databases(client, session, scope):
        try:
            there = collections(client, session, database, server)
        except OperationFailure as problem:
            if problem.code != UNAUTHORIZED:
                raise
            raise _forbidden(f"list the collections of {database}") from None
        found += there
    return found


def check_there(scope: Scope, found: Iterable[Collection]) -> None:
    """Raises NotFoundError for a database that was asked for and is not there, or where nothing is there at all."""
    there = {collection.entry.namespace.db for collection in found}
    if missing := [name for name in scope.databases if name not in there]:
        raise NotFoundError(
            f"The server has no database {', '.join(missing)}.",
            next="Check the database's name (dbName in the secret mongo-db-credentials, usually apinizerdb).",
        )
    if not there:
        raise NotFoundError("The server holds nothing that a backup could take.", next="Check the database's address.")


def sizes(client: Client, session: Session, found: Iterable[Collection]) -> dict[Namespace, int]:
    """Bytes of documents of each collection that holds some, 0 where the server does not tell."""
    return {c.namespace: _size(client, session, c.data) for c in found if c.data is not None}


def check_readable(client: Client, session: Session, found: Iterable[Collection]) -> str:
    """Read a document of one collection of each database, all of `admin` and all of `system.`: the read concern, `majority` or `local`.

    Rights are given by database, but for these (builtin_roles.cpp: buckets are no normal resource).  Raises ForbiddenError, naming the
    collection and the role, before hours are spent on others.
    """
    concern = "majority"
    seen: set[str] = set()
    for data in (collection.data for collection in found):
        # The buckets of a time series are no collection that readWrite reaches.
        special = data is not None and (data.db == "admin" or data.collection.startswith("system."))
        if data is not None and (special or data.db not in seen):
            seen |= set() if special else {data.db}
            concern = _readable(client, session, data, concern)
    return concern


def check_same(before: Iterable[Collection], after: Iterable[Collection]) -> list[str]:
    """Hold two looks against each other: the names of collections that were made in between.

    Options, identity, indexes and names are compared.  A collection that was dropped reads as an empty one:
    only a second look can tell.  Raises TemporaryError where one is gone or is another now.
    """
    then = {collection.entry.namespace: collection.entry for collection in before}
    now = {collection.entry.namespace: collection.entry for collection in after}
    if changed := sorted(namespace for namespace, entry in then.items() if now.get(namespace) != entry):
        raise TemporaryError(
            "Collections were dropped or changed, or their indexes were, while they were read.",
            observed=", ".join(map(str, changed)),
            safe="Nothing was changed; the unfinished file was removed.",
            next="Try again when nobody changes collections.",
        )
    return [str(namespace) for namespace in sorted(now.keys() - then.keys())]


def refused(namespace: Namespace) -> ForbiddenError:
    """The error for a collection that this user may not read."""
    return _forbidden(f"read {namespace}")


def _size(client: Client, session: Session, data: Namespace) -> int:
    try:
        return int(client[data.db].command("collStats", data.collection, session=session).get("size", 0))
    except OperationFailure:
        return 0


def _readable(client: Client, session: Session, data: Namespace, concern: str) -> str:
    probe: dict[str, Any] = {
        "find": data.collection,
        "limit": 1,
        "singleBatch": True,
        "readConcern": {"level": concern},
    }
    try:
        client[data.db].command(probe, session=session)
    except OperationFailure as problem:
        if problem.code == UNAUTHORIZED:
            raise refused(data) from None
        if concern == "local" or problem.code not in _NO_MAJORITY:
            raise
        return _readable(client, session, data, "local")
    return concern


def _forbidden(what: str) -> ForbiddenError:
    return ForbiddenError(
        f"The database user may not {what}.",
        observed=f"The server answered with code {UNAUTHORIZED} (Unauthorized).",
        next="Give the user the role `backup` in the database admin, or back up the Apinizer database alone.",
    )
