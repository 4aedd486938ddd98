"""Whether the database may stay as it is, as Prefect tasks: the manager seen right before it is stopped, and judged after."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prefect import task

from tasks.cluster.image_change import deployment_path
from tasks.cluster.manager_sight import KINDS, sight_of
from tasks.cluster.never_started import Judgement, Sight, never_started, so_far
from tasks.cluster.rollout_view import generation_of
from tasks.cluster.session import connected, hub
from tasks.cluster.watch import View
from tasks.database.return_look import WayBack, read_sight
from tasks.database.return_record import backup_of, journal_of, restore_entry
from tasks.domain.errors import StoppedError, UnprovenError
from tasks.record.feed import State
from tasks.record.run_record import held_record
from tasks.record.task_rules import LOOKS
from tasks.record.telling import tell

SYNC_SECONDS = 20.0
TOO_LATE = Judgement(unchanged=False, why="A try before this one stopped the manager, so its end was not seen to now.")


@task(name="new manager", task_run_name="new manager", **LOOKS)
def judge_so_far(installation: str, way: WayBack) -> Judgement:
    """Whether no container of the new manager has ever started, as far as can be seen before it is stopped."""
    manager = way.manager
    found = so_far(way.manager_entries, read_sight(connected(installation).apis[manager.key.cluster], manager))
    if not way.may_leave:
        found = TOO_LATE
    tell("way back", State.LOG, found.why)
    return found


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
    begun = next((e for e in journal_of(record).entries if e.kind == "scale" and e.key == way.upgrade.manager), None)
    if found.unchanged and begun is not None:
        entry = restore_entry(way, f"leave {way.database} as it is: {found.why}", "nothing to undo", record)
        with record.changing(entry) as done:
            done.evidence = {"unchanged": found.why, "generation": generation_of(after.deployment or {})}
        tell("restore", State.DONE, f"{way.database} is left as it is: {found.why}")
        return found
    if not allowed:
        made = backup_of(way)
        raise StoppedError(
            "The database may have been changed since it was looked at, and putting it back was not allowed.",
            observed=found.why,
            safe="The manager is scaled to 0; the database was not touched.",
            next=f"Look at what would be lost: apinizer-upgrade rollback {way.upgrade.id} --dry-run. Then name the "
            f"backup: apinizer-upgrade rollback {way.upgrade.id} --backup {made.sha256[:12]}",
        )
    tell("way back", State.LOG, f"The database is put back: {found.why}")
    return Judgement(unchanged=False, why=found.why)


def _followed(installation: str) -> _Before:
    found = _before.get(installation)
    if found is None:
        raise StoppedError("The rollback was stopped.", observed="Its run has ended.")
    return found


def _sight_now(installation: str, way: WayBack, before: _Before) -> Sight:
    """What the watch shows once it has come to what the API server says now."""
    manager = way.upgrade.manager
    there = connected(installation).apis[manager.cluster].get(deployment_path(manager))
    wanted, end = generation_of(there), time.monotonic() + SYNC_SECONDS
    while True:
        version = before.view.version
        seen = sight_of(before.view, before.uid)
        shown = generation_of(seen.deployment or {})
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
