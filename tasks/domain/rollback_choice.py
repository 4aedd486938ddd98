"""Which upgrade a rollback is to undo, and whether a rollback of it is under way already.  Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from tasks.domain.errors import BlockedError, UsageError
from tasks.domain.journal import Journal, find_journal, require_none_unfinished


class Choice(NamedTuple):
    """The upgrade to undo, and the rollback that goes on, None where one begins."""

    upgrade: Journal
    under_way: Journal | None = None


def choose_rollback(journals: Sequence[Journal], run: str = "") -> Choice:
    """`run` is the ID of an upgrade, or of a rollback that goes on; without one the newest upgrade is meant.

    Raises UsageError for an ID that is none, BlockedError where another run is unfinished or it is a rollback that
    has ended.
    """
    named = find_journal(journals, run) if run else _newest(journals)
    if named.kind == "rollback":
        choice = Choice(_undone(journals, named), _unfinished(named))
    else:
        under_way = next((j for j in journals if j.kind == "rollback" and j.of == named.id and j.unfinished), None)
        choice = Choice(named, under_way)
    mine = {choice.upgrade.id, choice.under_way.id if choice.under_way else ""}
    require_none_unfinished(j for j in journals if j.id not in mine)
    return choice


def _newest(journals: Sequence[Journal]) -> Journal:
    """The rollback that is unfinished, else the newest upgrade, one that changed nothing only where there is no other."""
    known = sorted(journals, key=lambda j: j.begun, reverse=True)
    upgrades = [j for j in known if j.kind == "upgrade"]
    first = (
        [j for j in known if j.kind == "rollback" and j.of and j.unfinished],
        [j for j in upgrades if j.unfinished and j.changed],
        [j for j in upgrades if j.changed],
        upgrades,
    )
    found = next((few[0] for few in first if few), None)
    if found is None:
        raise UsageError(
            "There is no upgrade to go back from.",
            observed="No run is recorded in the manager's namespace.",
            next="An upgrade that was made without this program, or whose record was removed, is undone by hand: scale "
            "the manager to 0, apinizer-upgrade restore ARCHIVE --exact, then set the old images, the manager first.",
        )
    return found


def _undone(journals: Sequence[Journal], rollback: Journal) -> Journal:
    if not rollback.of:
        raise BlockedError(
            f"{rollback.id} put one component back alone, so it is no rollback of an upgrade.",
            observed=f"It {'is unfinished' if rollback.unfinished else 'has ended'}.",
            next=f"apinizer-upgrade resume {rollback.id}   goes on with it"
            if rollback.unfinished
            else "apinizer-upgrade runs   lists the upgrades",
        )
    found = next((j for j in journals if j.id == rollback.of), None)
    if found is None:
        raise BlockedError(
            f"The upgrade {rollback.of} that {rollback.id} undoes is not recorded any more.",
            observed="Its record in the manager's namespace was removed.",
            next=f"apinizer-upgrade runs show {rollback.id} tells how far it came; what is left is done by hand.",
        )
    return found


def _unfinished(rollback: Journal) -> Journal:
    if rollback.unfinished:
        return rollback
    raise BlockedError(
        f"{rollback.id} is a rollback, and has ended: {rollback.how}.",
        observed=f"It undid the upgrade {rollback.of}.",
        next="To go forward again: apinizer-upgrade upgrade --to VERSION.",
    )
