"""`undo`: one component alone back to the version that its database accepts."""

import json
from contextlib import nullcontext
from typing import Any

from blocks.settings import InstallationSettings
from deployments.cli.asking import agree, attended
from deployments.cli.interruption import Interruption
from deployments.cli.live import Row
from deployments.cli.options import Format
from deployments.cli.running import NAME, prepare, run_server, run_shown
from deployments.cli.tables import STYLE, console
from deployments.embedded import EmbeddedServer
from tasks.cluster.planning import Connections, held_repositories
from tasks.cluster.running_version import ask_running_version
from tasks.domain.errors import before_any_change
from tasks.domain.inventory import Inventory
from tasks.domain.journal import Journal, require_none_unfinished, ways_on
from tasks.domain.plan import PlanRequest
from tasks.domain.safe_before import safe_before, standing
from tasks.domain.undo import Undo, find_deployment, undo_step
from tasks.record.journal_store import journal_store_for

PATIENCE = 10.0


def undo(
    settings: InstallationSettings, deployment: str, request: PlanRequest, output: Format, *, ask: bool, dry_run: bool
) -> None:
    """Look, show, ask, run; raise what stops it."""
    with Interruption(), nullcontext() if dry_run else run_server() as server:
        found = _shown(settings, deployment, request, output)
        if dry_run:
            if output is Format.JSON:
                print(json.dumps(found.model_dump(mode="json"), indent=2))
            return
        if ask and attended():
            _confirm(found)
        _carry_out(settings, found, request, output, server)


def go_on(
    settings: InstallationSettings, journal: Journal, output: Format, server: EmbeddedServer | None, *, ask: bool
) -> None:
    """Go on with an undo that ended early; `ask` says that a person is there to be asked."""
    request = journal.request or PlanRequest(to=journal.to)
    request = request.model_copy(update={"prefix": settings.images.wanted_prefix})
    found = _shown(settings, str(journal.options["undo"]), request, output, run=journal.id)
    if ask:
        _confirm(found, journal)
    _carry_out(settings, found, request, output, server, run=journal.id)


def _shown(
    settings: InstallationSettings, deployment: str, request: PlanRequest, output: Format, run: str = ""
) -> Undo:
    """What was found, on the screen; raise what stands against it.  `run` is the undo that goes on."""
    screen = console(stderr=output is Format.JSON)
    with before_any_change():
        connections = Connections.open(settings, patience=PATIENCE)
        inventory = connections.inventory()
        journals = journal_store_for(connections, inventory).all() if inventory.manager else ()
    with before_any_change(safe_before(standing(journals))):
        found = _look(connections, inventory, deployment, request, journals)
        for line in _lines(found):
            screen.print(line, markup=False)
        for finding in found.findings:
            screen.print(f"{finding.severity.value}: {finding.what}", style=STYLE[finding.severity], markup=False)
        found.plan.require_allowed()
        # Said before anybody answers; the run asks again when it has the lock.
        require_none_unfinished(journal for journal in journals if journal.id != run)
    return found


def _carry_out(
    settings: InstallationSettings,
    found: Undo,
    request: PlanRequest,
    output: Format,
    server: EmbeddedServer | None,
    run: str = "",
) -> None:
    screen = console(stderr=output is Format.JSON)
    with screen.status("Starting the run: its Prefect server, its flow"):
        prepare(server, _load)
    rows = [Row("lock"), Row("images"), Row(str(found.step.key), found.step.component.value)]
    result = run_shown(
        screen, rows, settings, lambda: _run(settings, found, request, run), complete="The component is back."
    )
    if output is Format.JSON:
        print(json.dumps(result, indent=2))
        return
    answers = ", ".join(sorted(set(result["answered"])))
    said = f"its pods answer {answers}" if answers else "it has no pods to ask"
    console().print(f"\n{result['deployment']} is at {result['to']}: {said}.", markup=False)


def _look(
    connections: Connections,
    inventory: Inventory,
    deployment: str,
    request: PlanRequest,
    journals: tuple[Journal, ...],
) -> Undo:
    find_deployment(inventory, deployment)
    manager = inventory.manager
    running = ask_running_version(connections.apis[manager.key.cluster], manager) if manager else None
    held = held_repositories(connections, inventory, request)
    return undo_step(inventory, deployment, request, running=running, held=held, journals=journals)


def _lines(found: Undo) -> list[str]:
    step = found.step
    if not step.changes:
        return [f"{step.key} has the images of {found.plan.to}: only its pods are waited for and asked."]
    return [f"{step.key}: {change.container} from {change.old} to {change.new}" for change in step.changes]


def _confirm(found: Undo, journal: Journal | None = None) -> None:
    key, to = found.step.key, found.plan.to
    agree(
        f"Put {key} back to {to}?",
        f"The undo {journal.id} was not gone on with." if journal else "The undo was not started.",
        safe=safe_before(journal),
        next="\n".join(ways_on(journal))
        if journal
        else f"apinizer-upgrade undo {key.namespace}/{key.name} --to {to}   asks again",
    )


def _load() -> None:
    import flows.undo  # noqa: F401 - loaded here, run later


def _run(settings: InstallationSettings, found: Undo, request: PlanRequest, run: str) -> dict[str, Any]:
    from flows.undo import undo as flow

    return flow(
        deployment=f"{found.step.key.namespace}/{found.step.key.name}",
        to=request.to.text,
        installation=NAME,
        repositories=dict(request.repositories),
        timeout=settings.upgrade.timeout,
        run=run,
    )
