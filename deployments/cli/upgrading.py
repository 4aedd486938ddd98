"""`upgrade`: the plan on the screen while the run's server starts, then the flow, shown as it goes."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from blocks.settings import InstallationSettings
from deployments.cli import rolling_back
from deployments.cli.asking import agree, attended
from deployments.cli.interruption import Interruption
from deployments.cli.live import Row
from deployments.cli.look import require_allowed
from deployments.cli.options import Format, OnFailure
from deployments.cli.outcome import DocumentedError, unwritten
from deployments.cli.running import NAME, prepare, run_server, run_shown
from deployments.cli.tables import console, plain_table, plan_value, plan_view
from deployments.embedded import EmbeddedServer
from tasks.cluster.planning import Connections, prove_there, read_plan
from tasks.domain.automatic_return import may_go_back, not_gone_back
from tasks.domain.errors import NOTHING_CHANGED, HopelessError, UpgradeError, before_any_change
from tasks.domain.journal import require_none_unfinished
from tasks.domain.plan import Plan, PlanRequest
from tasks.domain.safe_before import safe_before, standing
from tasks.record.journal_store import journal_store_for

PATIENCE = 10.0
COMPLETE = "The upgrade is complete: apinizer-upgrade status shows it."


def upgrade(
    settings: InstallationSettings,
    request: PlanRequest,
    output: Format,
    *,
    ask: bool,
    on_failure: OnFailure = OnFailure.STOP,
) -> None:
    """Read, plan, ask, run; raise what stops it.  `on_failure` of the manager, where nobody is there to be asked."""
    with Interruption(), run_server() as server:
        with before_any_change():
            connections = Connections.open(settings, patience=PATIENCE)
            inventory = connections.inventory()
            journals = journal_store_for(connections, inventory).all() if inventory.manager is not None else ()
        with before_any_change(safe_before(standing(journals))):
            # Said before anybody plans or answers; the run asks again when it has the lock.
            require_none_unfinished(journals)
            plan = read_plan(connections, inventory, request)
        screen = console(stderr=output is Format.JSON)
        if output is Format.TEXT or plan.steps:
            screen.print(plan_view(plan))
        require_allowed(plan, plan_value(plan, inventory))
        if not plan.steps:
            with before_any_change():
                answered = prove_there(connections, plan)
            if output is Format.JSON:
                print(json.dumps(plan_value(plan, inventory) | {"complete": True, "answered": answered}, indent=2))
            else:
                screen.print(f"Every pod answers {plan.to}.")
            return
        person = ask and attended()
        if person:
            _confirm(plan)
        with screen.status("Starting the run: its Prefect server, its flow"):
            prepare(server, _load)
        # Where a person attends, the person is asked when it has failed.
        alone = OnFailure.STOP if person else on_failure
        try:
            report = run_shown(
                screen, rows_of(plan), settings, lambda: _run(settings, request, alone), complete=COMPLETE
            )
        except HopelessError as error:
            if on_failure is OnFailure.STOP or not person:
                raise
            raise _offered(settings, error, output, server) from None
        with written(report):
            print_report(report, output)


def _offered(
    settings: InstallationSettings, error: HopelessError, output: Format, server: EmbeddedServer | None
) -> UpgradeError:
    """Offer a person the way back where it is one; the error to end with, the manager's failure first."""
    try:
        with before_any_change():
            connections = Connections.open(settings, patience=PATIENCE)
            chosen = may_go_back(error, journal_store_for(connections, connections.inventory()).all())
        return error if chosen is None else rolling_back.offered(settings, error, output, server)
    except DocumentedError as refused:
        return not_gone_back(error, refused.error.with_safe(NOTHING_CHANGED))
    except UpgradeError as stopped:
        return not_gone_back(error, stopped)


def _confirm(plan: Plan) -> None:
    count = len(plan.steps)
    agree(
        f"Upgrade {count} Deployment{'s' if count != 1 else ''} to {plan.to}?",
        "The upgrade was not started.",
        safe=NOTHING_CHANGED,
        next=f"apinizer-upgrade upgrade --to {plan.to}   asks again",
    )


def _load() -> None:
    import flows.upgrade  # noqa: F401 - loaded here, run later


def rows_of(plan: Plan) -> list[Row]:
    """What the display shows, in the order in which the run comes to it."""
    first = ["lock", "database", *(["backup", "proof"] if plan.migrates else []), "images"]
    return [*map(Row, first), *(Row(str(step.key), step.component.value) for step in plan.steps)]


def _run(settings: InstallationSettings, request: PlanRequest, on_failure: OnFailure) -> dict[str, Any]:
    from flows.upgrade import Order, upgrade

    return upgrade(
        to=request.to.text,
        installation=NAME,
        order=Order.TOGETHER if request.together else Order.ONE_BY_ONE,
        environments=list(request.environments),
        parallel=request.parallel,
        repositories=dict(request.repositories),
        manager_timeout=settings.upgrade.manager_timeout,
        timeout=settings.upgrade.timeout,
        on_failure=on_failure.value,
    )


@contextmanager
def written(report: dict[str, Any]) -> Iterator[None]:
    """While the report is printed: an output that takes nothing leaves the run as complete as it is."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        raise unwritten(
            error,
            f"The upgrade is complete: every component is at {report['to']} and answers. Backup: {report['backup']}.",
            "apinizer-upgrade status shows the installation.",
        ) from None


def print_report(report: dict[str, Any], output: Format) -> None:
    """The report as a table, or whole as JSON."""
    if output is Format.JSON:
        print(json.dumps(report, indent=2))
    else:
        table = plain_table("COMPONENT", "DEPLOYMENT", "BEFORE", "AFTER", "READY", "PODS ANSWERED")
        for row in report["rows"]:
            cells = [row[name] for name in ("component", "deployment", "before", "after", "ready")]
            table.add_row(*cells, ", ".join(sorted(set(row["answered"]))))
        screen = console()
        screen.print()
        screen.print(table)
        for note in report["notes"]:
            screen.print(f"Note: {note}", markup=False)
        if report["backup"]:
            screen.print(f"Backup: {report['backup']}, read back whole.", markup=False)
        if report["run"]:
            screen.print(f"Run: {report['run']}; apinizer-upgrade runs show {report['run']}", markup=False)
        way = f"from {report['before']} " if report["before"] != report["to"] else "all components "
        screen.print(f"[bold green]Upgraded {way}to {report['to']}.[/]")
