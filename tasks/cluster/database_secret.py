"""Where the database is: as the settings say, else as the manager's own secret does."""

import base64
import binascii
from dataclasses import dataclass

from pydantic import SecretStr

from blocks.settings import DATABASE_NAME, DatabaseSettings
from tasks.cluster.api import KubernetesApi
from tasks.domain.errors import ForbiddenError, NotFoundError, UsageError

URL_KEY = "dbUrl"
NAME_KEY = "dbName"


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """A MongoDB URI, kept as a secret, the database's name, and where the two were read."""

    uri: SecretStr
    name: str
    source: str


def database_address(settings: DatabaseSettings, api: KubernetesApi, namespace: str) -> DatabaseAddress:
    """The address; `api` and `namespace` are the manager's, whose secret is read when the settings name no server.

    Raise `NotFoundError`, `ForbiddenError` or `UsageError` where the secret is not there, may not be read, or
    does not hold what it should.
    """
    if settings.given_uri() is not None:
        return given_address(settings)
    where = f"secret {namespace}/{settings.secret}"
    hint = "Give the database in the configuration (database: uri or host)."
    try:
        data = api.get(f"/api/v1/namespaces/{namespace}/secrets/{settings.secret}").get("data") or {}
    except NotFoundError as error:
        raise NotFoundError(f"The {where} does not exist.", observed=error.observed, next=hint) from None
    except ForbiddenError as error:
        raise ForbiddenError(
            f"The {where} may not be read.", observed=error.observed, next=f"{error.next}\nOr: {hint}"
        ) from None
    uri = _decoded(data.get(URL_KEY), where, URL_KEY)
    if not uri:
        raise UsageError(
            f"The {where} has no {URL_KEY}.", observed=f"Its keys: {', '.join(sorted(data)) or 'none'}.", next=hint
        )
    name = settings.name or _decoded(data.get(NAME_KEY), where, NAME_KEY) or DATABASE_NAME
    return DatabaseAddress(SecretStr(uri), name, f"the {where}")


def given_address(settings: DatabaseSettings) -> DatabaseAddress:
    """The address that the settings themselves give; raise `UsageError` where they name no server."""
    given = settings.given_uri()
    if given is None:
        raise UsageError(
            "It is not known where the database is.",
            observed="The settings name no server, and no cluster with a manager's secret is asked.",
            next="Name it: --uri URI, or database: uri in the configuration.",
        )
    return DatabaseAddress(given, settings.name or DATABASE_NAME, "the settings")


def _decoded(value: str | None, where: str, key: str) -> str:
    try:
        return base64.b64decode(value or "", validate=True).decode().strip()
    except (binascii.Error, UnicodeDecodeError):
        raise UsageError(
            f"The {where} has a {key} that is not base64 text.",
            next=f"kubectl get {where.split(maxsplit=1)[0]} shows it; it may have been encoded twice or not at all.",
        ) from None
