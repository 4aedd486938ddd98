"""The way to the database, and what goes wrong on it told without a secret.

No text of the driver or of the server is passed on: both may quote the URI.
An error is built from its kind, its code and the hosts alone.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pymongo import MongoClient
from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    CursorNotFound,
    ExecutionTimeout,
    InvalidName,
    InvalidURI,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from tasks.database.rights import missing
from tasks.domain.errors import (
    ForbiddenError,
    TemporaryError,
    UnauthorizedError,
    UpgradeError,
    UsageError,
)

Client = MongoClient[dict[str, Any]]

REPLY_TIMEOUT = 120.0
"""Seconds to wait for one reply: a batch of 16 MiB from a busy disk takes its time."""

_SCHEMES = ("mongodb://", "mongodb+srv://")
_UNAUTHORIZED, _AUTHENTICATION_FAILED, _USER_NOT_FOUND, _MECHANISM_UNAVAILABLE = 13, 18, 11, 334
# The server's own error_codes.yml: shutdown, step-down, network, killed plans and lost cursors.
_NEXT_WITHOUT_A_RIGHT = (
    "Give the user a role that may: `backup` in the database admin for backups, `readWrite` and `dbAdmin` on the Apinizer "
    "database for restores. The server's log names the action that was refused."
)
_PASSING = {6, 7, 43, 89, 91, 112, 175, 189, 202, 237, 262, 9001, 10107, 11600, 11602, 13435, 13436}
_CAUSES = (
    (r"certificate|SSL|TLS", "the TLS handshake failed ({})"),
    (r"refused", "the connection was refused: nothing listens there"),
    (r"name resolution|Name or service|nodename|No address|getaddrinfo|DNS|not known", "the host name is not known"),
    (r"No route|unreachable", "there is no route to it"),
    (r"timed out|No servers found yet|No replica set members found yet", "it did not answer in time"),
    (r"closed|reset|Broken pipe", "it closed the connection (a server that wants TLS does so, and one that stops)"),
)  # fmt: skip
_TLS_REASONS = (
    "self-signed certificate",
    "unable to get local issuer certificate",
    "certificate has expired",
    "hostname mismatch",
    "IP address mismatch",
    "WRONG_VERSION_NUMBER",
)


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """A look at a server and one database of it; `size` is bytes of documents before compression.

    `exists` is false, and size and collections 0, where the server holds no such database; size is 0 too where
    this user may not ask for it, which the role `backup` alone does not allow.
    """

    server_version: str
    is_primary: bool
    set_name: str
    exists: bool
    size: int
    collections: int


@contextmanager
def open_database(uri: str, *, timeout: float = 10.0, reply_timeout: float = REPLY_TIMEOUT) -> Iterator[Client]:
    """A client that has reached a server and was let in; `timeout` and `reply_timeout` are seconds.

    Driver errors that leave the `with` block become UsageError (a URI that is none), UnauthorizedError,
    ForbiddenError, TemporaryError (down, unreachable, no primary, DNS, TLS) or UpgradeError.
    """
    hosts = hosts_of(uri)
    try:
        with _client(uri, timeout, reply_timeout) as client:
            client.admin.command("ping")
            yield client
    except PyMongoError as problem:
        raise explain(problem, hosts, with_credentials="@" in uri) from None


def _client(uri: str, timeout: float, reply_timeout: float) -> Client:
    milliseconds = max(2, round(timeout * 1000))
    try:
        return MongoClient[dict[str, Any]](
            uri,
            appname="apinizer-upgrade",
            # Shorter than the selection, so that the reason for a failed connection is known when it ends.
            connectTimeoutMS=milliseconds // 2,
            serverSelectionTimeoutMS=milliseconds,
            socketTimeoutMS=max(1, round(reply_timeout * 1000)),
            tz_aware=True,
        )
    except (ValueError, TypeError):  # The driver's InvalidURI is no ValueError, its complaint about ports is.
        raise _bad_uri("A port or another number in it does not fit.") from None


def look(uri: str, database: str, *, timeout: float = 10.0) -> DatabaseFacts:
    """Reach the server, log in and look at `database`.  Raises as `open_database` does."""
    with open_database(uri, timeout=timeout) as client:
        return facts(client, database)


def facts(client: Client, database: str) -> DatabaseFacts:
    """Look at `database` through a client that is open."""
    hello = client.admin.command("hello")
    build = client.admin.command("buildInfo")
    names = [
        entry["name"] for entry in client[database].command("listCollections", nameOnly=True)["cursor"]["firstBatch"]
    ]
    statistics = _statistics(client, database) if names else {}
    return DatabaseFacts(
        server_version=str(build["version"]),
        is_primary=bool(hello.get("isWritablePrimary", hello.get("ismaster", False))),
        set_name=str(hello.get("setName", "")),
        exists=bool(names),
        size=int(statistics.get("dataSize", 0)),
        collections=len(names),
    )


def _statistics(client: Client, database: str) -> dict[str, Any]:
    try:
        return client[database].command("dbStats")
    except OperationFailure as problem:
        if problem.code != _UNAUTHORIZED:
            raise
        return {}


def hosts_of(uri: str) -> str:
    """The hosts of a URI, `host:port,host:port`, without user, password, database and options.

    Raises UsageError for what is no MongoDB URI, or one whose password is not percent-encoded so that its
    hosts cannot be told from its secret.
    """
    scheme = next((scheme for scheme in _SCHEMES if uri.startswith(scheme)), None)
    if scheme is None:
        raise _bad_uri("It does not start with mongodb:// or mongodb+srv://.")
    authority = re.split(r"[/?]", uri.removeprefix(scheme), maxsplit=1)[0]
    user, _, hosts = authority.rpartition("@")
    rest = uri.removeprefix(scheme).removeprefix(authority)
    if "@" in user or "@" in rest or user.count(":") > 1:
        raise _bad_uri("User or password hold a character that must be percent-encoded (: as %3A, / as %2F, @ as %40).")
    if not hosts:
        raise _bad_uri("It names no host.")
    # The driver only warns of this one and goes on without TLS; options it does not know may be another driver's.
    if re.search(r"[?&](?:tls|ssl)=(?!(?:true|false)(?:&|$))", rest, re.IGNORECASE):
        raise _bad_uri("Its option tls is neither true nor false.")
    return hosts


def explain(problem: PyMongoError, hosts: str, *, with_credentials: bool = True) -> UpgradeError:
    """The driver's error in this project's words; `hosts` is what `hosts_of` gives."""
    if isinstance(problem, OperationFailure):
        return _refused(problem, hosts, with_credentials=with_credentials)
    if isinstance(problem, InvalidURI | InvalidName):
        return _bad_uri(f"The driver does not take it ({type(problem).__name__}).")
    if isinstance(problem, ConfigurationError):
        if re.search(r"DNS|resolution", str(problem)):
            return _away(hosts, "the DNS has no record of it")
        return _bad_uri("An option in it is unknown or has a value that does not fit.")
    if isinstance(problem, NotPrimaryError):
        return _away(hosts, "it is not the primary any more")
    if isinstance(problem, ConnectionFailure):
        return _away(hosts, _cause(problem))
    return UpgradeError(
        f"The database at {hosts} could not be used.",
        observed=f"The driver failed with {type(problem).__name__}.",
        next="Look at the database server's log for this moment.",
    )


def _refused(problem: OperationFailure, hosts: str, *, with_credentials: bool) -> UpgradeError:
    code = problem.code or 0
    name = (problem.details or {}).get("codeName", "")
    told = f"The server answered with code {code}" + (f" ({name})." if isinstance(name, str) and name else ".")
    login = code in {_AUTHENTICATION_FAILED, _USER_NOT_FOUND, _MECHANISM_UNAVAILABLE}
    if login or (code == _UNAUTHORIZED and not with_credentials):
        return UnauthorizedError(
            f"The database at {hosts} refused the login.",
            observed=told,
            next="Check user, password and authSource (usually admin) of the database connection.",
        )
    if code == _UNAUTHORIZED:
        found = missing(str((problem.details or {}).get("errmsg", "")))
        return ForbiddenError(
            f"The database user may not do this at {hosts}.",
            observed=f"{told} {found.observed}" if found else told,
            next=found.next if found else _NEXT_WITHOUT_A_RIGHT,
        )
    if code in _PASSING or isinstance(problem, CursorNotFound | ExecutionTimeout):
        return _away(hosts, told.rstrip("."))
    return UpgradeError(
        f"The database at {hosts} refused a command.",
        observed=told,
        next="Look the code up in the server's documentation and its log.",
    )


def _away(hosts: str, cause: str) -> TemporaryError:
    return TemporaryError(
        f"The database at {hosts} cannot be used now.",
        observed=f"{cause[:1].upper()}{cause[1:]}.",
        next="Check that it runs, that it has a primary, and that it can be reached from here; then try again.",
    )


def _cause(problem: ConnectionFailure) -> str:
    text = str(problem)
    for pattern, cause in _CAUSES:
        if re.search(pattern, text):
            return cause.format(next((reason for reason in _TLS_REASONS if reason in text), "no reason given"))
    if isinstance(problem, ServerSelectionTimeoutError):
        return "no member of the replica set says that it is the primary"
    return "the connection was lost"


def _bad_uri(observed: str) -> UsageError:
    return UsageError(
        "The database's address is not a MongoDB URI that can be used.",
        observed=observed,
        next="Write it as mongodb://USER:PASSWORD@HOST:25080/?authSource=admin, user and password percent-encoded.",
    )
