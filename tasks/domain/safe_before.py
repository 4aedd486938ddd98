"""What is safe where this process has changed nothing yet, but an unfinished run may have before it.  Pure."""

from collections.abc import Iterable

from tasks.domain.errors import NOTHING_CHANGED
from tasks.domain.journal import Journal, newest_first
from tasks.domain.rollback_safe import safe_in_rollback

NOT_THIS_TRY = "This try changed nothing."


def standing(journals: Iterable[Journal]) -> Journal | None:
    """The unfinished run that has changed something, where there is one: a rollback rather than what it undoes."""
    return next((j for j in newest_first(journals) if j.unfinished and j.changed), None)


def safe_before(journal: Journal | None) -> str:
    """The sentences on what is safe, where `journal` is of the run that is unfinished or goes on."""
    if journal is None or not journal.changed:
        return NOTHING_CHANGED
    if journal.kind == "rollback":
        return f"{NOT_THIS_TRY} The rollback {journal.id} before it:\n{safe_in_rollback(journal)}"
    touched = dict.fromkeys(entry.subject for entry in journal.entries if entry.changes)
    told = f"{NOT_THIS_TRY} Changed by the run {journal.id} before: {', '.join(touched)}."
    if journal.backup is None:
        return told
    made = f"{journal.backup.archive} on {journal.backup.host}"
    # Whether it is so still, this try may just have found to be otherwise.
    return f"{told}\nThe database as it was before was written to {made}, and read back whole then."
