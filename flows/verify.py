"""A proof of a backup: its archive read back whole; on wish restored on trial, each collection compared."""

from contextlib import ExitStack
from typing import Any

from prefect import flow

from blocks.installation import installation as settings_of
from flows.passage import Passage
from tasks.cluster.session import session
from tasks.database.steps import find_database, prove_archive, rehearse_archive
from tasks.domain.errors import NOTHING_CHANGED


@flow(name="verify", flow_run_name="verify {archive}", persist_result=False)
def verify(
    archive: str,
    installation: str = "default",
    rehearse: bool = False,  # noqa: FBT001, FBT002 - a field of the form
    scratch_database: str = "",
) -> dict[str, Any]:
    """Read a backup back whole, and restore it on trial if wished; no database but the scratch one is written.

    Args:
        archive: The path of the backup's .archive file on the worker's machine.
        installation: The name of the block "Apinizer installation"; only a rehearsal asks for it.
        rehearse: Restore the archive into a scratch database, compare every collection there, and drop it again. It is on the installation's second server if it names one, else beside the Apinizer database.
        scratch_database: The scratch database's name, apinizer_rehearsal if empty; there must be none of that name.
    """
    with ExitStack() as stack:
        run = stack.enter_context(Passage("proof", NOTHING_CHANGED))
        proved = run.submit(prove_archive, archive)
        if not (rehearse or scratch_database):
            run.finish()
            return proved.result().model_dump(mode="json")
        settings = settings_of(installation)
        second = settings.backup.second_server is not None
        alone = second or settings.database.given_uri() is not None
        stack.enter_context(session(installation, clusters=not alone))
        manager = None if second else run.value(run.submit(find_database, installation, "")).manager
        rehearsed = run.submit(rehearse_archive, installation, manager, archive, scratch_database)
        run.finish()
        rehearsal = rehearsed.result().model_dump(mode="json")
        return proved.result().model_dump(mode="json") | {"rehearsal": rehearsal}
