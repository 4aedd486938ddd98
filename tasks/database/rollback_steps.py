"""A rollback's own Prefect tasks: what it finds, what it proves, its journal, the database put back."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import task
from prefect.logging import get_run_logger

from tasks.cluster.answers import JsonObject
from tasks.cluster.image_change import deployment_path
from tasks.cluster.manager_sight import KINDS, sight_of
from tasks.cluster.never_started import Judgement, Sight, never_started, so_far
from tasks.cluster.recorded_change import change_recorded
from tasks.cluster.rollout_view import containers
from tasks.cluster.scaling import replicas_of, who_scaled
from tasks.cluster.scaling_steps import ask_replicas
from tasks.cluster.session import connected, hub
from tasks.cluster.watch import View
from tasks.database.connection import hosts_of, open_database
from tasks.database.difference import Difference, difference_markdown, read_difference
from tasks.database.manifest import load
from tasks.database.order import BackupOrder
from tasks.database.putting_back import what_stands_against, with_remarks
from tasks.database.restore.look import survey
from tasks.database.restore.plan import RestorePlan, RestoreRequest
from tasks.database.restore.plan_text import plan_markdown
from tasks.database.restore.steps import ask_for_managers, put_back_guarded
from tasks.database.return_look import WayBack, look_for_way_back, read_sight
from tasks.database.source import address_of
from tasks.database.steps import BackupResult
from tasks.database.way_back import find_archive, in_words, is_back, require_the_one
from tasks.domain.amounts import megabytes
from tasks.domain.errors import BlockedError, DriftError, StoppedError, UnprovenError, UpgradeError
from tasks.domain.inventory import DeploymentKey, Facts
from tasks.domain.journal import BackupMade, Ended, Entry, Journal, Try
from tasks.domain.plan_text import table
from tasks.domain.report import Report
from tasks.domain.rollback_restored import restored_entry, without_overtaken
from tasks.domain.rollback_text import rollback_markdown
from tasks.domain.step import RolloutStep
from tasks.record import stopping
from tasks.record.artifacts import flush, keep_page, keep_table
from tasks.record.feed import State
from tasks.record.run_record import RunRecord, held_record
from tasks.record.shares import ShareTold
from tasks.record.task_rules import LOOKS, PATIENT
from tasks.record.telling import failure_told, tell

SYNC_SECONDS = 20.0
FLUSH_SECONDS = 15.0
OVERTAKEN_BY = "the manager was written by somebody else before it had its old image"


TOO_LATE = Judgement(unchanged=False, why="A try before this one stopped the manager, so its end was not seen to now.")


class Restored(Facts):
    """What became of the database: `restored` is False where it was left alone, and `why` says so."""

    restored: bool
    why: str


@task(name="way back", task_run_name="way back", **LOOKS)
def find_way_back(
    installation: str,
    run: str,
    order: BackupOrder,
    without: tuple[str, ...],
    manager_made_anew: bool,  # noqa: FBT001 - a task's parameter
) -> WayBack:
    """Which upgrade is undone, and how; raise what forbids it."""
    tell("way back", State.RUNNING, "reading the journals and the cluster")
    record = held_record(installation)
    with failure_told("way back"):
        way = look_for_way_back(
            connected(installation),
            record.journals,
            run,
            order.directory,
            without,
            manager_made_anew=manager_made_anew,
        )
    for finding in way.warnings:
        get_run_logger().info("%s: %s", finding.severity.value, finding.what)
    keep_page("plan", rollback_markdown(way.plan, way.upgrade), f"Rollback to {way.plan.to}")
    what = "goes on with the rollback of" if way.under_way else "undoes"
    tell("way back", State.DONE, f"{what} {way.upgrade.id}: from {way.upgrade.to} to {way.plan.to}")
    return way


@task(name="new manager", task_run_name="new manager", **LOOKS)
def judge_so_far(installation: str, way: WayBack) -> Judgement:
    """Whether no container of the new manager has ever started, as far as can be seen before it is stopped."""
    manager = way.manager
    found = so_far(way.manager_entries, read_sight(connected(installation).apis[manager.key.cluster], manager))
    if not way.may_leave:
        found = TOO_LATE
    tell("way back", State.LOG, found.why)
    return found


@task(name="restore plan", task_run_name="restore plan", **PATIENT)
def plan_way_back(installation: str, way: WayBack, order: BackupOrder) -> RestorePlan:
    """Read the backup whole, see that it is the one, decide what becomes of each collection; raise the refusal."""
    made = _backup(way)
    archive = Path(way.archive)
    tell("proof", State.RUNNING, f"reading {archive}")
    shares = ShareTold("proof")
    address = address_of(connected(installation), way.upgrade.manager)
    with failure_told("proof"), open_database(address.uri.get_secret_value()) as client, in_words():
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


@task(name="journal", task_run_name="journal", **LOOKS)
def begin_rollback(installation: str, way: WayBack, options: Mapping[str, str | int | bool], backup: str) -> Journal:
    """Begin the journal of the rollback, or go on with the one that is there; from now on `resume` knows of it.

    `options` are what was asked for; `backup` is the one that was named to be put back, "" where none was: going on
    names no other.
    """
    record = held_record(installation)
    if record.journal is not None:
        return record.journal
    if way.under_way is not None:
        former = way.under_way if way.restored else without_overtaken(way.under_way, OVERTAKEN_BY)
        named = {"backup": backup} if backup else {}
        record.adopt(former.model_copy(update={"options": {**former.options, **options, **_kept(way), **named}}))
    else:
        upgrade, now = way.upgrade, record.now()
        record.create(
            Journal(
                id=record.id,
                kind="rollback",
                of=upgrade.id,
                manager=upgrade.manager,
                current=way.plan.plan.current,
                to=way.plan.to,
                request=upgrade.request,
                options={**options, **_kept(way), "backup": backup},
                begun=now,
                tries=(Try(owner=record.owner, begun=now),),
                backup=upgrade.backup,
            )
        )
    return _journal(record)


def _kept(way: WayBack) -> dict[str, str]:
    """What was said of the way back, and holds when it goes on."""
    return {"without": ",".join(way.without), "made_anew": way.made_anew}


class _Before:
    """What was seen of the manager right before it was stopped, and the watch that is held open over it."""

    def __init__(self, view: View, uid: str) -> None:
        self.view, self.uid = view, uid
        self.sight: Sight | None = None


_before: dict[str, _Before] = {}


@contextmanager
def manager_followed(installation: str, way: WayBack) -> Iterator[None]:
    """While the context lasts, what becomes of the manager's pods is remembered, whatever steps follow."""
    manager = way.manager
    with hub(installation, manager.key.cluster).view(manager.key.namespace, KINDS) as view:
        _before[installation] = _Before(view, manager.uid)
        try:
            yield
        finally:
            del _before[installation]


