"""A restore: no other run, no manager, the archive proved, what is there now backed up and proved, then put back under guard."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from prefect import flow
from prefect.runtime import flow_run

from blocks.installation import installation as settings_of
from flows.passage import Passage
from tasks.cluster.session import session
from tasks.database.merge_rule import MergeRule
from tasks.database.order import BackupOrder
from tasks.database.restore.plan import RestoreRequest
from tasks.database.restore.plan_text import needs_safety
from tasks.database.restore.steps import BEGUN, managers_watched, plan_restore, require_no_manager, restore_archive
from tasks.database.steps import back_up, check_place, find_database, prove_backup
from tasks.domain.errors import NOTHING_CHANGED, UpgradeError, as_failure
from tasks.record.run_record import recorded
from tasks.record.run_steps import require_none_before, take_lock


@flow(name="restore", flow_run_name="restore {installation}", persist_result=False)
def restore(
    archive: str,
    installation: str = "default",
    source_database: str = "",
    include: list[str] = [],  # noqa: B006 - never changed; the form shows an empty list
    exclude: list[str] = [],  # noqa: B006
    rename: dict[str, str] = {},  # noqa: B006
    exact: bool = False,  # noqa: FBT001, FBT002 - a field of the form
    merge: str = "",
    other_installation: bool = False,  # noqa: FBT001, FBT002
    give_up: bool = False,  # noqa: FBT001, FBT002
    safety_backup: bool = True,  # noqa: FBT001, FBT002
    ask_cluster: bool = True,  # noqa: FBT001, FBT002
    backup_dir: str = "",
    engine: Literal["auto", "native", "mongodump"] | None = None,
) -> dict[str, Any]:
    """Put the database of an Apinizer installation back from a backup; the manager must be scaled to 0 before.

    Args:
        archive: The path of the backup's .archive file on the worker's machine.
        installation: The name of the block "Apinizer installation"; its database is the one that is written.
        source_database: The database's name in the archive, where it is another than the installation's.
        include: Only these collections; names or patterns such as env_*. All if empty.
        exclude: Not these collections; names or patterns.
        rename: A collection's name in the archive and the name that it gets, e.g. {"policy": "policy_of_may"}.
        exact: Drop collections that the archive does not hold, so that the database is what it was then and nothing else.
        merge: Bring documents into collections that stay: ours, theirs or newest:FIELD decides where both have one of the same _id.
        other_installation: Take an archive that is of another installation.
        give_up: Begin though another restore is half done; what that one put in place already is replaced or left.
        safety_backup: Back up the database as it is now, and prove that backup, before anything is replaced.
        ask_cluster: See that no manager runs, before and all the while. Only for a database that no cluster's manager uses is it off.
        backup_dir: The folder for that backup; the installation's own, or ./backups, if empty.
        engine: Who writes the database; mongodump means mongorestore, which replaces in place. The installation's choice if empty.
    """
    settings = settings_of(installation)
    order = BackupOrder.of(settings, directory=backup_dir, engine=engine, whole_server=False, leave_out=())
    with ExitStack() as stack:
        stack.enter_context(session(installation, clusters=ask_cluster))
        stack.enter_context(recorded(installation, run=str(flow_run.id or "")))
        stack.enter_context(managers_watched(installation))
        run = stack.enter_context(Passage("restore", NOTHING_CHANGED, {"restore": BEGUN}, told=_told))
        source = run.value(run.submit(find_database, installation, ""))
        if ask_cluster:
            # What a half done run would go on with or go back to is not to change under it.
            run.submit(take_lock, installation, f"restore of {source.name} from {Path(archive).name}")
            run.submit(require_none_before, installation)
            run.submit(require_no_manager, installation)
        request = RestoreRequest(
            database=source.name,
            source_database=source_database,
            include=tuple(include),
            exclude=tuple(exclude),
            rename=rename,
            exact=exact,
            merge=MergeRule.parse(merge) if merge else None,
            other_installation=other_installation,
            give_up=give_up,
        )
        asked = (installation, source.manager, archive, request, order, safety_backup, source.version)
        planned = run.submit(plan_restore, *asked)
        safety = None
        if safety_backup and needs_safety(run.value(planned)):
            run.submit(check_place, order)
            made = run.submit(back_up, installation, source.manager, order, source.version)
            safety = run.value(run.submit(prove_backup, made))
        kept = safety.archive if safety else ""
        done = run.submit(
            restore_archive, installation, source.manager, archive, request, planned, order, kept, ask_cluster
        )
        run.finish()
        return done.result().model_dump(mode="json") | {"safety_backup": safety.where if safety else ""}


def _told(error: UpgradeError) -> UpgradeError:
    return error if error.safe == NOTHING_CHANGED else as_failure(error)
