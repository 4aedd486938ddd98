"""The lock and the journal of a run as Prefect tasks: taken, begun or gone on with, the backup noted, closed."""

import secrets
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from prefect import task

from tasks.cluster.session import connected
from tasks.database.source import address_of
from tasks.database.steps import BackupResult, told_proof
from tasks.domain.component import Component
from tasks.domain.errors import BlockedError, DriftError, UnprovenError
from tasks.domain.inventory import DeploymentFacts, DeploymentKey, Inventory
from tasks.domain.journal import (
    BackupMade,
    Ended,
    Journal,
    Try,
    find_journal,
    planned_name,
    require_fits,
    require_goes_on,
    require_none_unfinished,
    run_id,
)
from tasks.domain.plan import Plan, PlanRequest
from tasks.record.feed import State
from tasks.record.journal_store import journal_store_for
from tasks.record.run_record import RunRecord, held_record
from tasks.record.task_rules import LOOKS
from tasks.record.telling import failure_told, tell

Options = Mapping[str, str | int | bool]
UPGRADE = "upgrade"
"""How what an upgrade does begins."""


@task(name="run found", task_run_name="run found", **LOOKS)
def find_run(installation: str, run: str) -> Journal:
    """The unfinished run of that ID, or the newest; read without the lock, so it is only what to ask for."""
    connections = connected(installation)
    journals = journal_store_for(connections, connections.inventory()).all()
    journal = find_journal(journals, run, unfinished=not run)
    require_goes_on(journal, journals)
    return journal


@task(name="lock", task_run_name="lock", **LOOKS)
def take_lock(installation: str, doing: str, run: str = "") -> tuple[Journal, ...]:
    """Take the installation's lock for the run of that ID (a new one if empty); the journals as they are from then on.

    Where there is no manager there is no place for the lock, and none is taken.  Where there are several an upgrade's
    plan tells of them; anything else would hold the lock of none, and raises `BlockedError`.
    """
    connections, record = connected(installation), held_record(installation)
    tell("lock", State.RUNNING, "looking for the manager")
    with failure_told("lock"):
        inventory = connections.inventory()
        manager = inventory.manager
        if manager is None:
            managers = inventory.of(Component.MANAGER)
            if managers and not doing.startswith(UPGRADE):
                raise _several(managers)
            tell("lock", State.LOG, "there is not exactly one manager, so no lock was taken")
            return ()
        identity = run or record.id or run_id(record.now(), secrets.token_hex(2))
        journals = record.take(connections.apis[manager.key.cluster], manager.key, identity, doing)
    tell("lock", State.DONE, f"run {record.id}")
    return journals


@task(name="nothing unfinished", task_run_name="nothing unfinished", **LOOKS)
def require_none_before(installation: str) -> None:
    """Raise `BlockedError` where a run is unfinished; close those that changed nothing."""
    record = held_record(installation)
    with failure_told("lock"):
        require_none_unfinished(record.journals)
        if record.locked:
            record.close_idle()


@task(name="journal", task_run_name="journal", **LOOKS)
def begin_journal(installation: str, plan: Plan, request: PlanRequest, options: Options) -> str:
    """Begin the journal of an upgrade that will do something; the run's ID.  Nothing is changed yet."""
    record = held_record(installation)
    if not plan.steps:
        return ""
    if record.journal is None:
        begun = record.now()
        journal = Journal(
            id=record.id,
            kind="upgrade",
            manager=_manager_of(record),
            current=plan.current,
            to=plan.to,
            request=request,
            options=options,
            planned=tuple(planned_name(s.key) for s in (*plan.steps, *plan.there)),
            begun=begun,
            tries=(Try(owner=record.owner, begun=begun),),
        )
        with failure_told("journal"):
            record.create(journal)
    tell("journal", State.DONE, f"run {record.id}")
    return record.id