@task(name="manager seen", task_run_name="manager seen", **LOOKS)
def see_manager(installation: str) -> None:
    """Remember the manager as it is, right before it is stopped."""
    before = _followed(installation)
    _synced(before.view)
    before.sight = sight_of(before.view, before.uid)


@task(name="database judged", task_run_name="database judged", **LOOKS)
def judge_database(installation: str, way: WayBack, allowed: bool) -> Judgement:  # noqa: FBT001 - a task's parameter
    """Now that no pod of the manager is left: whether none of its containers ever started.  Journalled where so.

    Otherwise the database counts as changed.  Raise `StoppedError` where putting it back was not allowed.
    """
    record, before = held_record(installation), _followed(installation)
    if before.sight is None:
        raise StoppedError("The manager was stopped and not seen before.", next="Report this defect.")
    after = _sight_now(installation, way, before)
    found = never_started(way.manager_entries, before.sight, after) if way.may_leave else TOO_LATE
    begun = next((e for e in _journal(record).entries if e.kind == "scale" and e.key == way.upgrade.manager), None)
    if found.unchanged and begun is not None:
        entry = _entry(way, f"leave {way.database} as it is: {found.why}", "nothing to undo", record)
        with record.changing(entry) as done:
            done.evidence = {"unchanged": found.why, "generation": generation_of(after.deployment or {})}
        tell("restore", State.DONE, f"{way.database} is left as it is: {found.why}")
        return found
    if not allowed:
        made = _backup(way)
        raise StoppedError(
            "The database may have been changed since it was looked at, and putting it back was not allowed.",
            observed=found.why,
            safe="The manager is scaled to 0; the database was not touched.",
            next=f"Look at what would be lost: apinizer-upgrade rollback {way.upgrade.id} --dry-run. Then name the "
            f"backup: apinizer-upgrade rollback {way.upgrade.id} --backup {made.sha256[:12]}",
        )
    tell("way back", State.LOG, f"The database is put back: {found.why}")
    return Judgement(unchanged=False, why=found.why)


