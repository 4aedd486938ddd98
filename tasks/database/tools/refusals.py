"""What a restore by mongorestore is not begun with, beside the plan's own refusals."""

import hashlib
from pathlib import Path

from tasks.database.manifest import load
from tasks.database.restore.plan import RestorePlan, RestoreRequest, Safety, Verb
from tasks.database.tools.address import Address
from tasks.database.tools.expected import Expected
from tasks.database.tools.find import Tool
from tasks.domain.errors import BlockedError, UsageError

_PIECE = 4 * 1024 * 1024


def refuse_loopback(tool: Tool, address: Address) -> None:
    """What is planned and checked from here must be what the tool over there writes to."""
    if tool.ssh and address.loopback:
        raise UsageError(
            f"The database's address is this machine's own, and {tool.ssh} is another.",
            observed=f"{address.hosts}.",
            next="Name the database by an address that means the same on both, or use --engine native.",
        )


def refuse_merge(request: RestoreRequest) -> None:
    """Raises UsageError for what mongorestore has no option for: a merge, and `$`, which is a variable in its patterns."""
    if request.merge is not None:
        raise UsageError(
            "mongorestore cannot merge.",
            observed="It either replaces a collection or leaves every document that is there.",
            next="Use --engine native for a merge.",
        )
    if any("$" in name for name in request.rename):
        raise UsageError(
            "mongorestore cannot rename a collection with a dollar sign in its name.",
            next="Use --engine native.",
        )


def refuse(plan: RestorePlan) -> None:
    """Raise the plan's refusal, except one that only the native engine has."""
    if plan.refused is not None and not plan.refused.native_only:
        raise plan.refused.error()


def refuse_oplog(hoped: Expected, request: RestoreRequest) -> None:
    """mongorestore applies an oplog only where it restores a whole server (mongorestore.go, ParseAndValidateOptions)."""
    if request.source in hoped.oplog_of:
        raise BlockedError(
            "mongorestore cannot apply the archive's oplog to one database.",
            observed=f"The oplog in the archive changes {request.source}: without it the restore is not one point in time.",
            next="Restore with --engine native, which applies it.",
        )


def need_safety(plan: RestorePlan, path: Path | None) -> None:
    """Raises BlockedError where something would be replaced that no proved backup holds."""
    at_risk = {
        action.target.collection: action.documents_now
        for action in plan.actions
        if action.verb in {Verb.REPLACE, Verb.DROP} and action.kind_now
    }
    if not at_risk:
        return
    happened = f"mongorestore would replace {len(at_risk)} collections of {plan.database} in place."
    next_ = "Take a backup of the database as it is now and let it be proved, or use --engine native."
    if path is None:
        raise BlockedError(happened, observed="There is no backup of what is there now.", next=next_)
    held = Safety.of(load(path), plan.database, path.name, _digest(path))
    if held.problem:
        raise BlockedError(
            happened, observed=f"The backup {held.name} cannot be relied on: {held.problem}.", next=next_
        )
    missing = [name for name, count in at_risk.items() if held.holds.get(name) != count]
    if missing:
        raise BlockedError(
            happened,
            observed=f"The backup {held.name} does not hold these as they are now: {', '.join(missing)}.",
            next=next_,
        )


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    except OSError:
        return ""
    return digest.hexdigest()