@task(name="journal gone on with", task_run_name="journal of {run}", **LOOKS)
def go_on(installation: str, run: str, inventory: Inventory) -> Journal:
    """Go on with an unfinished run: another try in its journal; raise `DriftError` where the world does not fit it."""
    record = held_record(installation)
    with failure_told("journal"):
        if record.journal is None:
            journal = find_journal(record.journals, run)
            require_goes_on(journal, record.journals)
            record.adopt(journal)
        adopted = _journal_of(record)
        require_fits(adopted, inventory)
    tell("journal", State.DONE, f"run {adopted.id} goes on, try {len(adopted.tries)}")
    return adopted


@task(name="backup noted", task_run_name="backup noted", **LOOKS)
def note_backup(installation: str, backup: BackupResult, version: str) -> None:
    """Write the proved backup into the journal: from now on it is the run's."""
    record = held_record(installation)
    manager = _manager_of(record)
    address = address_of(connected(installation), manager)
    with failure_told("journal"):
        record.backed_up(backup.noted(address, version, record.now()))


@task(name="backup of before", task_run_name="backup of before", **LOOKS)
def find_former_backup(installation: str, needed: bool) -> None:  # noqa: FBT001 - a task's parameter
    """The backup that a former try made is the one of before: no other can be made any more.

    Where the manager's image is still to be set (`needed`) it is read back whole once more, if it can be reached from
    here (a pod's host is another each time, and the volume the same);
    raise `BlockedError` where it is gone, `UnprovenError` where it is another.
    """
    made = _journal_of(held_record(installation)).backup
    if made is None:
        raise BlockedError(
            "This run recorded no backup, and its manager may have been changed.",
            observed="The journal names none.",
            next="Leave this run as it is (apinizer-upgrade runs abandon), then look for a backup by hand.",
        )
    with failure_told("backup"):
        if not Path(made.archive).exists():
            if made.host == socket.gethostname():
                _gone(made, needed=needed)
            else:
                tell("backup", State.DONE, f"{made.archive}, on {made.host}; from here it cannot be looked at")
        elif needed and told_proof(Path(made.archive)).sha256 != made.sha256:
            raise UnprovenError(
                "The backup of this run is not the one that was proved.",
                observed=f"{made.archive} has another SHA-256 than the journal: {made.sha256}.",
                next="See who writes in that folder.",
            )
        else:
            tell("backup", State.DONE, f"{made.archive}, of {made.made:%Y-%m-%d %H:%M:%S} UTC")


def _gone(made: BackupMade, *, needed: bool) -> None:
    told = f"{made.archive} is not there any more, and it is the only backup of before"
    if needed:
        raise BlockedError(
            "The backup of this run is gone.",
            observed=f"{told}. The journal says that it was made {made.made:%Y-%m-%d %H:%M:%S} UTC on this machine.",
            next="Put it back where it was. Or leave this run (apinizer-upgrade runs abandon) and begin a new one, which "
            "makes a backup of the database as it is now.",
        )
    tell("backup", State.LOG, f"{told}: without it there is no way back")


@task(name="journal closed", task_run_name="journal closed", **LOOKS)
def close_journal(installation: str, reason: str = "") -> None:
    """The run is complete."""
    record = held_record(installation)
    if record.journal is not None and record.journal.unfinished:
        record.end(Ended.COMPLETE, reason)


def own_run(journals: Sequence[Journal], process: str) -> str:
    """The ID of the unfinished run that this flow run worked on before: Prefect runs it again; "" where there is none."""
    return next(
        (j.id for j in journals if j.unfinished and process and any(t.owner.run == process for t in j.tries)), ""
    )


def _several(managers: Sequence[DeploymentFacts]) -> BlockedError:
    return BlockedError(
        f"There are {len(managers)} managers, and each installation has its own lock, so none can be taken.",
        observed=", ".join(f"{m.key} ({m.version or m.main.image})" for m in managers),
        next="Limit the run to the namespaces of one installation: --namespace NAMESPACE, as often as it has some.",
    )


def _manager_of(record: RunRecord) -> DeploymentKey:
    if record.manager is None:
        raise DriftError("No lock was taken, so there is no run.", next="Report this defect.")
    return record.manager


def _journal_of(record: RunRecord) -> Journal:
    if record.journal is None:
        raise DriftError("No journal was begun.", next="Report this defect.")
    return record.journal
