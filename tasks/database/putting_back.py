"""A restore by the engine that can: this software itself, or mongorestore where that is asked for or needed."""

from collections.abc import Callable
from pathlib import Path

from pydantic import SecretStr

from tasks.database.connection import open_database
from tasks.database.engine import Engine, EngineFacts, choose
from tasks.database.restore.plan import RestorePlan, RestoreRequest
from tasks.database.restore.progress import RestoreEvidence, RestoreProgress
from tasks.database.restore.run import restore
from tasks.database.tools.find import Tool, find
from tasks.database.tools.restoring import restore_with_tool


def stands_against(plan: RestorePlan, engine: str, *, safety_comes: bool) -> bool:
    """Whether the plan's refusal is one that neither the safety backup to come nor another engine takes away.  Pure."""
    refused = plan.refused
    if refused is None:
        return False
    bridged = safety_comes and refused.needs_safety
    elsewhere = engine != Engine.NATIVE and refused.native_only
    return not (bridged or elsewhere)


def find_restorer(engine: str, ssh: str, plan: RestorePlan) -> Tool | None:
    """The tool that restores, None for this software itself.

    Raises UsageError and BlockedError where what is asked for or needed is not installed.
    """
    refused = plan.refused
    cannot = f"{refused.happened} {refused.observed}" if refused is not None and refused.native_only else ""
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
