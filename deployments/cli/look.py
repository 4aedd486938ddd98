"""`status` and `plan`: they read and change nothing, and need no Prefect."""

import json
import sys
from typing import Any

from blocks.settings import InstallationSettings
from deployments.cli.interruption import Interruption
from deployments.cli.options import Format
from deployments.cli.outcome import DocumentedError
from deployments.cli.survey_view import survey_view
from deployments.cli.tables import console, plan_value, plan_view, status_rows, status_table
from tasks.cluster.planning import Connections, read_plan
from tasks.domain.errors import BlockedError, ForbiddenError, UpgradeError, before_any_change
from tasks.domain.finding import Severity
from tasks.domain.inventory import Inventory
from tasks.domain.journal import require_none_unfinished
from tasks.domain.plan import Plan, PlanRequest
from tasks.domain.safe_before import safe_before, standing
from tasks.images.opening import Opened
from tasks.images.survey_text import survey_value
from tasks.images.surveying import Survey, survey
from tasks.images.unreached import refusal
from tasks.record.journal_store import journal_store_for

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
    """Print the plan and what of its images is missing where; raise `BlockedError` where a finding forbids it."""
    with Interruption(), before_any_change():
        connections = Connections.open(settings, patience=SECONDS)
        inventory = connections.inventory()
        found = read_plan(connections, inventory, request)
        value = plan_value(found, inventory)
        if output is Format.TEXT:
            console().print(plan_view(found))
        require_allowed(found, value)
        _require_none_unfinished(connections, inventory, value)
        if found.steps:
            missing = _look_at_images(connections, inventory, found, value)
            value["images"] = {"way": settings.images.way.value, **survey_value(missing)}
            if output is Format.TEXT:
                console().print(survey_view(missing))
            _require_images(missing, value)
    if output is Format.JSON:
        print(json.dumps(value, indent=2))


def _require_none_unfinished(connections: Connections, inventory: Inventory, value: dict[str, Any]) -> None:
    """An upgrade would not begin beside an unfinished run; who may not read journals is not told of one."""
    try:
        journals = journal_store_for(connections, inventory).all() if inventory.manager else ()
    except ForbiddenError:
        return
    try:
        require_none_unfinished(journals)
    except BlockedError as unfinished:
        raise DocumentedError(unfinished.with_safe(safe_before(standing(journals))), value) from None


def _look_at_images(connections: Connections, inventory: Inventory, plan: Plan, value: dict[str, Any]) -> Survey:
    """What the way of the settings would move; an error belongs to the document of the plan."""
    opened = Opened(connections.settings.images)
    try:
        return survey(connections, inventory, plan, opened)
    except UpgradeError as error:
        raise DocumentedError(error, value) from None
    finally:
        opened.close()


def _require_images(missing: Survey, value: dict[str, Any]) -> None:
    """Raise what would stop the upgrade before the manager: a node that cannot be reached, an image that is nowhere."""
    if unreached := refusal(missing.failed):
        raise DocumentedError(unreached, value)
    blocked = [finding for finding in missing.findings if finding.severity is Severity.BLOCKING]
    if blocked:
        first = blocked[0]
        told = BlockedError(first.what, observed="\n".join(f"{f.code}: {f.what}" for f in blocked), next=first.next)
        raise DocumentedError(told, value)


def require_allowed(plan: Plan, value: dict[str, Any]) -> None:
    """Raise where a finding forbids the run, with the plan as the document that the error belongs to."""
    try:
        plan.require_allowed()
    except BlockedError as error:
        raise DocumentedError(error, value) from None
