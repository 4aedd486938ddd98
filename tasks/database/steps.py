"""The database's part of a run as Prefect tasks: find it, reach it, back it up, prove the backup, let old ones go."""

import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from prefect import task

from tasks.cluster.database_secret import DatabaseAddress
from tasks.cluster.session import connected
from tasks.database.backing_up import make_backup, require_lasting
from tasks.database.connection import hosts_of, open_database
from tasks.database.dump import DumpProgress
from tasks.database.environments import named_environments
from tasks.database.manifest import Need
from tasks.database.needed import archives_in, pin, release
from tasks.database.order import BackupOrder
from tasks.database.proof import Proof, prove
from tasks.database.rehearsal import SCRATCH, Rehearsal, rehearse
from tasks.database.restore.state import require_none_half_done
from tasks.database.retention import named_by
from tasks.database.source import (
    UNKNOWN,
    DatabaseSource,
    address_of,
    elsewhere,
    find_source,
    rehearsal_uri,
    require_database,
)
from tasks.database.sweep import remove_old
from tasks.domain.amounts import megabytes
from tasks.domain.errors import TemporaryError, UnprovenError, UpgradeError
from tasks.domain.inventory import DeploymentKey, Facts
from tasks.domain.journal import BackupMade
from tasks.domain.plan_text import table
from tasks.record import stopping
from tasks.record.artifacts import keep_page
from tasks.record.feed import State
from tasks.record.journal_search import find_stores
from tasks.record.shares import ShareTold
from tasks.record.task_rules import LOOKS, PATIENT
from tasks.record.telling import failure_told, tell

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

    def noted(self, address: DatabaseAddress, version: str, made: datetime) -> BackupMade:
        """As a journal has it: of the database at `address`, with Apinizer's `version`, proved at the time `made`."""
        return BackupMade(
            host=self.host,
            archive=self.archive,
            sha256=self.sha256,
            documents=self.documents,
            database=address.name,
            hosts=tuple(sorted(hosts_of(address.uri.get_secret_value()).split(","))),
            version=version,
            made=made,
        )


@task(name="database found", task_run_name="installation", **LOOKS)
def find_database(installation: str, version: str) -> DatabaseSource:
    """Which manager's database it is, and the version that a backup is named by: `version`, or the manager's own."""
    found = find_source(connected(installation), version, lambda sentence: tell("installation", State.LOG, sentence))
    tell(
        "installation", State.DONE, f"the manager's version is {found.version}" if found.manager else "by the settings"
    )
    return found


@task(name="backup place", task_run_name="backup place", **LOOKS)
def check_place(order: BackupOrder) -> None:
    """Raise `BlockedError` where the backup would not outlive this worker."""
    with failure_told("backup"):
        if warning := require_lasting(order):
            tell("backup", State.LOG, warning)


@task(name="database reachable", task_run_name="database", **PATIENT)
def reach_database(
    installation: str, manager: DeploymentKey | None, environments: tuple[str, ...], ssh: str = ""
) -> DatabaseLook:
    """Log in, see that the database is there; `environments` are those that the clusters show.

    Where a machine is named for SSH the database may answer only there: being away is then no failure.
    """
    tell("database", State.RUNNING, "logging in")
    address = address_of(connected(installation), manager)
    try:
        if not elsewhere(address, ssh):
            return _look(address, environments)
    except TemporaryError:
        if not ssh:
            raise
    tell("database", State.DONE, f"{address.name} does not answer on this machine; {ssh} is asked")
    return DatabaseLook(name=address.name, server_version=UNKNOWN, collections=0, size=0)


