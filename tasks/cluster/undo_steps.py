"""The undo of one component as Prefect tasks: what it may go back to, and its journal."""

from collections.abc import Sequence

from prefect import task

from tasks.cluster.planning import held_repositories
from tasks.cluster.running_version import ask_running_version
from tasks.cluster.session import connected
from tasks.domain.errors import UsageError
from tasks.domain.inventory import Inventory
from tasks.domain.journal import Journal, Try, find_journal, require_goes_on, require_none_unfinished
from tasks.domain.plan import PlanRequest
from tasks.domain.undo import Undo, find_deployment, undo_step
from tasks.record.feed import State
from tasks.record.run_record import held_record
from tasks.record.task_rules import LOOKS
from tasks.record.telling import failure_told, tell

OF_UNDO = "undo"
"""The option of a journal that says which Deployment alone is put back; such a rollback is of no run."""


@task(name="undo found", task_run_name="undo of {what}", **LOOKS)
def find_undo(installation: str, inventory: Inventory, what: str, request: PlanRequest, going_on: str) -> Undo:
    """The step; raise what forbids it: the reason of the version itself before that another run is unfinished."""
    connections, record = connected(installation), held_record(installation)
    with failure_told("undo"):
        find_deployment(inventory, what)
        manager = inventory.manager
        running = ask_running_version(connections.apis[manager.key.cluster], manager) if manager else None
        held = held_repositories(connections, inventory, request)
        found = undo_step(inventory, what, request, running=running, held=held, journals=record.journals)
        found.plan.require_allowed()
        require_none_unfinished(j for j in record.journals if j.id != going_on)
        if going_on and record.journal is None:
            _former(record.journals, going_on, what)
    tell("undo", State.DONE, f"{found.step.key} to {', '.join(found.step.images) or 'the images that it has'}")
    return found


@task(name="journal", task_run_name="journal", **LOOKS)
def begin_undo(installation: str, undo: Undo, what: str, request: PlanRequest, timeout: int, going_on: str) -> str:
    """Begin its journal, or go on with it; the run's ID."""
    record = held_record(installation)
    if record.journal is None and going_on:
        record.adopt(_former(record.journals, going_on, what))
    elif record.journal is None and record.manager is not None:
        now = record.now()
        record.create(
            Journal(
                id=record.id,
                kind="rollback",
                manager=record.manager,
                current=undo.plan.current,
                to=undo.plan.to,
                request=request,
                options={OF_UNDO: what, "timeout": timeout},
                begun=now,
                tries=(Try(owner=record.owner, begun=now),),
            )
        )
    return record.journal.id if record.journal else ""


def _former(journals: Sequence[Journal], going_on: str, what: str) -> Journal:
    """The undo of that ID; raise `BlockedError` where it has ended, `UsageError` where it is another run."""
    journal = find_journal(journals, going_on)
    if journal.options.get(OF_UNDO) != what:
        raise UsageError(
            f"The run {journal.id} is no undo of {what}.",
            observed=f"It is the {journal.kind} to {journal.to}.",
            next=f"apinizer-upgrade runs show {journal.id}   tells what it is",
        )
    require_goes_on(journal, journals)
    return journal
