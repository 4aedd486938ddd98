"""The database's part of a run as Prefect tasks."""

import socket
from pathlib import Path

from prefect import task

from tasks.cluster.database_secret import DatabaseAddress, database_address
from tasks.cluster.session import connected
from tasks.database.connection import facts, open_database
from tasks.database.dump import DumpProgress, dump
from tasks.database.environments import named_environments
from tasks.database.proof import prove
from tasks.domain.errors import NotFoundError, UnprovenError
from tasks.domain.inventory import DeploymentKey, Facts, Inventory
from tasks.domain.plan_text import table
from tasks.record import stopping
from tasks.record.artifacts import Gauge, keep_page
from tasks.record.feed import Event, State, publish
from tasks.record.task_rules import LOOKS
from tasks.record.telling import tell

MEGABYTE = 1_000_000
LOGIN_SECONDS = 6.0  # for each try: a person waits


class DatabaseLook(Facts):
    """What the database said of itself; `unseen` are sentences about environments that only it names."""

    name: str
    server_version: str
    collections: int
    size: int
    unseen: tuple[str, ...] = ()


class BackupResult(Facts):
    """A backup that was read back whole: where it is, on which host, and its SHA-256."""

    host: str
    archive: str
    sha256: str
    size: int
    documents: int
    namespaces: int

    @property
    def where(self) -> str:
        """For messages: the path, and the host it is on."""
        return f"{self.archive} on {self.host}"


@task(name="database reachable", task_run_name="database", **{**LOOKS, "retries": 2})
def reach_database(installation: str, manager: DeploymentKey, inventory: Inventory) -> DatabaseLook:
    """Log in, see that this is the primary and that the database is there."""
    tell("database", State.RUNNING, "logging in")
    address = _address(installation, manager)
    with open_database(address.uri.get_secret_value(), timeout=LOGIN_SECONDS) as client:
        seen = facts(client, address.name)
        if not seen.exists:
            raise NotFoundError(
                f"The server has no database {address.name}.",
                observed=f"Its address is from {address.source}; a manager reads its settings there.",
                next="Check the database's name (database: name in the configuration, dbName in the secret).",
            )
        unseen = named_environments(client[address.name], inventory.environments)
    tell(
        "database",
        State.DONE,
        f"{address.name} on MongoDB {seen.server_version}: {seen.collections} collections, {_megabytes(seen.size)}",
    )
    for sentence in unseen:
        tell("database", State.LOG, sentence)
    return DatabaseLook(
        name=address.name,
        server_version=seen.server_version,
        collections=seen.collections,
        size=seen.size,
        unseen=tuple(unseen),
    )


@task(name="backup", task_run_name="backup {version}", **LOOKS)
def back_up(installation: str, manager: DeploymentKey, directory: str, version: str) -> str:
    """Write the archive; its path.  Nothing that looks like a backup stays where it fails."""
    address = _address(installation, manager)
    gauge = Gauge("backup", f"Backup of {address.name}")
    told = -1

    def progress(at: DumpProgress) -> None:
        nonlocal told
        share = min(at.bytes_read / at.bytes_expected, 1.0) if at.bytes_expected else 0.0
        if int(share * 20) > told:
            told = int(share * 20)
            text = f"{at.collection}: {at.documents} documents, {_megabytes(at.bytes_read)} read"
            publish(Event("backup", State.RUNNING, text, share))
            gauge.show(share, text)

    tell("backup", State.RUNNING, f"{address.name} into {directory}")
    with open_database(address.uri.get_secret_value()) as client:
        evidence = dump(
            client,
            address.name,
            Path(directory),
            apinizer_version=version,
            progress=progress,
            stop=stopping.asked,
        )
    tell("backup", State.DONE, f"{evidence.archive}")
    return str(evidence.archive.resolve())


@task(name="backup proved", task_run_name="backup proved", **LOOKS)
def prove_backup(archive: str) -> BackupResult:
    """Read the archive back whole: every checksum, count and index definition."""
    tell("proof", State.RUNNING, archive)
    proof = prove(
        Path(archive),
        progress=lambda done, total: publish(Event("proof", State.RUNNING, "reading it back", done / max(total, 1))),
        stop=stopping.asked,
    )
    if not proof.against_manifest:
        raise UnprovenError(
            "The backup's manifest is gone, so its counts cannot be held against what was dumped.",
            observed=f"Beside {archive}.",
            next="See who clears that folder, and run again: a new backup is made.",
        )
    result = BackupResult(
        host=socket.gethostname(),
        archive=archive,
        sha256=proof.sha256,
        size=proof.size,
        documents=proof.documents,
        namespaces=len(proof.namespaces),
    )
    rows = ((n.collection, n.documents, n.bytes) for n in proof.namespaces)
    keep_page(
        "backup",
        f"# Backup\n\n`{result.archive}` on {result.host}, SHA-256 `{result.sha256}`\n\n"
        + table(("Collection", "Documents", "Bytes"), rows),
        "The database before the upgrade, read back whole",
    )
    tell(
        "proof",
        State.DONE,
        f"{result.documents} documents in {result.namespaces} collections, {_megabytes(result.size)}, every checksum right",
    )
    return result


def _address(installation: str, manager: DeploymentKey) -> DatabaseAddress:
    connections = connected(installation)
    return database_address(connections.settings.database, connections.apis[manager.cluster], manager.namespace)


def _megabytes(count: int) -> str:
    return f"{count / MEGABYTE:.1f} MB"
