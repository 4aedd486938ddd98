"""The course of one upgrade: the futures of its steps, and what they say when it is over."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture

from flows.bringing import Bringing
from flows.ending import safe_before_run
from tasks.cluster.session import connected
from tasks.cluster.steps import ask_versions, change_images, wait_until_ready
from tasks.database.order import BackupOrder
from tasks.database.slot import newest_backup
from tasks.database.steps import BackupResult, DatabaseLook, release_after_upgrade
from tasks.domain.errors import NOTHING_CHANGED, DriftError, StoppedError, UpgradeError
from tasks.domain.inventory import DeploymentKey, Inventory
from tasks.domain.journal import Journal
from tasks.domain.plan import Plan
from tasks.domain.report import Report, make_report, safe_now
from tasks.domain.step import RolloutStep
from tasks.record.feed import State as Told
from tasks.record.run_record import RunRecord, held_record
from tasks.record.run_steps import close_journal
from tasks.record.steps import write_report
from tasks.record.telling import tell

R = TypeVar("R")

STOP_SECONDS = 10.0
"""What runs looks at least each second whether it is to stop; a request that hangs is not waited for longer."""


@dataclass(frozen=True, slots=True)
class Rolled:
    """One Deployment's three tasks: its image set, its pods Ready, its pods' answers."""

    step: RolloutStep
    changed: PrefectFuture[bool]
    ready: PrefectFuture[float]
    verified: PrefectFuture[tuple[str, ...]]


@dataclass
class Course:
    """What was submitted so far, in order."""

    installation: str
    plan: Plan
    before: Inventory
    manager_key: DeploymentKey
    manager_timeout: int
    timeout: int
    place: PrefectFuture[None] | None = None
    database: PrefectFuture[DatabaseLook] | None = None
    archive: PrefectFuture[str] | None = None
    backup: PrefectFuture[BackupResult] | None = None
    retired: PrefectFuture[tuple[str, ...]] | None = None
    bringing: Bringing | None = None
    images: list[PrefectFuture[Any]] = field(default_factory=list)
    rolled: list[Rolled] = field(default_factory=list)
    asked: dict[str, PrefectFuture[tuple[str, ...]]] = field(default_factory=dict)
    after: Inventory | None = None
    order: BackupOrder = field(default_factory=BackupOrder)
    run: str = ""
    begun: PrefectFuture[Any] | None = None
    former: PrefectFuture[None] | None = None
    noted: PrefectFuture[None] | None = None

    @property
    def record(self) -> RunRecord:
        """The run's lock and journal."""
        return held_record(self.installation)

    @property
    def journal(self) -> Journal | None:
        """None where there was nothing to do."""
        return self.record.journal

    def roll(self, step: RolloutStep, after: Sequence[PrefectFuture[Any]]) -> Rolled:
        """Set the image, wait until Ready, ask every pod, when all of `after` have succeeded."""
        journal = self.journal
        current = journal.current if journal else self.plan.current
        cause = f"apinizer-upgrade: {current} to {self.plan.to}, run {self.run}"
        deadline = self.manager_timeout if step.is_manager else self.timeout
        changed = change_images.submit(self.installation, step, cause, wait_for=after, return_state=False)
        ready = wait_until_ready.submit(self.installation, step, changed, deadline, return_state=False)
        digests = self.bringing.digests() if self.bringing else {}
        verified = ask_versions.submit(
            self.installation, step, str(self.plan.to), digests, wait_for=[ready], return_state=False
        )
        self.rolled.append(Rolled(step, changed, ready, verified))
        return self.rolled[-1]

    def ask(self, step: RolloutStep, after: Sequence[PrefectFuture[Any]]) -> PrefectFuture[tuple[str, ...]]:
        """Ask every pod of a Deployment that is at the target already."""
        verified = ask_versions.submit(self.installation, step, str(self.plan.to), wait_for=after, return_state=False)
        self.asked[str(step.key)] = verified
        return verified

    def keep_images(self, future: PrefectFuture[R]) -> PrefectFuture[R]:
        """A step of the images, which belongs to the run."""
        self.images.append(future)
        return future

    def finish(self) -> Report:
        """Wait for every step; the report, or the first failure told with what is safe now."""
        futures = self._futures()
        for future in futures:
            future.wait()
        unfinished = [f.state for f in futures if not f.state.is_completed()]
        if unfinished:
            # What waited for a step that failed never ran; the failure itself is the news.
            raise self._failed(next((s for s in unfinished if s.is_failed() or s.is_crashed()), unfinished[0]))
        report = write_report(self._report(connected(self.installation).inventory()))
        if not report.complete:
            raise _incomplete(report)
        # Before the journal is closed: a run that dies in between goes on, and does it again.
        made = self.journal.backup if self.journal else None
        for directory in self._folders():
            release_after_upgrade(self.installation, self.manager_key, directory, made)
        try:
            close_journal(self.installation)
        except UpgradeError as error:
            raise error.with_safe(f"Every component is at {report.to} and answers; only the journal is open.") from None
        return report

    def interrupted(self) -> UpgradeError:
        """Wait until what runs has come to a safe boundary; the error that says what is safe now.

        Whoever interrupts must have asked for the stop (`stopping`) before.
        """
        end = time.monotonic() + STOP_SECONDS
        for future in self._futures():
            future.wait(timeout=max(0.0, end - time.monotonic()))
        futures = self._futures()
        done = sum(f.state.is_completed() for f in futures)
        late = [r.step.key for r in self.rolled if r.changed.state.is_running() or r.ready.state.is_running()]
        at = f" At work then: {', '.join(map(str, late))}." if late else ""
        return StoppedError(
            "The upgrade was interrupted.", observed=f"{done} of its steps were done.{at}", safe=self._safe()
        )

    def _futures(self) -> list[PrefectFuture[Any]]:
        rolled = (f for r in self.rolled for f in (r.changed, r.ready, r.verified))
        made = (self.place, self.database, self.archive, self.backup, self.former, self.noted)
        first = (self.begun, *made, *self.images, *self.asked.values())
        return [f for f in (*first, *rolled, self.retired) if f is not None]

    def _report(self, after: Inventory) -> Report:
        verified = self.asked | {str(r.step.key): r.verified for r in self.rolled}
        answered = {key: future.result() for key, future in verified.items() if future.state.is_completed()}
        notes = self.database.result().unseen if self.database and self.database.state.is_completed() else ()
        images = self.bringing.notes() if self.bringing else ()
        notes = (*notes, *images)
        return make_report(self.plan, self.before, after, answered, self._backup(), notes, self.journal)

    def _backup(self) -> str:
        """Where the backup of before is: of this try, or of the one that set the manager's image."""
        if self.backup and self.backup.state.is_completed():
            return self.backup.result().where
        made = self.journal.backup if self.journal else None
        return f"{made.archive} on {made.host}" if made else ""

    def _folders(self) -> list[str]:
        """Where backups of this run can be reached from here."""
        made = self.journal.backup if self.journal else None
        reached = made and (made.host == self.record.owner.host or Path(made.archive).exists())
        here = [str(Path(made.archive).parent)] if made and reached else []
        return list(dict.fromkeys(str(Path(folder).resolve()) for folder in (*here, self.order.directory)))

    def _failed(self, failure: State[Any]) -> UpgradeError:
        """The failure with the sentence on what is safe now; the report is kept as far as the world can be read."""
        cause = failure.result(raise_on_failure=False)
        error = (
            cause
            if isinstance(cause, UpgradeError)
            else UpgradeError(
                "A step of the upgrade ended in a way that was not foreseen.",
                observed=failure.message or type(cause).__name__,
                next="Keep the run's log for a report of this defect.",
            )
        )
        try:
            self.after = connected(self.installation).inventory()
            write_report(self._report(self.after))
        except UpgradeError as unread:
            tell("report", Told.FAILED, f"the installation could not be read again: {unread.happened}")
        return error.with_safe(self._safe())

    def _safe(self) -> str:
        now = {d.key: d.main.image for d in self.after.deployments} if self.after else {}
        # A patch whose answer was lost may have been made: what was seen last decides.
        patched = [
            r.step.key
            for r in self.rolled
            if r.changed.state.is_completed() or (r.step.changes and now.get(r.step.key) in r.step.images)
        ]
        proved = [r.step.key for r in self.rolled if r.verified.state.is_completed()]
        safe = safe_now(self.plan, patched, proved, self._backup(), now)
        if not patched:
            safe = safe.replace(NOTHING_CHANGED, safe_before_run(self.record), 1)
        if not patched and self.bringing and self.bringing.begun():
            safe += "\nWhat was brought of the new images stays where it is and does no harm; it does not travel again."
        return safe if self.plan.migrates or self._backup() else f"{safe}\n{self._former_backup()}"

    def _former_backup(self) -> str:
        """Where the way back is when this run had no reason to make one."""
        newest = newest_backup(Path(self.order.directory))
        found = (
            f"the newest in {self.order.directory} is {newest}"
            if newest
            else f"there is none in {self.order.directory}"
        )
        return f"This run made no backup, because the manager's image was set before it; {found}."


def _incomplete(report: Report) -> UpgradeError:
    """Every step succeeded, and the last look shows something else: somebody changed it in between."""
    return DriftError(
        f"Not every component is at {report.to} any more.",
        observed="\n".join(f"{r.deployment}: {r.after}" for r in report.rows if not r.reached),
        safe="What is listed above is how the installation was found at the end; it was left so.",
        next="See who changes it (a deployment tool that keeps the old images?), then go on.",
    )


def course_of(installation: str, plan: Plan, before: Inventory, manager_timeout: int, timeout: int) -> Course:
    """A course at its beginning; the plan has made sure that there is one manager, and the lock is where it is."""
    manager, locked = before.manager, held_record(installation).manager
    if manager is None or locked is None:
        raise UpgradeError("The plan went on without a manager.", next="Report this defect with the plan.")
    if manager.key != locked:
        raise DriftError(
            f"The manager is {manager.key} now, and was {locked} when the lock was taken.",
            observed="The lock is kept in the manager's namespace.",
            next="See who moves it, then run again.",
        )
    return Course(installation, plan, before, manager.key, manager_timeout, timeout)
