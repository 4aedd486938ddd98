"""What `on_failure: rollback` does when the manager failed for good before it ever served."""

from typing import Any

from flows.rollback import rollback
from tasks.cluster.session import session
from tasks.database.failing_steps import see_it_fail_again
from tasks.domain.automatic_return import left_as_it_is, may_go_back, not_gone_back
from tasks.domain.errors import NOTHING_CHANGED, HopelessError, UpgradeError
from tasks.domain.journal import Journal
from tasks.domain.way import Way
from tasks.record import stopping
from tasks.record.journal_store import journal_store_for


def go_back_after(
    installation: str,
    error: HopelessError,
    *,
    tries: int = 1,
    way: Way | None = None,
    backup_dir: str = "",
    manager_timeout: int,
    timeout: int,
) -> UpgradeError:
    """Roll the upgrade back that ended with `error`; the error that tells of both.  The upgrade has failed all the same.

    `tries` is how many its journal is to have: the last of them set the manager's image, and is the one that failed.
    """
    stopping.clear()  # the upgrade's own threads were asked to end; from here on only a person asks
    try:
        with session(installation) as opened:
            journals = journal_store_for(opened.connections, opened.connections.inventory()).all()
            chosen = may_go_back(error, journals, tries)
            if chosen is None:
                return error
            journal, made = chosen
            unsure = _unsure(installation, journal)
    except UpgradeError as unread:
        return not_gone_back(error, unread.with_safe(NOTHING_CHANGED))
    if unsure:
        return left_as_it_is(error, unsure, stopped=stopping.asked())
    try:
        done = rollback(
            run=journal.id,
            installation=installation,
            backup=made.sha256,
            way=way,
            backup_dir=backup_dir,
            manager_timeout=manager_timeout,
            timeout=timeout,
        )
    except UpgradeError as stopped:
        return not_gone_back(error, stopped)
    return HopelessError(error.happened, observed=error.observed, safe=_safe(done), next=_next(error, done))


def _unsure(installation: str, journal: Journal) -> str:
    """Why it is not sure that the manager failed for good, "" where it is."""
    image = next(entry for entry in journal.entries if entry.kind == "set-image" and entry.key == journal.manager)
    uid = image.before.uid if image.before else ""
    return see_it_fail_again(installation, journal.manager, uid, dict(image.images))


def _safe(done: dict[str, Any]) -> str:
    lines = [f"It was rolled back: every component is at {done['to']} and answers. The database: {done['database']}."]
    if done["safety_backup"]:
        lines.append(f"As the failed manager left it: {done['safety_backup']}, read back whole.")
    return "\n".join(lines)


def _next(error: HopelessError, done: dict[str, Any]) -> str:
    """The advice on the cause; the ways on of the run itself are over."""
    advice = [line for line in error.next.splitlines() if not line.startswith("apinizer-upgrade ")]
    return "\n".join([*advice, f"apinizer-upgrade runs show {done['run']}   tells what the rollback did"])
