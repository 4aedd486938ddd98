"""What it means to abandon a run: said before a person agrees to it, and once more when it is done.  Pure."""

from collections.abc import Sequence

from tasks.domain.journal import Journal, half_restored, ways_on


def consequence(journal: Journal, journals: Sequence[Journal]) -> str:
    """How the installation stays, and what that means for other runs; `journals` are all of the installation."""
    if not journal.changed:
        return "Nothing was changed by it."
    if journal.kind == "upgrade":
        return _of_upgrade(journal)
    if not journal.of:
        return f"{journal.options.get('undo', 'The component')} stays as it is, and resume does not go on with it any more."
    return "\n".join(filter(None, (_of_rollback(journal, journals), _of_database(journal))))


def ways_after(journal: Journal, journals: Sequence[Journal]) -> tuple[str, ...]:
    """What can be done once it is abandoned: of a rollback what its upgrade, where that is unfinished, can do too."""
    undone = _undone(journal, journals)
    others = [each for each in journals if each.id != journal.id]
    further = ways_on(undone, others) if undone and undone.unfinished else ()
    return tuple(dict.fromkeys([*ways_on(journal, others), *further]))


def _of_upgrade(journal: Journal) -> str:
    kept = journal.backup
    touched = dict.fromkeys(
        f"{entry.subject}{'' if entry.done else ' (its outcome is not known)'}"
        for entry in journal.entries
        if entry.changes
    )
    told = f"It changed {', '.join(touched)}: that stays as it is, and resume does not go on with it any more."
    return f"{told} The database as it was before is in {kept.archive} on {kept.host}." if kept else told


def _of_rollback(journal: Journal, journals: Sequence[Journal]) -> str:
    undone = _undone(journal, journals)
    if undone is not None and undone.unfinished:
        return (
            f"The installation stays half way back. The upgrade {undone.id} that it undoes is unfinished then, and "
            "blocks other runs until it goes on, is rolled back or is abandoned too."
        )
    how = f" has ended ({undone.how})" if undone else " is not recorded any more"
    return (
        f"The installation stays half way back. The upgrade {journal.of} that it undoes{how}, so nothing stops another "
        "run from beginning on it as it is."
    )


def _of_database(journal: Journal) -> str:
    name = half_restored(journal)
    if not name:
        return ""
    return (
        f"{name} was being put back: some of its collections may be as the backup has them, others as they were. Start "
        "nothing on it before it was put back whole."
    )


def _undone(journal: Journal, journals: Sequence[Journal]) -> Journal | None:
    return next((each for each in journals if each.id == journal.of), None)
