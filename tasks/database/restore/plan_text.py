"""The plan and the outcome of a restore as Markdown, for the artifacts of a run.  Pure."""

from collections.abc import Iterable

from tasks.database.restore.plan import Action, RestorePlan, Verb
from tasks.database.restore.progress import RestoreEvidence
from tasks.domain.plan_text import table

HEADS = ("", "Collection", "Kind", "Documents in the archive", "Documents now")


def plan_rows(plan: RestorePlan) -> Iterable[tuple[str, str, str, str, str]]:
    """What happens to each collection, in the order of what is done, those left alone last."""
    order = list(Verb)
    for action in sorted(plan.actions, key=lambda a: (order.index(a.verb), a.target)):
        yield action.verb.value, _name(action), action.kind, _count(action.documents, action.source), _now(action)


def _name(action: Action) -> str:
    target = action.target.collection
    renamed = action.source is not None and action.source.collection != target
    return f"{target} (from {action.source.collection})" if action.source is not None and renamed else target


def _count(documents: int, there: object) -> str:
    return f"{documents:,}" if there is not None else "-"


def _now(action: Action) -> str:
    return f"{action.documents_now:,}" if action.kind_now else "-"


def needs_safety(plan: RestorePlan) -> bool:
    """Whether something that is there now would go."""
    return any(action.verb in (Verb.REPLACE, Verb.MERGE, Verb.DROP) for action in plan.actions)


def remarks(plan: RestorePlan, tool: str, *, safety_comes: bool) -> tuple[str, ...]:
    """What is to be known of how it is done; `tool` is the program that does it, "" for this software itself."""
    found = []
    if tool:
        found.append(
            f"{tool} does it, in place: it drops each collection before it fills it, so if it ends early collections "
            f"are missing or hold a part of their documents until it was run again."
        )
    if not safety_comes:
        if any(action.verb is Verb.MERGE for action in plan.actions):
            found.append("No backup is made of what is there now: documents that the merge replaces are gone for good.")
        elif needs_safety(plan):
            found.append("No backup is made of what is there now: what is replaced or dropped is gone for good.")
    return tuple(found)


def plan_markdown(plan: RestorePlan) -> str:
    """What would happen to each collection, and what would be left alone."""
    head = f"# Restore {plan.database} from {plan.archive}"
    sentences = "\n".join(f"- {sentence}" for sentence in plan.sentences)
    return "\n\n".join(filter(None, (head, table(HEADS, plan_rows(plan)), sentences)))


def evidence_markdown(evidence: RestoreEvidence, safety: str) -> str:
    """What became of every collection, and where what was there before is kept."""
    rows = [
        (what, ", ".join(names))
        for what, names in (
            ("Replaced", evidence.replaced),
            ("Created", evidence.created),
            ("Merged", evidence.merged),
            ("Dropped", evidence.dropped),
            ("Left as they were", evidence.left),
        )
        if names
    ]
    before = f"The database as it was before: `{safety}`, read back whole." if safety else ""
    notes = "\n".join(f"- {note}" for note in evidence.notes)
    head = f"# Restored {evidence.database} from {evidence.archive.name}"
    count = f"{evidence.documents:,} documents, {evidence.bytes:,} bytes."
    return "\n\n".join(filter(None, (head, count, table(("", "Collections"), rows), before, notes)))
