"""The way back for people: each step in its order, what it interrupts, and what is to be read before.  Pure."""

from collections.abc import Sequence

from tasks.domain.journal import Journal
from tasks.domain.plan_text import table
from tasks.domain.rollback import Return, RollbackPlan
from tasks.domain.step import RolloutStep

HEADS = ("", "Step", "What")


def rollback_rows(plan: RollbackPlan, upgrade: Journal, *, stop_all: bool = False) -> list[tuple[str, str, str]]:
    """(number, step, what) of all that a rollback of `upgrade` does, in its order.

    `stop_all`: the other components are stopped too while the database is put back.
    """
    rows = _database(plan, upgrade, stop_all=stop_all) if plan.database else []
    if plan.plan.manager:
        rows.append(("manager", _rolled(plan, plan.plan.manager, one_first=plan.database)))
    for stage in plan.plan.stages:
        rows += [(stage.title, _rolled(plan, step)) for step in stage.steps]
    if plan.plan.there:
        rows.append(("only asked", ", ".join(f"{s.key} ({_answer(plan, s)})" for s in plan.plan.there)))
    return [(str(number), step, what) for number, (step, what) in enumerate(rows, start=1)]


def _database(plan: RollbackPlan, upgrade: Journal, *, stop_all: bool) -> list[tuple[str, str]]:
    others = [one for one in plan.returns if one.key != plan.manager_key]
    rows = [("stop", _stopped(one)) for one in plan.returns if one.key == plan.manager_key]
    if stop_all:
        rows += [stopped_row(one) for one in others if one.now or one.replicas]
    elif serving := [str(one.key) for one in others if one.now]:
        rows.append(("go on serving", f"{', '.join(serving)}; what they write meanwhile (logs) is lost"))
    backup = upgrade.backup
    where = f"from {backup.archive} on {backup.host}, made {backup.made:%Y-%m-%d %H:%M} UTC" if backup else ""
    name = backup.database if backup else "the database"
    return [
        *rows,
        ("safety backup", f"{name} as it is now, read back whole"),
        ("restore exactly", f"{name} {where}, {backup.documents:,} documents" if backup else name),
    ]


def stopped_row(one: Return) -> tuple[str, str]:
    """(step, what) of a component that is stopped while the database is put back, or was by a try before this one."""
    return ("stop, interrupts its traffic" if one.now else "stays stopped, no traffic", _stopped(one))


def _stopped(one: Return) -> str:
    now = f"{one.now} to 0 pods" if one.now else "has no pods"
    return f"{one.key}: {now}, back to {one.replicas} afterwards"


def _rolled(plan: RollbackPlan, step: RolloutStep, *, one_first: bool = False) -> str:
    wanted = plan.of(step.key).replicas
    images = ", ".join(step.images) or "its images are the old ones already"
    pods = f"one pod first, then {wanted}" if one_first and wanted > 1 else f"{wanted} pod{'' if wanted == 1 else 's'}"
    return f"{step.key}: {images} ({pods}; {_answer(plan, step)})"


def _answer(plan: RollbackPlan, step: RolloutStep) -> str:
    expected = plan.expected(step)
    if not step.serves:
        return "answers no version"
    return f"is to answer {expected}" if expected else "Ready, its version is not known beforehand"


def rollback_markdown(plan: RollbackPlan, upgrade: Journal, *, stop_all: bool = False) -> str:
    """The whole of it, for the artifacts of a run."""
    head = f"# Roll back {upgrade.id}: {plan.plan.current or upgrade.to} to {plan.to}"
    steps = table(HEADS, rollback_rows(plan, upgrade, stop_all=stop_all))
    return "\n\n".join([head, steps, *_found(plan)])


def _found(plan: RollbackPlan) -> Sequence[str]:
    if not plan.findings:
        return ()
    rows = ((f.severity, f.what, f.next) for f in plan.findings)
    return ("## Findings", table(("Severity", "Finding", "What to do"), rows))
