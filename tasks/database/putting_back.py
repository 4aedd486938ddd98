"""A restore by the engine that can: this software itself, or mongorestore where that is asked for or needed."""

from collections.abc import Callable
from pathlib import Path

from pydantic import SecretStr

from tasks.database.connection import Client, facts, open_database
from tasks.database.engine import Engine, EngineFacts, choose
from tasks.database.order import BackupOrder
from tasks.database.restore.plan import Refusal, RestorePlan, RestoreRequest
from tasks.database.restore.plan_text import remarks
from tasks.database.restore.progress import RestoreEvidence, RestoreProgress
from tasks.database.restore.run import restore
from tasks.database.slot import require_place
from tasks.database.source import UNKNOWN
from tasks.database.tools.find import Tool, find
from tasks.database.tools.restoring import restore_with_tool
from tasks.domain.journal import Journal


def what_stands_against(plan: RestorePlan, engine: str, *, safety_comes: bool) -> Refusal | None:
    """The reason not to begin that neither the safety backup to come nor another engine takes away.  Pure."""
    refused = plan.refused
    if refused is not None and refused.needs_safety and safety_comes:
        refused = plan.native_only
    if refused is not None and refused.native_only and engine != Engine.NATIVE:
        return None
    return refused


def require_safety_place(client: Client, database: str, order: BackupOrder, under_way: Journal | None) -> None:
    """Raise UsageError or BlockedError where the safety backup could not be written: known before the manager is stopped.

    A rollback that goes on may have its safety backup already.
    """
    if under_way is None or under_way.safety is None:
        require_place(Path(order.directory), facts(client, database).size, gzip=order.gzip)


def find_restorer(engine: str, ssh: str, plan: RestorePlan) -> Tool | None:
    """The tool that restores, None for this software itself.

    Raises UsageError and BlockedError where what is asked for or needed is not installed.
    """
    refused = plan.native_only
    cannot = f"{refused.happened} {refused.observed}" if refused is not None else ""
    wish = Engine(engine)
    if wish is Engine.NATIVE or (wish is Engine.AUTO and not cannot):
        return None
    there = find("mongorestore", ssh) if ssh else None
    here = find("mongorestore")
    facts = EngineFacts(
        ssh=ssh, here=here.version if here else "", there=there.version if there else "", native_cannot=cannot
    )
    choice = choose(wish, facts)
    if choice.engine is Engine.NATIVE:
        return None
    return there if choice.where == "ssh" else here


def with_remarks(
    plan: RestorePlan, engine: str, ssh: str, *, safety_comes: bool, version: str = UNKNOWN
) -> RestorePlan:
    """The plan with sentences on who carries it out, what cannot be undone, and data of another version than `version`.

    Raises as `find_restorer` does.
    """
    tool = find_restorer(engine, ssh, plan)
    name = f"{tool.program} {tool.version}{f' on {tool.ssh}' if tool.ssh else ''}" if tool else ""
    more = (*remarks(plan, name, safety_comes=safety_comes), *_of_another_version(plan, version))
    return plan.model_copy(update={"sentences": (*plan.sentences, *more)})


def _of_another_version(plan: RestorePlan, version: str) -> tuple[str, ...]:
    """A sentence where the archive's data is not of the manager's version, as far as both are known."""
    if UNKNOWN in (plan.version or UNKNOWN, version or UNKNOWN) or plan.version == version or not plan.loads:
        return ()
    behaves = "a manager migrates data of an older version, and does not start with that of a newer one"
    return (f"The archive is of Apinizer {plan.version}, the manager of {version}: {behaves}.",)


def put_back(
    uri: SecretStr,
    archive: Path,
    request: RestoreRequest,
    tool: Tool | None,
    *,
    guard: Callable[[], None],
    safety: Path | None,
    progress: Callable[[RestoreProgress], None],
    stop: Callable[[], bool],
) -> RestoreEvidence:
    """Restore with `tool`, or natively; the errors are those of `restore` and `restore_with_tool`."""
    if tool is not None:
        return restore_with_tool(tool, uri, archive, request, guard=guard, safety=safety, progress=progress, stop=stop)
    with open_database(uri.get_secret_value()) as client:
        return restore(client, archive, request, guard=guard, safety=safety, progress=progress, stop=stop)
