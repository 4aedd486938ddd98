"""`status` and `plan`: they read and change nothing, and need no Prefect."""

import json
import sys
from typing import Any

from blocks.settings import InstallationSettings
from deployments.cli.options import Format
from deployments.cli.outcome import DocumentedError
from deployments.cli.tables import console, plan_value, plan_view, status_rows, status_table
from tasks.cluster.planning import Connections, read_plan
from tasks.domain.errors import BlockedError, before_any_change
from tasks.domain.plan import Plan, PlanRequest

SECONDS = 10.0  # a person waits: a cluster that does not answer is said soon


def status(settings: InstallationSettings, output: Format) -> None:
    """Print what the installation is made of."""
    with before_any_change():
        inventory = Connections.open(settings, patience=SECONDS).inventory()
    if output is Format.JSON:
        print(json.dumps({"components": status_rows(inventory), "unseen": list(inventory.unseen)}, indent=2))
        return
    console().print(status_table(inventory))
    for sentence in inventory.unseen:
        print(f"Note: {sentence}", file=sys.stderr)


def plan(settings: InstallationSettings, request: PlanRequest, output: Format) -> None:
    """Print the plan; raise `BlockedError` where a finding forbids it."""
    with before_any_change():
        connections = Connections.open(settings, patience=SECONDS)
        inventory = connections.inventory()
        found = read_plan(connections, inventory, request)
    if output is Format.TEXT:
        console().print(plan_view(found))
        found.require_allowed()
        return
    value = plan_value(found, inventory)
    require_allowed(found, value)
    print(json.dumps(value, indent=2))


def require_allowed(plan: Plan, value: dict[str, Any]) -> None:
    """Raise where a finding forbids the run, with the plan as the document that the error belongs to."""
    try:
        plan.require_allowed()
    except BlockedError as error:
        raise DocumentedError(error, value) from None
