"""Whose database it is, and where: from the settings, else from the manager's own secret."""

from collections.abc import Callable

from pydantic import SecretStr

from tasks.cluster.database_secret import DatabaseAddress, database_address, given_address
from tasks.cluster.planning import Connections
from tasks.database.connection import Client, DatabaseFacts, facts
from tasks.database.tools.address import parse
from tasks.domain.component import Component
from tasks.domain.errors import NotFoundError, UpgradeError, UsageError
from tasks.domain.inventory import DeploymentKey, Facts

UNKNOWN = "unknown"


class DatabaseSource(Facts):
    """The database's name, the manager that has its secret (None where the settings name the server), its version."""

    name: str
    manager: DeploymentKey | None
    version: str
    environments: tuple[str, ...] = ()


def find_source(
    connections: Connections, version: str = "", say: Callable[[str], None] = lambda _: None
) -> DatabaseSource:
    """Which manager's database it is, and the version that a backup is named by: `version`, or the manager's own.

    Raises NotFoundError, UsageError where the database's address is only in a secret and there is not one manager.
    """
    named = connections.settings.database.given_uri() is not None
    unasked = DatabaseSource(name="", manager=None, version=version or UNKNOWN)
    if not connections.apis:
        return unasked.model_copy(update={"name": address_of(connections, None).name})
    try:
        inventory = connections.inventory()
    except UpgradeError as error:
        if not named:
            raise
        # The settings name the server: a backup is worth more than its name.
        say(f"The cluster does not tell the version: {error.happened}")
        return unasked.model_copy(update={"name": address_of(connections, None).name})
    manager = inventory.manager
    if manager is None and not named:
        raise UsageError(
            "It is not known whose database is meant: the installation has not one manager.",
            observed=f"Managers found: {len(inventory.of(Component.MANAGER))}.",
            next="Name the database: --uri URI, or database: uri in the configuration.",
        )
    found = str(manager.version) if manager and manager.version else UNKNOWN
    key = manager.key if manager else None
    return DatabaseSource(
        name=address_of(connections, key).name,
        manager=key,
        version=version or found,
        environments=inventory.environments,
    )


def address_of(connections: Connections, manager: DeploymentKey | None) -> DatabaseAddress:
    """The database's address; raise `UsageError` where neither the settings nor a manager tell it."""
    settings = connections.settings.database
    if settings.given_uri() is not None or manager is None:
        return given_address(settings)
    return database_address(settings, connections.apis[manager.cluster], manager.namespace)


def elsewhere(address: DatabaseAddress, ssh: str) -> bool:
    """Whether the address means the machine that is named for SSH: a loopback address there is not this machine's."""
    return bool(ssh) and parse(address.uri.get_secret_value()).loopback


def require_database(client: Client, address: DatabaseAddress) -> DatabaseFacts:
    """A look at the database; raise `NotFoundError` where the server holds none of its name."""
    seen = facts(client, address.name)
    if not seen.exists:
        raise NotFoundError(
            f"The server has no database {address.name}.",
            observed=f"Its address is from {address.source}; a manager reads its settings there.",
            next="Check the database's name (database: name in the configuration, dbName in the secret).",
        )
    return seen


def rehearsal_uri(connections: Connections, manager: DeploymentKey | None) -> SecretStr:
    """Where backups are restored on trial: the second server, else beside the Apinizer database."""
    return connections.settings.backup.second_server or address_of(connections, manager).uri