@task(name="safety backup kept", task_run_name="safety backup kept", **LOOKS)
def keep_safety(installation: str, way: WayBack, made: BackupResult, version: str) -> None:
    """Write into the journal where the database as it is now was kept, proved."""
    record = held_record(installation)
    address = address_of(connected(installation), way.upgrade.manager)
    record.safety(
        BackupMade(
            host=made.host,
            archive=made.archive,
            sha256=made.sha256,
            documents=made.documents,
            database=address.name,
            hosts=tuple(sorted(hosts_of(address.uri.get_secret_value()).split(","))),
            version=version,
            made=datetime.now(UTC),
        )
    )


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
    again = any(e.kind == "restore" and e.done is None for e in _journal(record).entries)
    # Half way it is refused without --give-up, and else that does no harm.
    undo = f"apinizer-upgrade restore {safety} --exact --give-up, while no manager runs"
    entry = _entry(way, f"put {way.database} back exactly as {archive.name} has it", undo, record)
    # Of the stopped manager, before anything is put back: whoever writes it from now on may start it.
    stopped = generation_of(_manager_now(installation, way.upgrade.manager))
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


@task(name="old image", task_run_name="image: {step.component} {step.key}", **LOOKS)
def set_old_image(installation: str, step: RolloutStep, cause: str) -> bool:
    """Set the manager's old images, only while nobody else wrote it since the database was seen to; whether it changed.

    Raises `DriftError` where somebody did: the new manager may have run, and going on puts the database back once more.
    """
    name = str(step.key)
    if stopping.asked():
        raise StoppedError(f"{name} was not begun: the run is to stop.", observed="Its image is as it was.")
    record = held_record(installation)
    tell(name, State.RUNNING, ", ".join(step.images) or "its images are there already")
    with failure_told(name):
        _require_as_restored(record, step, _manager_now(installation, step.key))
        evidence = change_recorded(connected(installation).apis[step.key.cluster], step, cause, record)
        # Its patch decides on a later read than the look above.
        _require_as_restored(record, step, _manager_now(installation, step.key))
    tell(name, State.RUNNING, "image set" if evidence.changed else "nothing to set")
    return evidence.changed


def _require_as_restored(record: RunRecord, step: RolloutStep, found: JsonObject) -> None:
    journal = _journal(record)
    images = {name: c.get("image") for name, c in containers(found["spec"]["template"]).items()}
    at_old = all(images.get(change.container) == change.new for change in step.changes)
    count = replicas_of(found)
    if restored_entry(journal, at_old=at_old, replicas=count, generation=generation_of(found)) is None:
        overtaken = without_overtaken(journal, OVERTAKEN_BY)
        record.save_other(overtaken)
        record.journal = overtaken
        raise DriftError(
            f"{step.key} was changed by somebody else since the database was seen to, so its new version may have run.",
            observed=f"It wants {count} pods; its generation is {generation_of(found)}. {who_scaled(found)}".strip(),
            next="See who scales it (a deployment tool, an autoscaler, a colleague) and stop that, then go on: the "
            "database is put back once more.",
        )


@task(name="report", task_run_name="report", **LOOKS)
def write_rollback_report(installation: str, way: WayBack, report: Report, restored: Restored | None) -> dict[str, Any]:
    """Keep what the rollback did as artifacts; the same as plain values.  Raise `DriftError` where not all is as it was."""
    journal = _journal(held_record(installation))
    safeties = [f"{made.archive} on {made.host}" for made in journal.safeties]
    told = {
        **report.model_dump(mode="json"),
        "run": journal.id,
        "undone": way.upgrade.id,
        "restored": bool(restored and restored.restored),
        "database": restored.why if restored else "not touched: the upgrade had not come to the manager",
        "safety_backup": safeties[0] if safeties else "",
        "earlier_safety_backups": safeties[1:],
    }
    keep_table("before-and-after", [row.model_dump(mode="json") for row in report.rows], "Each Deployment")
    keep_page("report", rolled_back_markdown(report, told), f"Rollback to {report.to}")
    flush(FLUSH_SECONDS)
    if not report.complete:
        raise DriftError(
            f"Not every component is at {report.to}.",
            observed="\n".join(f"{r.deployment}: {r.after}" for r in report.rows if not r.reached),
            next="See who changes it (a deployment tool that keeps the new images?).",
        )
    tell("report", State.DONE, f"{len(report.rows)} of {len(report.rows)} as before the upgrade")
    return told


def rolled_back_markdown(report: Report, told: Mapping[str, Any]) -> str:
    """The report as a page."""
    lines = [f"The database: {told['database']}."]
    if told["safety_backup"]:
        lines.append(f"As it was before it was put back: `{told['safety_backup']}`, read back whole.")
    lines += [f"As an earlier try found it: `{earlier}`." for earlier in told["earlier_safety_backups"]]
    rows = table(
        ("Component", "Deployment", "Before", "After", "Ready", "Pods answered"),
        ((r.component, r.deployment, r.before, r.after, r.ready, ", ".join(r.answered)) for r in report.rows),
    )
    return "\n\n".join([f"# Rolled back to {report.to}", rows, *lines, *report.notes])


