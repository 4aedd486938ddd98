"""Whether the database that a rollback has seen to is still as it left it.  Pure.

`metadata.generation` of a Deployment grows by one with each write of its spec and never else, so the one that was seen
while the manager stood at 0 tells whether anybody may have started the new manager since: it migrates again.
"""

from tasks.domain.journal import Entry, Journal

OVERTAKEN = "overtaken"
"""In a restore's evidence: why it counts no more."""


def restored_entry(journal: Journal | None, *, at_old: bool, replicas: int, generation: int) -> Entry | None:
    """What the rollback has recorded of the database as done, put back or left alone; None where it has to be done (again).

    `at_old`, `replicas`, `generation` are the manager's Deployment now: whether its images are the old ones, its count.
    """
    if journal is None or any(e.kind == "restore" and e.changes and e.done is None for e in journal.entries):
        return None
    found = _last(journal)
    seen = found.evidence.get("generation") if found else None
    if not isinstance(seen, int):
        return None
    if generation == seen:
        return found if at_old or replicas == 0 else None
    # With the old images it stands where the first write since was this rollback's own.
    mine = [e for e in journal.entries if e.key == journal.manager and e.changes and e.before]
    first = [e for e in mine if e.before and e.before.generation == seen]
    own = any((e.evidence.get("generation") if e.done else generation) == seen + 1 for e in first)
    return found if at_old and own else None


def without_overtaken(journal: Journal, why: str) -> Journal:
    """The journal with what it recorded of the database as overtaken by somebody else's write of the manager."""
    entries = tuple(
        e.model_copy(update={"evidence": {**e.evidence, OVERTAKEN: why}}) if e.kind == "restore" and e.done else e
        for e in journal.entries
    )
    return journal.model_copy(update={"entries": entries})


def _last(journal: Journal) -> Entry | None:
    done = [e for e in journal.entries if e.kind == "restore" and e.changes and e.done]
    return done[-1] if done and OVERTAKEN not in done[-1].evidence else None
