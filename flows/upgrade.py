"""The upgrade: backup and images, manager, and when it is Ready and answers, all others, each pod asked for its version.

It runs under the installation's lock, and its journal has what it will do before each change.  The order is in the
dependencies of the tasks, so the run's graph shows it and no scheduling can break it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from prefect import flow
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from pydantic import Field

from blocks.image_settings import by_way
from blocks.installation import installation as settings_of
from flows.automatic_return import go_back_after
from flows.bringing import bring, prove
from flows.course import Course, Rolled, course_of
from flows.ending import Ending, safe_before_run
from tasks.cluster.session import session
from tasks.cluster.steps import make_plan, take_inventory
from tasks.database.order import BackupOrder
from tasks.database.steps import back_up, check_place, prove_backup, reach_database, retire_backups
from tasks.domain.component import Component
from tasks.domain.errors import HopelessError, UpgradeError
from tasks.domain.inventory import Inventory
from tasks.domain.journal import Journal
from tasks.domain.order import lanes
from tasks.domain.plan import Plan, PlanRequest
from tasks.domain.version import Version
from tasks.domain.way import Way
from tasks.images.session import images_open
from tasks.record import artifacts, stopping
from tasks.record.run_record import RunRecord, recorded
from tasks.record.run_steps import (
    UPGRADE,
    begin_journal,
    find_former_backup,
    go_on,
    note_backup,
    own_run,
    require_none_before,
    take_lock,
)

MANAGER_TIMEOUT, TIMEOUT = 1200, 600  # seconds


class Order(StrEnum):
    """What follows the manager."""

    ONE_BY_ONE = "one environment after another"
    TOGETHER = "all components together"


@dataclass(frozen=True, slots=True)
class Wish:
    """What one run is to do and how: times in seconds, `way` and `backup_dir` where they are not the installation's own."""

    request: PlanRequest
    way: Way | None = None
    backup_dir: str = ""
    manager_timeout: int = MANAGER_TIMEOUT
    timeout: int = TIMEOUT
    on_failure: Literal["stop", "rollback"] = "stop"

    def options(self, way: Way) -> dict[str, str | int | bool]:
        """As the journal keeps it beside the request; `way` is the one that is gone."""
        return {
            "way": way.value,
            "backup_dir": self.backup_dir,
            "manager_timeout": self.manager_timeout,
            "timeout": self.timeout,
            "on_failure": self.on_failure,
        }

    @classmethod
    def of(cls, journal: Journal) -> Self:
        """What was asked for when the run began; its way is the resuming installation's to say."""
        said = journal.options
        return cls(
            request=journal.request or PlanRequest(to=journal.to),
            backup_dir=str(said.get("backup_dir", "")),
            manager_timeout=int(said.get("manager_timeout", MANAGER_TIMEOUT)),
            timeout=int(said.get("timeout", TIMEOUT)),
            on_failure="rollback" if said.get("on_failure") == "rollback" else "stop",
        )


@flow(name="upgrade", flow_run_name="upgrade {installation} to {to}", persist_result=False)
def upgrade(
    to: Annotated[str, Field(pattern=r"^[0-9]{4}\.[0-9]{1,2}\.[0-9]{1,4}$", examples=["2025.07.0"])],
    installation: str = "default",
    order: Order = Order.ONE_BY_ONE,
    environments: list[str] = [],  # noqa: B006 - never changed; the form shows an empty list
    parallel: Annotated[int, Field(ge=1)] = 8,
    repositories: dict[Component, str] = {},  # noqa: B006
    way: Way | None = None,
    backup_dir: str = "",
    manager_timeout: Annotated[int, Field(ge=1)] = MANAGER_TIMEOUT,
    timeout: Annotated[int, Field(ge=1)] = TIMEOUT,
    on_failure: Literal["stop", "rollback"] = "stop",
) -> dict[str, Any]:
    """Upgrade an Apinizer installation: the manager first, because it migrates the database, then all others.

    It holds the installation's lock and keeps a journal there. Retried, the same flow run goes on where it ended;
    another run does not begin while one is unfinished.

    Args:
        to: The version to reach, as its images are tagged, e.g. 2025.07.0.
        installation: The name of the block "Apinizer installation"; it holds clusters, database and image source.
        order: What follows the manager. One by one, a failure stops before the next environment.
        environments: The order of the environments, by their namespaces. Those not named follow, the smallest first.
        parallel: How many components are rolled out at once, at most.
        repositories: A component's repository name at the new version, where the sources disagree, e.g. {"portal": "apiportal"}.
        way: How the new images come to the nodes; the installation's own way if empty. What is missing is brought before the manager is touched.
        backup_dir: The folder for the backup on the worker's machine; the installation's own, or ./backups, if empty.
        manager_timeout: Seconds that the manager may take to migrate and become Ready.
        timeout: Seconds that any other component may take to become Ready.
        on_failure: What follows when the manager failed for good before it ever served; stop leaves it to a person, rollback goes back. A deadline that ends is never followed by a rollback.
    """
    settings = settings_of(installation)
    request = PlanRequest(
        to=Version(to),
        environments=tuple(environments),
        known_environments=settings.environments,
        together=order is Order.TOGETHER,
        parallel=parallel,
        prefix=settings.images.wanted_prefix,
        repositories=repositories,
    )
    wish = Wish(request, way, backup_dir, manager_timeout, timeout, on_failure)
    return carried_out(installation, wish)


