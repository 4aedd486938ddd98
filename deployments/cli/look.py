"""`status` and `plan`: they read and change nothing, and need no Prefect."""

import json
import sys

from blocks.settings import InstallationSettings
from deployments.cli.options import Format
from deployments.cli.tables import console, plan_value, plan_view, status_rows, status_table
from tasks.cluster.planning import Connections, read_plan
from tasks.domain.plan import PlanRequest

SECONDS = 10.0  # a person waits: a cluster that does not answer is said soon


def status(settings: InstallationSettings, output: Format) -> None:
    """Print what the installation is made of."""
    inventory = Connections.open(settings, patience=SECONDS).inventory()
    if output is Format.JSON:
        print(json.dumps({"components": status_rows(inventory), "unseen": list(inventory.unseen)}, indent=2))
        return
    console().print(status_table(inventory))
    for sentence in inventory.unseen:
        print(f"Note: {sentence}", file=sys.stderr)


def plan(settings: InstallationSettings, request: PlanRequest, output: Format) -> None:
    """Print the plan; raise `BlockedError` where a finding forbids it."""
    connections = Connections.open(settings, patience=SECONDS)
    inventory = connections.inventory()
    found = read_plan(connections, inventory, request)
    if output is Format.JSON:
        print(json.dumps(plan_value(found, inventory), indent=2))
    else:
        console().print(plan_view(found))
    found.require_allowed()
