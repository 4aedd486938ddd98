"""A restore as Prefect tasks: no manager, the plan, the restore under guard."""

from contextlib import ExitStack
from pathlib import Path

from prefect import task

from tasks.cluster.manager_pods import watch_managers
from tasks.cluster.session import connected
from tasks.database.connection import open_database
from tasks.database.order import BackupOrder
from tasks.database.putting_back import find_restorer, put_back, stands_against
from tasks.database.restore.look import look
from tasks.database.restore.plan import RestorePlan, RestoreRequest
from tasks.database.restore.plan_text import evidence_markdown, plan_markdown
from tasks.database.restore.progress import RestoreEvidence, RestoreProgress
from tasks.database.source import address_of
from tasks.database.steps import megabytes
from tasks.domain.inventory import DeploymentKey
from tasks.record import stopping
from tasks.record.artifacts import flush, keep_page
from tasks.record.feed import State
from tasks.record.shares import ShareTold
from tasks.record.task_rules import LOOKS, PATIENT
from tasks.record.telling import failure_told, tell

FLUSH_SECONDS = 15.0
DOING = {
    "prove": "reading the archive",
    "load": "loading",
    "oplog": "applying the oplog",
    "index": "building indexes of",
    "check": "checking",
    "rename": "putting in place",
    "drop": "dropping",
    "merge": "merging",
}


@task(name="no manager", task_run_name="no manager", **LOOKS)
def require_no_manager(installation: str) -> None:
    """Raise `BlockedError` where a manager runs, ends or is wanted."""
    tell("manager", State.RUNNING, "looking for its pods")
    with failure_told("manager"), watch_managers(connected(installation)):
        tell("manager", State.DONE, "no pod of a manager exists")


@task(name="restore plan", task_run_name="restore plan", **PATIENT)
def plan_restore(
    installation: str,
    manager: DeploymentKey | None,
    archive: str,
    request: RestoreRequest,
    engine: str,
    safety_comes: bool,  # noqa: FBT001 - a task's parameter
) -> RestorePlan:
    """Prove the archive, decide what happens to each collection, keep that as an artifact; raise the plan's refusal.

    With `safety_comes` a plan that lacks nothing but the backup of what is there now is not refused yet, nor is one
    that another engine can carry out, unless `engine` is native.
    """
    tell("plan", State.RUNNING, f"reading {archive}")
    shares = ShareTold("plan")
    with (
        failure_told("plan"),
        open_database(address_of(connected(installation), manager).uri.get_secret_value()) as client,
    ):
        plan = look(
            client,
            Path(archive),
            request,
            progress=lambda done, total: shares.show(done, total, "reading the archive back"),
            stop=stopping.asked,
        )
        keep_page("restore-plan", plan_markdown(plan), f"Restore {plan.database}")
        if plan.refused is not None and stands_against(plan, engine, safety_comes=safety_comes):
            raise plan.refused.error()
    for sentence in plan.sentences:
        tell("plan", State.LOG, sentence)
    tell("plan", State.DONE, f"{plan.documents} documents of {len(plan.loads)} collections, {megabytes(plan.bytes)}")
    return plan


@task(name="restore", task_run_name="restore {request.database}", **PATIENT)
def restore_archive(
    installation: str,
    manager: DeploymentKey | None,
    archive: str,
    request: RestoreRequest,
    plan: RestorePlan,
    order: BackupOrder,
    safety: str,
    ask_cluster: bool,  # noqa: FBT001 - a task's parameter
) -> RestoreEvidence:
    """Put the database back; tried again it goes on where it ended.

    `order` names the engine; `safety` is the path of the backup of what is there now, or "".  With `ask_cluster` no
    manager may appear meanwhile.
    """
    connections = connected(installation)
    tell("restore", State.RUNNING, f"{request.database} from {archive}")
    shares = ShareTold("restore", f"Restore of {request.database}")

    def progress(at: RestoreProgress) -> None:
        text = f"{DOING[at.phase]} {at.collection}".strip()
        if at.phase == "load":
            text += f": {at.documents} documents, {megabytes(at.bytes_done)}"
        shares.show(at.bytes_done, at.bytes_expected, text)

    with ExitStack() as stack:
        stack.enter_context(failure_told("restore"))
        address = address_of(connections, manager)
        watch = stack.enter_context(watch_managers(connections)) if ask_cluster else None
        evidence = put_back(
            address.uri,
            Path(archive),
            request,
            find_restorer(order.engine, order.ssh, plan),
            guard=watch.check if watch else lambda: None,
            safety=Path(safety) if safety else None,
            progress=progress,
            stop=stopping.asked,
        )
    shares.complete("done")
    for note in evidence.notes:
        tell("restore", State.LOG, note)
    keep_page("restored", evidence_markdown(evidence, safety), f"Restored {evidence.database}")
    flush(FLUSH_SECONDS)
    tell(
        "restore", State.DONE, f"{evidence.documents} documents, {megabytes(evidence.bytes)}, every collection checked"
    )
    return evidence
