"""A restore as Prefect tasks: no manager from the first look to the end, the plan, the restore under guard."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from prefect import task
from prefect.runtime import task_run

from tasks.cluster.manager_pods import ManagerWatch, watch_managers
from tasks.cluster.session import connected
from tasks.database.connection import open_database
from tasks.database.needed import needed_for_restore
from tasks.database.order import BackupOrder
from tasks.database.putting_back import find_restorer, put_back, what_stands_against, with_remarks
from tasks.database.restore.look import look
from tasks.database.restore.plan import RestorePlan, RestoreRequest
from tasks.database.restore.plan_text import evidence_markdown, plan_markdown
from tasks.database.restore.progress import RestoreEvidence, RestoreProgress
from tasks.database.source import UNKNOWN, address_of
from tasks.database.steps import need_of
from tasks.domain.amounts import megabytes
from tasks.domain.errors import NOTHING_CHANGED, StoppedError, UpgradeError, before_any_change
from tasks.domain.inventory import DeploymentKey
from tasks.record import stopping
from tasks.record.artifacts import flush, keep_page
from tasks.record.feed import State
from tasks.record.run_record import held_record
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


BEGUN = (
    "The restore had begun, and how far it came is not known: of the collections that its plan names (the artifact "
    "restore-plan) some may be as the archive has them already. Start nothing on this database before the same "
    "restore was run again to its end; it goes on where it was."
)


class _Guard(ExitStack):
    """One run's watch over the managers, held open from the first look on."""

    watch: ManagerWatch | None = None


_guards: dict[str, _Guard] = {}


@contextmanager
def managers_watched(installation: str) -> Iterator[None]:
    """While the context lasts, the watch that `require_no_manager` begins goes on without a gap, whatever steps follow."""
    with _Guard() as guard:
        _guards[installation] = guard
        try:
            yield
        finally:
            del _guards[installation]


@task(name="no manager", task_run_name="no manager", **LOOKS)
def require_no_manager(installation: str) -> None:
    """Raise `BlockedError` where a manager runs, ends or is wanted; from now on any that appears is remembered."""
    tell("manager", State.RUNNING, "looking for its pods")
    guard = _guards[installation]
    with failure_told("manager"):
        guard.watch = guard.enter_context(watch_managers(connected(installation)))
    tell("manager", State.DONE, "no pod of a manager exists")


def ask_for_managers(installation: str) -> None:
    """Raise `DriftError` where one appeared since the first look, `StoppedError` where the run's lock is not held any more."""
    guard = _guards.get(installation)
    if guard is None or guard.watch is None:
        # The run ended while this thread was still waiting for an answer: nothing may be written any more.
        raise StoppedError("The restore was stopped.", observed="Its run has ended.", safe=BEGUN)
    guard.watch.check()
    record = held_record(installation)
    if record.manager is not None:
        record.require()


@task(name="restore plan", task_run_name="restore plan", **PATIENT)
def plan_restore(
    installation: str,
    manager: DeploymentKey | None,
    archive: str,
    request: RestoreRequest,
    order: BackupOrder,
    safety_comes: bool,  # noqa: FBT001 - a task's parameter
    version: str = UNKNOWN,
) -> RestorePlan:
    """Prove the archive, decide what happens to each collection, keep that as an artifact; raise the plan's refusal.

    `version` is the manager's.

    With `safety_comes` a plan that lacks nothing but the backup of what is there now is not refused yet, nor is one
    that another engine can carry out, unless the order's is native.
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
        against = what_stands_against(plan, order.engine, safety_comes=safety_comes)
        if against is None:
            plan = with_remarks(plan, order.engine, order.ssh, safety_comes=safety_comes, version=version)
        keep_page("restore-plan", plan_markdown(plan), f"Restore {plan.database}")
        if against is not None:
            raise against.error()
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

    def guard() -> None:
        if ask_cluster:
            ask_for_managers(installation)

    return put_back_guarded(installation, manager, archive, request, plan, order, safety, guard)


def put_back_guarded(
    installation: str,
    manager: DeploymentKey | None,
    archive: str,
    request: RestoreRequest,
    plan: RestorePlan,
    order: BackupOrder,
    safety: str,
    guard: Callable[[], None],
) -> RestoreEvidence:
    """What `restore_archive` does; `guard` raises where the run may not go on, and is asked before every change."""
    tell("restore", State.RUNNING, f"{request.database} from {archive}")
    shares = ShareTold("restore", f"Restore of {request.database}")

    def progress(at: RestoreProgress) -> None:
        text = f"{DOING[at.phase]} {at.collection}".strip()
        if at.phase == "load":
            text += f": {at.documents} documents, {megabytes(at.bytes_done)}"
        shares.show(at.bytes_done, at.bytes_expected, text)

    def say(sentence: str) -> None:
        tell("restore", State.LOG, sentence)

    with failure_told("restore"), _again():
        with before_any_change():  # what stops it here says nothing of the database
            guard()  # the safety backup took its time
        address = address_of(connected(installation), manager)
        need = need_of(address, "restore", archive=Path(archive).name)
        kept = Path(safety) if safety else None
        with needed_for_restore(need, Path(archive), kept, Path(order.directory), say, give_up=request.give_up):
            evidence = put_back(
                address.uri,
                Path(archive),
                request,
                find_restorer(order.engine, order.ssh, plan),
                guard=guard,
                safety=kept,
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


@contextmanager
def _again() -> Iterator[None]:
    """A later try that ends before its own first change does not know what the tries before it changed."""
    try:
        yield
    except UpgradeError as error:
        if task_run.run_count > 1 and error.safe == NOTHING_CHANGED:
            raise error.with_safe(BEGUN) from None
        raise
