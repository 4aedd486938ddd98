"""What a restore by mongorestore is not begun with, beside the plan's own refusals."""

from collections.abc import Callable

from tasks.database.restore.plan import Action, RestorePlan, RestoreRequest, Safety, Verb
from tasks.database.tools.address import Address
from tasks.database.tools.expected import Expected
from tasks.database.tools.find import Tool
from tasks.domain.errors import BlockedError, UsageError


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


def need_safety(plan: RestorePlan, held: Safety | None, count: Callable[[Action], int]) -> None:
    """Raises BlockedError where something would be replaced that no proved backup holds.

    `held` is what the safety backup was found to be, `count` gives how many documents a collection holds now: exactly,
    for the plan's figures are the server's own.
    """
    at_risk = [a for a in plan.actions if a.verb in {Verb.REPLACE, Verb.DROP} and a.kind_now not in {"", "view"}]
    if not at_risk:
        return
    happened = f"mongorestore would replace {len(at_risk)} collections of {plan.database} in place."
    next_ = "Take a backup of the database as it is now and let it be proved, or use --engine native."
    if held is None:
        raise BlockedError(happened, observed="There is no backup of what is there now.", next=next_)
    if held.problem:
        raise BlockedError(
            happened, observed=f"The backup {held.name} cannot be relied on: {held.problem}.", next=next_
        )
    missing = [a.target.collection for a in at_risk if held.holds.get(a.target.collection) != count(a)]
    if missing:
        raise BlockedError(
            happened,
            observed=f"The backup {held.name} does not hold these as they are now: {', '.join(missing)}.",
            next=next_,
        )