def carried_out(installation: str, wish: Wish, former: Journal | None = None) -> dict[str, Any]:
    """The report of an upgrade, `former` where it goes on; where its manager failed for good it is undone if so wished.

    Not where the manager's image was set before this try: it may have served since.
    """
    try:
        return carry_out(installation, wish, former.id if former else "")
    except HopelessError as error:
        if wish.on_failure == "stop" or (former is not None and former.manager_begun):
            raise
        raise go_back_after(
            installation,
            error,
            tries=len(former.tries) + 1 if former else 1,
            way=wish.way,
            backup_dir=wish.backup_dir,
            manager_timeout=wish.manager_timeout,
            timeout=wish.timeout,
        ) from None


def carry_out(installation: str, wish: Wish, run: str = "") -> dict[str, Any]:
    """The report of an upgrade under lock and journal; `run` is the ID of an unfinished one that goes on."""
    stopping.clear()
    artifacts.begin()
    process = str(flow_run.id or "")
    with session(installation) as opened:
        images = by_way(opened.connections.settings.images, wish.way)
        with (
            images_open(installation, images),
            recorded(installation, run=process) as record,
            Ending(record, "upgrade") as ending,
        ):
            course = _begun(installation, wish, images.way, run, process, record)
            ending.waited = course.interrupted
            course.order = BackupOrder.of(opened.connections.settings, directory=wish.backup_dir)
            _run(course)
            return course.finish().model_dump(mode="json") | {"run": course.run}


def _begun(installation: str, wish: Wish, way: Way, run: str, process: str, record: RunRecord) -> Course:
    """The lock taken, what is there read after it, the plan made, the journal begun; nothing is changed yet."""
    request = wish.request
    try:
        lock = take_lock.submit(installation, f"{UPGRADE} to {request.to}", run, return_state=False)
        journals = lock.result()  # what it is refused for is the news, for a run that goes on too
        run = run or own_run(journals, process)
        ahead: list[PrefectFuture[Any]] = [lock]
        if not run:
            ahead = [require_none_before.submit(installation, wait_for=ahead, return_state=False)]
            ahead[0].result()
        # What was read before the lock may have changed since.
        inventory = take_inventory.submit(installation, wait_for=ahead, return_state=False)
        before: Inventory = inventory.result()
        if run:
            resumed = go_on.submit(installation, run, inventory, return_state=False)
            request = resumed.result().request or request
            ahead = [resumed]
        planned = make_plan.submit(installation, inventory, request, wait_for=ahead, return_state=False)
        plan: Plan = planned.result()
        course = course_of(installation, plan, before, wish.manager_timeout, wish.timeout)
        ahead = [planned]
        if not run:
            asked = wish.options(way)
            begun = begin_journal.submit(installation, plan, request, asked, wait_for=ahead, return_state=False)
            ahead = [begun]
        course.begun, course.run = ahead[0], ahead[0].result() and record.id
    except UpgradeError as error:
        raise error.with_safe(safe_before_run(record)) from None
    return course


def _run(course: Course) -> None:
    """The steps in their order; each begins when all of `after` have succeeded."""
    plan, name = course.plan, course.installation
    begun = [course.begun] if course.begun else []
    gate: list[Any] = list(begun)
    if plan.steps:
        gate = _secure(course, gate)
        # Beside the backup, and proved again when both are through: right before the manager.
        course.bringing = bring(name, course.before, plan, after=begun, keep=course.keep_images)
        gate = prove(name, course.before, plan, course.bringing, after=gate, keep=course.keep_images)
    if plan.manager:
        gate = [course.roll(plan.manager, after=gate).verified]
    # What seems to be there already is asked before anything else is touched, the manager first.
    for manager_first in (True, False):
        there = [step for step in plan.there if step.is_manager is manager_first]
        gate = [course.ask(step, after=gate) for step in there] or gate
    previous: list[Rolled] = []
    for stage in plan.stages:
        rolled = []
        for lane in lanes(stage.steps, plan.parallel):
            ahead = [r.verified for r in previous]
            for step in lane:
                rolled.append(course.roll(step, after=[*gate, *ahead]))
                ahead = [*ahead, rolled[-1].verified]
        previous = rolled
    if course.backup:
        every = [r.verified for r in course.rolled]
        course.retired = retire_backups.submit(course.order, course.backup, name, wait_for=every, return_state=False)


def _secure(course: Course, gate: list[Any]) -> list[Any]:
    """The database reached, and the state of before in a proved backup that the journal names."""
    plan, name, manager = course.plan, course.installation, course.manager_key
    # Once the manager's change is in the journal the database may be migrated: that run's backup is the one of before.
    kept = course.journal is not None and course.journal.manager_begun
    if plan.migrates and not kept:
        course.place = check_place.submit(course.order, wait_for=gate, return_state=False)
        gate = [course.place]
    shown = course.before.environments
    course.database = reach_database.submit(name, manager, shown, course.order.ssh, wait_for=gate, return_state=False)
    gate = [course.database]
    if kept:
        course.former = find_former_backup.submit(name, plan.migrates, wait_for=gate, return_state=False)
        return [course.former]
    if plan.migrates:
        current = str(plan.current)
        course.archive = back_up.submit(
            name, manager, course.order, current, str(plan.to), wait_for=gate, return_state=False
        )
        course.backup = prove_backup.submit(course.archive, return_state=False)
        course.noted = note_backup.submit(name, course.backup, current, return_state=False)
        return [course.backup, course.noted]
    return gate
