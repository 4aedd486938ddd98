"""`resume`: what the run did so far and what is left of it, then the flow, shown as it goes."""

from typing import Any

from blocks.settings import InstallationSettings
from deployments.cli import options as opt
from deployments.cli import rolling_back, undoing
from deployments.cli.asking import agree, attended
from deployments.cli.interruption import Interruption
from deployments.cli.look import require_allowed
from deployments.cli.options import Format
from deployments.cli.outcome import DocumentedError
from deployments.cli.running import NAME, prepare, run_server, run_shown
from deployments.cli.tables import console, plan_value, plan_view
from deployments.cli.upgrading import COMPLETE, PATIENCE, print_report, rows_of, written
from tasks.cluster.planning import Connections, read_plan
from tasks.domain.errors import UpgradeError, before_any_change
from tasks.domain.journal import Journal, find_journal, require_fits, require_goes_on, ways_on
from tasks.domain.plan import Plan, PlanRequest
from tasks.domain.safe_before import safe_before, standing
from tasks.record.journal_store import journal_store_for


def resume(settings: InstallationSettings, run: str, output: Format, *, ask: bool, times: dict[str, int]) -> None:
    """Read the journal and the world, plan what is left, ask, go on; `times` are the patience in seconds where given."""
    with Interruption(), run_server() as server:
        with before_any_change():
            connections = Connections.open(settings, patience=PATIENCE)
            inventory = connections.inventory()
            journals = journal_store_for(connections, inventory).all()
        with before_any_change(safe_before(standing(journals))):
            journal = find_journal(journals, run, unfinished=not run)
            require_goes_on(journal, journals)
        screen = console(stderr=output is Format.JSON)
        screen.print(_so_far(journal), markup=False)
        patient = _patient(settings, journal, times)
        if journal.called == "undo":
            undoing.go_on(patient, journal, output, server, ask=ask and attended())
            return
        if journal.kind == "rollback":
            rolling_back.go_on(patient, journal, output, server, ask=ask and attended())
            return
        safe = safe_before(journal)
        with before_any_change(safe):
            require_fits(journal, inventory)
            plan = read_plan(connections, inventory, journal.request or PlanRequest(to=journal.to))
        # Once its manager is at the new version the plan would say that it comes from there.
        screen.print(plan_view(plan.model_copy(update={"current": journal.current or plan.current})))
        try:
            require_allowed(plan, plan_value(plan, inventory))
        except DocumentedError as refused:
            raise DocumentedError(_not_as_planned(refused.error, journal, safe), refused.document) from None
        if ask and attended():
            _confirm(journal, plan, safe)
        with screen.status("Starting the run: its Prefect server, its flow"):
            prepare(server, _load)
        report = run_shown(screen, rows_of(plan), settings, lambda: _run(journal, times), complete=COMPLETE)
        with written(report):
            print_report(report, output)


def _not_as_planned(refused: UpgradeError, journal: Journal, safe: str) -> UpgradeError:
    """A finding against a run that has begun: it cannot go to another version, so what is found is to be put back."""
    if not journal.changed:
        return refused.with_safe(safe)
    ways = "\n".join(["Put back what is named above, as it was when the run began; then:", *ways_on(journal)])
    return type(refused)(refused.happened, observed=refused.observed, safe=safe, next=ways)


def _patient(settings: InstallationSettings, journal: Journal, times: dict[str, int]) -> InstallationSettings:
    """The settings with the run's own patience where none is said now."""
    known = {name: int(journal.options[name]) for name in ("manager_timeout", "timeout") if name in journal.options}
    given = {**known, **times}
    return opt.with_timeouts(settings, given.get("manager_timeout"), given.get("timeout"))


def _so_far(journal: Journal) -> str:
    """What the run did, a line each."""
    lines = [f"The {journal.called} {journal.id}, {journal.current or 'from an unknown version'} to {journal.to}:"]
    lines += [f"  {entry.will}{'' if entry.done else ' (outcome not recorded)'}" for entry in journal.entries]
    if not journal.entries:
        lines.append("  nothing was changed yet")
    if journal.backup:
        lines.append(f"  Backup of before: {journal.backup.archive} on {journal.backup.host}")
    return "\n".join(lines)


def _confirm(journal: Journal, plan: Plan, safe: str) -> None:
    left = f"Deployments left: {len(plan.steps)}" if plan.steps else "nothing is left but to ask the pods"
    agree(
        f"Go on with the {journal.called} {journal.id}? {left}.",
        f"The {journal.called} {journal.id} was not gone on with.",
        safe=safe,
        next="\n".join(ways_on(journal)),
    )


def _load() -> None:
    import flows.resume  # noqa: F401 - loaded here, run later


def _run(journal: Journal, times: dict[str, int]) -> dict[str, Any]:
    from flows.resume import resume as go_on

    return go_on(
        run=journal.id,
        installation=NAME,
        manager_timeout=times.get("manager_timeout"),
        timeout=times.get("timeout"),
    )
