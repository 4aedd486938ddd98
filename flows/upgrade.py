"""The upgrade: backup and images, manager, and when it is Ready and answers, all others, each pod asked for its version.

The order is in the dependencies of the tasks, so the run's graph shows it and no scheduling can break it.
"""

from enum import StrEnum
from typing import Annotated, Any

from prefect import flow
from prefect.exceptions import TerminationSignal
from prefect.logging import get_run_logger
from pydantic import Field

from blocks.image_settings import by_way
from flows.bringing import bring, prove
from flows.course import Course, Rolled, course_of
from tasks.cluster.session import session
from tasks.cluster.steps import make_plan, take_inventory
from tasks.database.order import BackupOrder
from tasks.database.steps import back_up, check_place, prove_backup, reach_database, retire_backups
from tasks.domain.component import Component
from tasks.domain.errors import before_any_change
from tasks.domain.order import lanes
from tasks.domain.plan import Plan, PlanRequest
from tasks.domain.version import Version
from tasks.domain.way import Way
from tasks.images.session import images_open
from tasks.record import artifacts, stopping


class Order(StrEnum):
    """What follows the manager."""

    ONE_BY_ONE = "one environment after another"
    TOGETHER = "all components together"


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
    manager_timeout: Annotated[int, Field(ge=1)] = 1200,
    timeout: Annotated[int, Field(ge=1)] = 600,
) -> dict[str, Any]:
    """Upgrade an Apinizer installation: the manager first, because it migrates the database, then all others.

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
    """
    stopping.clear()
    artifacts.begin()
    with (
        session(installation) as open_session,
        images_open(installation, by_way(open_session.connections.settings.images, way)),
    ):
        settings = open_session.connections.settings
        request = PlanRequest(
            to=Version(to),
            environments=tuple(environments),
            known_environments=settings.environments,
            together=order is Order.TOGETHER,
            parallel=parallel,
            prefix=settings.images.wanted_prefix,
            repositories=repositories,
        )
        inventory = take_inventory.submit(installation)
        planned = make_plan.submit(installation, inventory, request, return_state=False)
        with before_any_change():
            plan: Plan = planned.result()
        course = course_of(installation, plan, inventory.result(), manager_timeout, timeout)
        try:
            course.order = BackupOrder.of(settings, directory=backup_dir)
            _run(course, planned)
            return course.finish().model_dump(mode="json")
        except KeyboardInterrupt:
            stopping.ask()
            raise course.interrupted() from None
        except TerminationSignal as ending:
            stopping.ask()
            ending.__cause__ = told = course.interrupted()
            get_run_logger().error("%s", told)
            raise  # as it is: Prefect tells a cancelled run from a killed one by it
        except BaseException:
            stopping.ask()  # what still waits in a thread ends at its next safe boundary
            raise


def _run(course: Course, planned: Any) -> None:
    """The steps in their order; each begins when all of `after` have succeeded."""
    plan, name = course.plan, course.installation
    manager = course.manager_key
    gate: list[Any] = [planned]
    if plan.steps:
        if plan.migrates:
            course.place = check_place.submit(course.order, wait_for=gate, return_state=False)
            gate = [course.place]
        shown = course.before.environments
        course.database = reach_database.submit(
            name, manager, shown, course.order.ssh, wait_for=gate, return_state=False
        )
        gate = [course.database]
    if plan.migrates:
        course.archive = back_up.submit(
            name, manager, course.order, str(plan.current), str(plan.to), wait_for=gate, return_state=False
        )
        course.backup = prove_backup.submit(course.archive, return_state=False)
        gate = [course.backup]
    if plan.steps:
        # Beside the backup, and proved again when both are through: right before the manager.
        course.bringing = bring(name, course.before, plan, after=[planned], keep=course.keep_images)
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
        course.retired = retire_backups.submit(course.order, course.backup, wait_for=every, return_state=False)
