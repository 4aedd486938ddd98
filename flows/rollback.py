"""The way back from an upgrade, the published procedure's third section: the database as it was, then the old images.

The order is in the dependencies of the tasks: nothing is changed before the backup and the images of the old version are
proved, the database is put back only when no pod of the manager is left, and the others follow the manager.
"""

from contextlib import ExitStack
from typing import Annotated, Any

from prefect import flow
from prefect.runtime import flow_run
from pydantic import Field

from blocks.image_settings import by_way
from blocks.installation import installation as settings_of
from flows.passage import AGAIN, Passage
from flows.return_course import ReturnCourse
from tasks.cluster.session import session
from tasks.database.order import BackupOrder
from tasks.database.putting_back_steps import said_of_database
from tasks.domain.errors import NOTHING_CHANGED, DamagedArchiveError, UpgradeError
from tasks.domain.rollback_safe import safe_in_rollback
from tasks.domain.safe_before import safe_before
from tasks.domain.way import Way
from tasks.images.session import images_open
from tasks.record.run_record import RunRecord, recorded


@flow(name="rollback", flow_run_name="rollback {installation}", persist_result=False)
def rollback(
    run: str = "",
    installation: str = "default",
    backup: str = "",
    stop_all: bool = False,  # noqa: FBT001, FBT002 - a field of the form
    without: list[str] = [],  # noqa: B006 - never changed; the form shows an empty list
    manager_made_anew: bool = False,  # noqa: FBT001, FBT002
    way: Way | None = None,
    backup_dir: str = "",
    manager_timeout: Annotated[int, Field(ge=1)] = 1200,
    timeout: Annotated[int, Field(ge=1)] = 600,
    mark: str = "",
) -> dict[str, Any]:
    """Go back from an upgrade: the database as it was before, then the old images, the manager first.

    A rollback that ended early goes on where it was when it is run again.

    Args:
        run: The ID of the upgrade to undo, as `apinizer-upgrade runs` shows it, or of a rollback that goes on; the newest if empty.
        installation: The name of the block "Apinizer installation"; it holds clusters, database and image source.
        backup: The ID of the backup that is put back: the beginning of its SHA-256, or its file's name. What was written to the database since it was made is lost, so nothing begins without it being named.
        stop_all: Stop the other components too while the database is put back; else they keep serving, and what they write meanwhile (logs) may be lost.
        without: Deployments that are left as they are, as namespace/name.
        manager_made_anew: The manager was deleted and deployed again since the upgrade, and is this installation's all the same. Its database is compared with the backup before anything is put back.
        way: How the old images come to the nodes that lack them; the installation's own way if empty.
        backup_dir: The folder on the worker's machine where the backup lies and the safety backup goes; the installation's own, or ./backups, if empty.
        manager_timeout: Seconds that the manager may take to become Ready.
        timeout: Seconds that any other component may take to become Ready.
        mark: What the command line has shown to who agreed to it; another plan is refused then. Nobody was asked if empty.
    """
    settings = settings_of(installation)
    order = BackupOrder.of(settings, directory=backup_dir, whole_server=False, leave_out=())
    with ExitStack() as stack:
        stack.enter_context(session(installation))
        images = by_way(settings.images, way)
        stack.enter_context(images_open(installation, images))
        record = stack.enter_context(recorded(installation, run=str(flow_run.id or "")))

        def told(error: UpgradeError) -> UpgradeError:
            return told_in_rollback(record, error, said_of_database(installation))

        passage = stack.enter_context(Passage("rollback", NOTHING_CHANGED, told=told))
        course = ReturnCourse(
            installation=installation,
            passage=passage,
            record=record,
            order=order,
            run=run,
            backup=backup,
            without=tuple(without),
            manager_made_anew=manager_made_anew,
            stop_all=stop_all,
            manager_timeout=manager_timeout,
            timeout=timeout,
            mark=mark,
            options={
                "way": images.way.value,
                "backup_dir": backup_dir,
                "manager_timeout": manager_timeout,
                "timeout": timeout,
            },
        )
        return course.go()


def told_in_rollback(record: RunRecord, error: UpgradeError, known: str = "") -> UpgradeError:
    """The error with what is safe now and with the ways on, as the journal has them; `known` as `safe_in_rollback` has it."""
    begun = record.journal is not None and record.journal.changed
    again = "" if begun and error.next == AGAIN else error.next
    safe = safe_in_rollback(record.journal, known) if begun else safe_before(record.standing)
    told = record.with_ways(type(error)(error.happened, observed=error.observed, safe=safe, next=again))
    if not isinstance(error, DamagedArchiveError):
        return told
    # With that backup there is none.
    ways = [line for line in told.next.splitlines() if not line.startswith("apinizer-upgrade rollback ")]
    return type(told)(told.happened, observed=told.observed, safe=told.safe, next="\n".join(ways))
