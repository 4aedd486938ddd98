"""A backup: the database reached, dumped, the archive read back whole, old backups let go."""

from typing import Annotated, Any, Literal

from prefect import flow
from pydantic import Field

from blocks.installation import installation as settings_of
from flows.passage import Passage
from tasks.cluster.session import session
from tasks.database.order import BackupOrder
from tasks.database.steps import back_up, check_place, find_database, prove_backup, reach_database, retire_backups
from tasks.domain.errors import NOTHING_CHANGED


@flow(name="backup", flow_run_name="backup {installation}", persist_result=False)
def backup(
    installation: str = "default",
    backup_dir: str = "",
    apinizer_version: str = "",
    engine: Literal["auto", "native", "mongodump"] | None = None,
    whole_server: bool | None = None,  # noqa: FBT001 - a field of the form
    leave_out: list[str] | None = None,
    gzip: bool = True,  # noqa: FBT001, FBT002
    keep: Annotated[int, Field(ge=1)] | None = None,
    keep_days: Annotated[int, Field(ge=1)] | None = None,
    ephemeral_allowed: bool | None = None,  # noqa: FBT001
) -> dict[str, Any]:
    """Back up the database of an Apinizer installation and read the backup back whole; nothing else is changed.

    Args:
        installation: The name of the block "Apinizer installation"; it holds the database or the cluster whose secret names it.
        backup_dir: The folder for the backup on the worker's machine; the installation's own, or ./backups, if empty.
        apinizer_version: The version in the backup's name; the running manager's, or "unknown", if empty.
        engine: Who reads the database; auto takes the native engine where it can. The installation's choice if empty.
        whole_server: All databases of the server, as the published command has it. The installation's choice if empty.
        leave_out: Collections that are left out, such as apinizer_log; a restore cannot bring them back.
        gzip: Whether the archive is compressed.
        keep: How many backups are kept; the installation's own figure if empty.
        keep_days: Backups older than so many days are removed, the newest proved one never. The installation's own if empty.
        ephemeral_allowed: Take a folder that ends with the worker's container.
    """
    settings = settings_of(installation)
    order = BackupOrder.of(
        settings,
        directory=backup_dir,
        engine=engine,
        whole_server=whole_server,
        leave_out=tuple(leave_out) if leave_out else None,
        gzip=gzip,
        keep=keep,
        keep_days=keep_days,
        ephemeral_allowed=ephemeral_allowed,
    )
    needs_cluster = settings.database.given_uri() is None or not apinizer_version
    with session(installation, clusters=needs_cluster), Passage("backup", NOTHING_CHANGED) as run:
        run.submit(check_place, order)
        source = run.value(run.submit(find_database, installation, apinizer_version))
        run.submit(reach_database, installation, source.manager, source.environments, order.ssh)
        archive = run.submit(back_up, installation, source.manager, order, source.version)
        proved = run.submit(prove_backup, archive)
        removed = run.submit(retire_backups, order, proved, installation)
        run.finish()
        return {**proved.result().model_dump(mode="json"), "version": source.version, "removed": list(removed.result())}