def _look(address: DatabaseAddress, environments: tuple[str, ...]) -> DatabaseLook:
    with failure_told("database"), open_database(address.uri.get_secret_value(), timeout=LOGIN_SECONDS) as client:
        seen = require_database(client, address)
        require_none_half_done(client, address.name)
        unseen = named_environments(client[address.name], environments) if environments else []
    tell(
        "database",
        State.DONE,
        f"{address.name} on MongoDB {seen.server_version}: {seen.collections} collections, {megabytes(seen.size)}",
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


@task(name="backup", task_run_name="backup {version}", **PATIENT)
def back_up(
    installation: str, manager: DeploymentKey | None, order: BackupOrder, version: str, upgrade_to: str = ""
) -> str:
    """Write the archive; its path.  Nothing that looks like a backup stays where it fails.

    One for an upgrade is kept whatever the order says, until an upgrade of the installation was completed.
    """
    address = address_of(connected(installation), manager)
    shares = ShareTold("backup", f"Backup of {address.name}")

    def progress(at: DumpProgress) -> None:
        text = f"{at.collection}: {at.documents} documents, {megabytes(at.bytes_read)} read"
        shares.show(at.bytes_read, at.bytes_expected, text)

    what = "the whole server" if order.whole_server else address.name
    tell("backup", State.RUNNING, f"{what} into {order.directory}")
    with failure_told("backup"):
        evidence = make_backup(
            address,
            order,
            version,
            progress=progress,
            stop=stopping.asked,
            say=lambda sentence: tell("backup", State.LOG, sentence),
        )
        if upgrade_to:
            pin(evidence.archive, need_of(address, "upgrade", version=upgrade_to))
    for note in evidence.manifest.notes:
        tell("backup", State.LOG, note)
    shares.complete(evidence.archive.name)
    tell("backup", State.DONE, f"{evidence.archive}")
    return str(evidence.archive.resolve())


@task(name="backup proved", task_run_name="backup proved", **LOOKS)
def prove_backup(archive: str) -> BackupResult:
    """Read the archive back whole: every checksum, count and index definition."""
    with failure_told("proof"):
        proof = told_proof(Path(archive))
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
    rows = ((f"{n.db}.{n.collection}", n.documents, n.bytes) for n in proof.namespaces)
    keep_page(
        "backup",
        f"# Backup\n\n`{result.archive}` on {result.host}, SHA-256 `{result.sha256}`\n\n"
        + table(("Collection", "Documents", "Bytes"), rows),
        "The database, read back whole",
    )
    return result


def told_proof(archive: Path) -> Proof:
    """Read an archive back, told as the subject "proof"."""
    tell("proof", State.RUNNING, str(archive))
    shares = ShareTold("proof")
    proof = prove(
        archive, progress=lambda done, total: shares.show(done, total, "reading it back"), stop=stopping.asked
    )
    for sentence in (*proof.unproven, *proof.untried, *proof.notes):
        tell("proof", State.LOG, sentence)
    tell(
        "proof",
        State.DONE,
        f"{proof.documents} documents in {len(proof.namespaces)} collections, {megabytes(proof.size)}, every checksum right",
    )
    return proof


@task(name="archive proved", task_run_name="archive proved", **LOOKS)
def prove_archive(archive: str) -> Proof:
    """Read any archive back whole, with or without a manifest beside it."""
    with failure_told("proof"):
        return told_proof(Path(archive))


@task(name="rehearsal", task_run_name="rehearsal", **PATIENT)
def rehearse_archive(installation: str, manager: DeploymentKey | None, archive: str, scratch: str) -> Rehearsal:
    """Restore the archive into a scratch database, on the second server where there is one; compare, and drop it."""
    connections = connected(installation)
    tell("rehearsal", State.RUNNING, "into a scratch database")
    shares = ShareTold("rehearsal", "Rehearsal")
    with (
        failure_told("rehearsal"),
        open_database(rehearsal_uri(connections, manager).get_secret_value()) as client,
    ):
        done = rehearse(
            Path(archive),
            client,
            scratch=scratch or SCRATCH,
            progress=lambda at: shares.show(at.bytes_done, at.bytes_expected, f"{at.phase} {at.collection}"),
            stop=stopping.asked,
        )
    shares.complete("done")
    for sentence in (*done.unproven, *done.notes):
        tell("rehearsal", State.LOG, sentence)
    record = done.record
    tell("rehearsal", State.DONE, f"{record.documents} documents in {record.collections} collections came back equal")
    return done


@task(name="old backups", task_run_name="old backups", **LOOKS)
def retire_backups(order: BackupOrder, needed: BackupResult, installation: str) -> tuple[str, ...]:
    """Remove what the order does not keep; the names removed.  What cannot be removed is told, and fails nothing.

    What an unfinished run needs by its journal stays, whatever its mark says: where the journals of a cluster cannot be
    read, nothing is removed.
    """
    if order.keep is None and order.keep_days is None:
        return ()
    try:
        removed = remove_old(
            Path(needed.archive).parent,
            keep=order.keep,
            days=order.keep_days,
            named=frozenset({needed.archive, needed.sha256}) | _named_by_runs(installation),
        )
    except UpgradeError as error:
        tell("backup", State.LOG, f"{error.happened} {error.observed}")
        return ()
    for backup in removed:
        tell("backup", State.LOG, f"The old backup {backup.archive.name} was removed.")
    return tuple(backup.archive.name for backup in removed)


def _named_by_runs(installation: str) -> frozenset[str]:
    connections = connected(installation)
    if not connections.apis:  # a backup by an address: the marks beside the backups are all there is to go by
        return frozenset()
    try:
        return named_by(journal for store in find_stores(connections) for journal in store.all())
    except UpgradeError as unread:
        raise UpgradeError(
            "No old backup was removed: which of them an unfinished run needs could not be read.",
            observed=f"{unread.happened} {unread.observed}".strip(),
        ) from None


def need_of(address: DatabaseAddress, run: Literal["upgrade", "restore"], **more: str) -> Need:
    """The mark of a run on the backups that it relies on."""
    hosts = hosts_of(address.uri.get_secret_value())
    return Need(run=run, database=address.name, hosts=hosts, since=datetime.now(UTC), **more)


def release_after_upgrade(installation: str, manager: DeploymentKey, directory: str, made: BackupMade | None) -> None:
    """An upgrade was completed: nothing before it is needed for going on.  What cannot be unmarked is told.

    `made` is its backup: whose database that is of is in the journal, so an API server that is away keeps no mark.
    None begins while a restore is half done, so their marks go too.
    """
    if made is not None:
        database, hosts = made.database, made.hosts
    else:
        try:
            done = need_of(address_of(connected(installation), manager), "upgrade")
        except UpgradeError as error:
            tell("backup", State.LOG, f"Backups stay marked as needed: {error.happened}")
            return
        database, hosts = done.database, tuple(done.hosts.split(","))
    for sentence in release(archives_in(Path(directory)), lambda need: need.is_of(database, hosts)):
        tell("backup", State.LOG, sentence)
