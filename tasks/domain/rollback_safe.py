"""What is safe while a rollback is under way, from its journal alone.  Pure."""

from tasks.domain.errors import NOTHING_CHANGED
from tasks.domain.journal import BackupMade, Entry, Journal
from tasks.domain.rollback_restored import OVERTAKEN


def safe_in_rollback(journal: Journal | None, known: str = "") -> str:
    """The sentences that an operator needs first when a rollback has stopped; None: it has not begun.

    `known` is what the restore itself says of it, where that failed: it knows better than its journal how far it came.
    What other steps say is not of the database.
    """
    if journal is None or not journal.changed:
        return NOTHING_CHANGED
    restore = next((e for e in reversed(journal.entries) if e.kind == "restore" and e.changes), None)
    database = _database(journal, restore)
    if restore is not None and restore.done is None and known not in ("", NOTHING_CHANGED):
        database = known
    sentences = [_stopped(journal), database]
    if journal.safety is not None:
        sentences.append(f"The database as it was before the rollback is in {_where(journal.safety)}, read back whole.")
    sentences += [f"What was written to it since is in {_where(made)}, read back whole." for made in journal.later]
    sentences.append(_images(journal))
    return "\n".join(filter(None, sentences))


def _stopped(journal: Journal) -> str:
    """What was scaled down, with the count to come back to, and what of it is up again."""
    down: dict[str, int] = {}
    for entry in journal.entries:
        if entry.kind != "scale" or entry.before is None or entry.unmade:
            continue
        if entry.replicas == 0:
            down.setdefault(entry.subject, entry.before.replicas)
        elif entry.done is not None and entry.replicas == down.get(entry.subject):
            down.pop(entry.subject)
    if not down:
        return ""
    told = ", ".join(f"{subject} (it had {count})" for subject, count in down.items())
    return f"Scaled down for the rollback, and not yet as before: {told}."


def _database(journal: Journal, restore: Entry | None) -> str:
    if restore is None:
        return "The database was not touched."
    if restore.done is None:
        return (
            f"{restore.subject} was being put back: of its collections some may be as the backup has them, others as "
            "they were, each whole. Start nothing on it before this rollback has gone on to its end."
        )
    if OVERTAKEN in restore.evidence:
        return (
            f"{restore.subject} was put back or left alone, and may be another since: {restore.evidence[OVERTAKEN]}. "
            "Start nothing on it before this rollback has gone on to its end."
        )
    if "unchanged" in restore.evidence:
        return f"The database was not touched: {restore.evidence['unchanged']}"
    backup = f": {_where(journal.backup)}" if journal.backup else ""
    return f"{restore.subject} is as it was before the upgrade{backup}."


def _images(journal: Journal) -> str:
    back = dict.fromkeys(
        entry.subject for entry in journal.entries if entry.kind == "set-image" and entry.changes and entry.done
    )
    return f"Set to the images of {journal.to}: {', '.join(back)}." if back else ""


def _where(made: BackupMade) -> str:
    return f"{made.archive} on {made.host}"