@task(name="rollback ended", task_run_name="rollback ended", **LOOKS)
def end_rollback(installation: str, way: WayBack, reason: str) -> None:
    """Both journals are ended: first the upgrade's, so that a run that dies in between is resumed with nothing left to do."""
    record = held_record(installation)
    journal = _journal(record)
    if way.upgrade.how is not Ended.ROLLED_BACK:
        at = way.upgrade.ended or record.now()
        record.save_other(way.upgrade.end(at, Ended.ROLLED_BACK, f"by {journal.id}, {record.now():%Y-%m-%d %H:%M} UTC"))
    record.end(Ended.COMPLETE, reason)


def request_of(way: WayBack) -> RestoreRequest:
    """The database exactly as the backup has it: what the upgrade made is dropped."""
    return RestoreRequest(database=way.database, source_database=_backup(way).database, exact=True)


def usable_safety(installation: str, way: WayBack, order: BackupOrder) -> BackupMade | None:
    """The safety backup of a former try, if it is on this machine and the manager was not touched since it was stopped.

    Its `archive` is the path on this machine; whether the file is still the one with its `sha256` is to be seen.  Else one more is made: what a restore drops has to be in a backup as it is now.  The first one stays the journal's.
    """
    former = way.under_way
    stopped = former.of_manager("scale") if former else None
    if former is None or former.safety is None or stopped is None or "generation" not in stopped.evidence:
        return None
    if generation_of(_manager_now(installation, way.upgrade.manager)) != stopped.evidence["generation"]:
        return None
    try:
        found = find_archive(former.safety, Path(order.directory))
    except BlockedError:
        return None  # on another machine: one more is made
    return former.safety.model_copy(update={"archive": str(found)})


def generation_of(deployment: JsonObject) -> int:
    return int(deployment.get("metadata", {}).get("generation") or 0)


def _manager_now(installation: str, key: DeploymentKey) -> JsonObject:
    return connected(installation).apis[key.cluster].get(deployment_path(key))


def _is_back(installation: str, way: WayBack) -> bool:
    tell("restore", State.RUNNING, "looking whether it is back already")
    address = address_of(connected(installation), way.upgrade.manager)
    with open_database(address.uri.get_secret_value()) as client:
        there, why = is_back(client, way.database, Path(way.archive), stop=stopping.asked)
    if not there:
        tell("restore", State.LOG, f"It goes on: {why}.")
    return there


def _entry(way: WayBack, will: str, undo: str, record: RunRecord) -> Entry:
    return Entry(kind="restore", subject=way.database, will=will, undo=undo, begun=record.now())


def _backup(way: WayBack) -> BackupMade:
    if way.upgrade.backup is None:
        raise UnprovenError("The upgrade has no backup.", next="Report this defect.")
    return way.upgrade.backup


def _journal(record: RunRecord) -> Journal:
    if record.journal is None:
        raise StoppedError("The rollback has no journal.", next="Report this defect.")
    return record.journal


def _followed(installation: str) -> _Before:
    found = _before.get(installation)
    if found is None:
        raise StoppedError("The rollback was stopped.", observed="Its run has ended.")
    return found


def _sight_now(installation: str, way: WayBack, before: _Before) -> Sight:
    """What the watch shows once it has come to what the API server says now."""
    manager = way.upgrade.manager
    there = connected(installation).apis[manager.cluster].get(deployment_path(manager))
    wanted, end = int(there["metadata"].get("generation") or 0), time.monotonic() + SYNC_SECONDS
    while True:
        version = before.view.version
        seen = sight_of(before.view, before.uid)
        shown = int((seen.deployment or {}).get("metadata", {}).get("generation") or 0)
        # Where it does not come the judgement is that nothing is proved.
        if shown >= wanted or time.monotonic() > end:
            return seen
        before.view.wait(version, 0.2)


def _synced(view: View) -> None:
    """Wait until the first lists are in."""
    end = time.monotonic() + SYNC_SECONDS
    while not view.synced():
        if time.monotonic() > end:
            raise UnprovenError(
                "The manager's pods could not be listed.",
                observed=view.trouble() or "The list of pods did not come.",
                next="When the cluster's API answers again, run it again.",
            )
        view.wait(view.version, 0.2)
