"""Going on with a run that did not come to its end: at the first step whose effect is not in the world."""

from dataclasses import replace
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from blocks.installation import installation as settings_of
from flows.rollback import rollback
from flows.undo import undo
from flows.upgrade import MANAGER_TIMEOUT, TIMEOUT, Wish, carried_out
from tasks.cluster.session import session
from tasks.domain.errors import before_any_change
from tasks.domain.journal import Journal
from tasks.domain.way import Way
from tasks.record import stopping
from tasks.record.run_steps import find_run


@flow(name="resume", flow_run_name="resume {installation} {run}", persist_result=False)
def resume(
    run: str = "",
    installation: str = "default",
    way: Way | None = None,
    backup_dir: str = "",
    manager_timeout: Annotated[int, Field(ge=1)] | None = None,
    timeout: Annotated[int, Field(ge=1)] | None = None,
) -> dict[str, Any]:
    """Go on with an unfinished upgrade or rollback; any machine that reaches the cluster can, the journal is there.

    Every step looks whether its effect is in the world already. Once the manager's image was to be set, the backup
    that was made before stays the one of before.

    Args:
        run: The ID of the run, or how it begins; the newest unfinished one if empty. apinizer-upgrade runs lists them.
        installation: The name of the block "Apinizer installation".
        way: How images that are still missing come to the nodes; as the run had it, or the installation's own, if empty.
        backup_dir: The folder for a backup that is still to be made; as the run had it if empty.
        manager_timeout: Seconds that the manager may take; as the run had it if empty.
        timeout: Seconds that any other component may take; as the run had it if empty.
    """
    stopping.clear()
    # Without the lock: what is found here is only what to ask for.
    with session(installation), before_any_change():
        journal = find_run(installation, run)
    if journal.kind == "rollback" and not journal.of:
        return undo(
            str(journal.options["undo"]),
            journal.to.text,
            installation,
            repositories=dict(journal.request.repositories) if journal.request else {},
            way=way,
            timeout=timeout or int(journal.options.get("timeout", TIMEOUT)),
            run=journal.id,
        )
    if journal.kind == "rollback":
        # Only what was named: a rollback that was to leave the database alone does not put it back unasked.
        return rollback(
            run=journal.id,
            installation=installation,
            backup=str(journal.options.get("backup", "")),
            way=way or way_of(journal, settings_of(installation).images.way),
            backup_dir=backup_dir or str(journal.options.get("backup_dir", "")),
            manager_timeout=manager_timeout or int(journal.options.get("manager_timeout", MANAGER_TIMEOUT)),
            timeout=timeout or int(journal.options.get("timeout", TIMEOUT)),
        )
    wish = Wish.of(journal)
    return carried_out(
        installation,
        replace(
            wish,
            way=way or way_of(journal, settings_of(installation).images.way),
            backup_dir=backup_dir or wish.backup_dir,
            manager_timeout=manager_timeout or wish.manager_timeout,
            timeout=timeout or wish.timeout,
        ),
        journal,
    )


def way_of(journal: Journal, here: Way) -> Way:
    """The way that the run had, where this machine's settings say none but the default."""
    said = str(journal.options.get("way", ""))
    return Way(said) if said in list(Way) and here is Way.ONLINE else here
