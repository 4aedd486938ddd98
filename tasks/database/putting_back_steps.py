"""A rollback's database as Prefect tasks: the backup proved, what is lost shown, what is there kept, the backup put back."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from prefect import task

from tasks.cluster.rollout_view import generation_of
from tasks.cluster.scaling_steps import ask_replicas
from tasks.cluster.session import connected
from tasks.database.connection import open_database
from tasks.database.difference import Difference, difference_markdown, read_difference
from tasks.database.manifest import load
from tasks.database.order import BackupOrder
from tasks.database.putting_back import require_safety_place, what_stands_against, with_remarks
from tasks.database.restore.look import survey
from tasks.database.restore.plan import RestorePlan
from tasks.database.restore.plan_text import plan_markdown
from tasks.database.restore.steps import ask_for_managers, put_back_guarded
from tasks.database.return_look import WayBack
from tasks.database.return_record import Restored, backup_of, journal_of, manager_now, request_of, restore_entry
from tasks.database.source import address_of
from tasks.database.steps import BackupResult
from tasks.database.way_back import find_archive, in_words, is_back, require_the_one
from tasks.domain.amounts import megabytes
from tasks.domain.errors import BlockedError, UpgradeError
from tasks.domain.journal import BackupMade
from tasks.record import stopping
from tasks.record.artifacts import keep_page
from tasks.record.feed import State
from tasks.record.run_record import held_record
from tasks.record.shares import ShareTold
from tasks.record.task_rules import LOOKS, PATIENT
from tasks.record.telling import failure_told, tell


@task(name="restore plan", task_run_name="restore plan", **PATIENT)
def plan_way_back(installation: str, way: WayBack, order: BackupOrder) -> RestorePlan:
    """Read the backup whole, see that it is the one, decide what becomes of each collection; raise the refusal."""
    made = backup_of(way)
    archive = Path(way.archive)
    tell("proof", State.RUNNING, f"reading {archive}")
    shares = ShareTold("proof")
    address = address_of(connected(installation), way.upgrade.manager)
    with failure_told("proof"), open_database(address.uri.get_secret_value()) as client, in_words():
        require_safety_place(client, way.database, order, way.under_way)
        found = survey(
            client,
            archive,
            request_of(way),
            progress=lambda done, total: shares.show(done, total, "reading the backup back"),
            stop=stopping.asked,
        )
        require_the_one(archive, found.proof.sha256, made)
        plan = found.plan
        against = what_stands_against(plan, order.engine, safety_comes=True)
        if against is not None:
            raise against.error()
        plan = with_remarks(plan, order.engine, order.ssh, safety_comes=True)
    keep_page("restore-plan", plan_markdown(plan), f"Restore {plan.database}")
    tell("proof", State.DONE, f"{made.documents} documents, {megabytes(found.proof.size)}, every checksum right")
    return plan


@task(name="what is lost", task_run_name="what is lost", **PATIENT)
def show_difference(installation: str, way: WayBack) -> Difference | None:
    """What the database holds that the backup does not; kept as an artifact and told."""
    manifest = load(Path(way.archive))
    if manifest is None:
        tell("way back", State.LOG, "The backup has no manifest beside it, so what is lost cannot be counted.")
        return None
    address = address_of(connected(installation), way.upgrade.manager)
    with open_database(address.uri.get_secret_value()) as client:
        found = read_difference(client, manifest, database=way.database, now=datetime.now(UTC), stop=stopping.asked)
    keep_page("what-is-lost", difference_markdown(found), "What going back loses")
    for sentence in found.sentences():
        tell("way back", State.LOG, sentence)
    return found


@task(name="safety backup kept", task_run_name="safety backup kept", **LOOKS)
def keep_safety(installation: str, way: WayBack, made: BackupResult, version: str) -> None:
    """Write into the journal where the database as it is now was kept, proved."""
    record = held_record(installation)
    address = address_of(connected(installation), way.upgrade.manager)
    record.safety(made.noted(address, version, datetime.now(UTC)))


def usable_safety(installation: str, way: WayBack, order: BackupOrder) -> BackupMade | None:
    """The safety backup of a former try, if it is on this machine and the manager was not touched since it was stopped.

    Its `archive` is the path on this machine; whether the file is still the one with its `sha256` is to be seen.  Else one more is made: what a restore drops has to be in a backup as it is now.  The first one stays the journal's.
    """
    former = way.under_way
    stopped = former.of_manager("scale") if former else None
    if former is None or former.safety is None or stopped is None or "generation" not in stopped.evidence:
        return None
    if generation_of(manager_now(installation, way.upgrade.manager)) != stopped.evidence["generation"]:
        return None
    try:
        found = find_archive(former.safety, Path(order.directory))
    except BlockedError:
        return None  # on another machine: one more is made
    return former.safety.model_copy(update={"archive": str(found)})


_said: dict[str, str] = {}


@contextmanager
def _saying(installation: str) -> Iterator[None]:
    """While the restore itself is at work: what it says is safe when it fails, it alone knows of the database."""
    _said.pop(installation, None)
    try:
        yield
    except UpgradeError as error:
        _said[installation] = error.safe
        raise


def said_of_database(installation: str) -> str:
    """What the restore of this run said is safe when it failed, once; "" where it did not fail."""
    return _said.pop(installation, "")


@task(name="restore", task_run_name="restore {way.database}", **PATIENT)
def put_back_before(installation: str, way: WayBack, plan: RestorePlan, order: BackupOrder, safety: str) -> Restored:
    """Put the database back exactly as the backup has it, no manager meanwhile; journalled.

    Where a try before this one had begun, it is looked first whether it had come to its end.
    """
    record = held_record(installation)
    archive, manager = Path(way.archive), way.upgrade.manager
    again = any(e.kind == "restore" and e.done is None for e in journal_of(record).entries)
    # Half way it is refused without --give-up, and else that does no harm.
    undo = f"apinizer-upgrade restore {safety} --exact --give-up, while no manager runs"
    entry = restore_entry(way, f"put {way.database} back exactly as {archive.name} has it", undo, record)
    # Of the stopped manager, before anything is put back: whoever writes it from now on may start it.
    stopped = generation_of(manager_now(installation, way.upgrade.manager))
    ask_replicas(installation)
    with record.changing(entry) as done:
        if again and _is_back(installation, way):
            tell("restore", State.DONE, f"{way.database} is as {archive.name} has it already")
            done.evidence = {"archive": archive.name, "found": "it was put back already", "generation": stopped}
            return Restored(restored=True, why=f"put back from {archive.name}")

        def guard() -> None:
            ask_for_managers(installation)
            ask_replicas(installation)

        with _saying(installation):
            evidence = put_back_guarded(
                installation, manager, str(archive), request_of(way), plan, order, safety, guard
            )
        ask_replicas(installation)
        done.evidence = {
            "archive": archive.name,
            "sha256": evidence.sha256,
            "documents": evidence.documents,
            "dropped": ", ".join(evidence.dropped),
            "generation": stopped,
        }
    return Restored(restored=True, why=f"put back from {archive.name}")


def _is_back(installation: str, way: WayBack) -> bool:
    tell("restore", State.RUNNING, "looking whether it is back already")
    address = address_of(connected(installation), way.upgrade.manager)
    with open_database(address.uri.get_secret_value()) as client:
        there, why = is_back(client, way.database, Path(way.archive), stop=stopping.asked)
    if not there:
        tell("restore", State.LOG, f"It goes on: {why}.")
    return there
