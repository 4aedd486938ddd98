"""When an upgrade that failed may go back by itself: only from a manager that failed for good before it ever served.  Pure."""

from collections.abc import Sequence

from tasks.domain.errors import NOTHING_CHANGED, HopelessError, StoppedError, UpgradeError
from tasks.domain.journal import BackupMade, Journal, newest_first
from tasks.domain.safe_before import NOT_THIS_TRY


def may_go_back(error: UpgradeError, journals: Sequence[Journal], tries: int = 1) -> tuple[Journal, BackupMade] | None:
    """The upgrade to undo and its backup, or None where a person has to decide.

    A deadline that ended is no such failure: a slow migration may still be at work.  Nor is one of any other component:
    the manager serves then, and what was written through it would be lost.  A later try has not seen what the manager
    did between the tries: it may have served then, whatever it does now.  So the try that failed has to be the one that
    set the manager's image; it was the one of number `tries`, and none came after it.
    """
    if not isinstance(error, HopelessError):
        return None
    journal = next((j for j in newest_first(journals) if j.unfinished), None)
    if journal is None or journal.kind != "upgrade" or journal.backup is None or len(journal.tries) != tries:
        return None
    changed = [entry for entry in journal.entries if entry.changes]
    manager_alone = bool(changed) and all(entry.key == journal.manager for entry in changed)
    served = any("answered" in entry.evidence for entry in changed)
    return (journal, journal.backup) if manager_alone and not served else None


def left_as_it_is(error: HopelessError, why: str, *, stopped: bool) -> UpgradeError:
    """The manager's failure, where it may not have failed for good: it is not undone by itself.  `why` is a sentence."""
    kind = StoppedError if stopped else HopelessError
    told = "It was not rolled back by itself, since it is not sure that the manager failed for good."
    return kind(error.happened, observed=f"{error.observed}\n{told} {why}", safe=error.safe, next=error.next)


def not_gone_back(error: HopelessError, stopped: UpgradeError) -> UpgradeError:
    """The manager's failure stays the news, with what stopped the way back.

    Where that one changed nothing, what is safe is as the upgrade left it.
    """
    unchanged = stopped.safe == NOTHING_CHANGED or stopped.safe.startswith(NOT_THIS_TRY)
    kind = StoppedError if isinstance(stopped, StoppedError) else HopelessError
    return kind(
        f"{error.happened} The rollback that followed stopped: {stopped.happened}",
        observed=f"{error.observed}\nThe rollback: {stopped.observed}",
        safe=error.safe if unchanged else stopped.safe,
        next="\n".join(dict.fromkeys([*stopped.next.splitlines(), *(error.next.splitlines() if unchanged else ())])),
    )
