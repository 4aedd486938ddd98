"""A rollback's own Prefect tasks: what it finds, its journal, the manager's old image, its report and end."""

from collections.abc import Mapping
from typing import Any

from prefect import task
from prefect.logging import get_run_logger

from tasks.cluster.answers import JsonObject
from tasks.cluster.recorded_change import change_recorded
from tasks.cluster.rollout_view import containers, generation_of, replicas_of
from tasks.cluster.scaling import who_scaled
from tasks.cluster.session import connected
from tasks.database.order import BackupOrder
from tasks.database.return_look import WayBack, look_for_way_back
from tasks.database.return_record import Restored, journal_of, manager_now
from tasks.domain.errors import DriftError, StoppedError
from tasks.domain.journal import Ended, Journal, Try
from tasks.domain.plan_text import table
from tasks.domain.report import Report
from tasks.domain.rollback_restored import restored_entry, without_overtaken
from tasks.domain.rollback_text import rollback_markdown
from tasks.domain.step import RolloutStep
from tasks.record import stopping
from tasks.record.artifacts import flush, keep_page, keep_table
from tasks.record.feed import State
from tasks.record.run_record import RunRecord, held_record
from tasks.record.task_rules import LOOKS
from tasks.record.telling import failure_told, tell

FLUSH_SECONDS = 15.0
OVERTAKEN_BY = "the manager was written by somebody else before it had its old image"


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
    return journal_of(record)


def _kept(way: WayBack) -> dict[str, str]:
    """What was said of the way back, and holds when it goes on."""
    return {"without": ",".join(way.without), "made_anew": way.made_anew}


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
        _require_as_restored(record, step, manager_now(installation, step.key))
        evidence = change_recorded(connected(installation).apis[step.key.cluster], step, cause, record)
        # Its patch decides on a later read than the look above.
        _require_as_restored(record, step, manager_now(installation, step.key))
    tell(name, State.RUNNING, "image set" if evidence.changed else "nothing to set")
    return evidence.changed


def _require_as_restored(record: RunRecord, step: RolloutStep, found: JsonObject) -> None:
    journal = journal_of(record)
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
    journal = journal_of(held_record(installation))
    # The first is the whole state of before; what later tries found may be half put back, or written since.
    first, *later = [f"{made.archive} on {made.host}" for made in reversed(journal.safeties)] or [""]
    told = {
        **report.model_dump(mode="json"),
        "run": journal.id,
        "undone": way.upgrade.id,
        "restored": bool(restored and restored.restored),
        "database": restored.why if restored else "not touched: the upgrade had not come to the manager",
        "safety_backup": first,
        "later_safety_backups": later,
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
    lines += [f"As a later try found it: `{each}`." for each in told["later_safety_backups"]]
    rows = table(
        ("Component", "Deployment", "Before", "After", "Ready", "Pods answered"),
        ((r.component, r.deployment, r.before, r.after, r.ready, ", ".join(r.answered)) for r in report.rows),
    )
    return "\n\n".join([f"# Rolled back to {report.to}", rows, *lines, *report.notes])


@task(name="rollback ended", task_run_name="rollback ended", **LOOKS)
def end_rollback(installation: str, way: WayBack, reason: str) -> None:
    """Both journals are ended: first the upgrade's, so that a run that dies in between is resumed with nothing left to do."""
    record = held_record(installation)
    journal = journal_of(record)
    if way.upgrade.how is not Ended.ROLLED_BACK:
        at = way.upgrade.ended or record.now()
        record.save_other(way.upgrade.end(at, Ended.ROLLED_BACK, f"by {journal.id}, {record.now():%Y-%m-%d %H:%M} UTC"))
    record.end(Ended.COMPLETE, reason)
