"""What was found and what is planned, as tables for people and as plain values for `--output json`."""

from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tasks.domain.finding import Severity
from tasks.domain.inventory import DeploymentFacts, Inventory
from tasks.domain.plan import Plan
from tasks.domain.step import RolloutStep

STYLE = {Severity.BLOCKING: "bold red", Severity.WARNING: "yellow", Severity.INFO: "dim"}
PIPE_WIDTH = 10_000


def console(*, stderr: bool = False) -> Console:
    """A console that does not break lines in a pipe, where other programs read them."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=PIPE_WIDTH)


def plain_table(*columns: str) -> Table:
    """A table without lines, as kubectl prints."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def status_rows(inventory: Inventory) -> list[dict[str, Any]]:
    """One row for each container of a component, in reading order."""
    return [
        {
            "component": c.component.value,
            "cluster": d.key.cluster,
            "namespace": d.key.namespace,
            "deployment": d.key.name,
            "container": c.name,
            "init": c.init,
            "image": c.image,
            "version": str(c.version) if c.version else None,
            "ready": d.ready,
            "replicas": d.replicas,
            "updated": d.updated,
            "available": d.available,
            "settled": d.settled,
        }
        for d in inventory.deployments
        for c in d.containers
    ]


def status_table(inventory: Inventory) -> RenderableType:
    """The same as a table; the cluster's column only where there are several."""
    several = len({d.key.cluster for d in inventory.deployments}) > 1
    heads = [
        "COMPONENT",
        *(["CLUSTER"] if several else []),
        "NAMESPACE",
        "DEPLOYMENT",
        "CONTAINER",
        "IMAGE",
        "VERSION",
        "READY",
    ]
    table = plain_table(*heads)
    for row in status_rows(inventory):
        cells = [row["component"] + (" (init)" if row["init"] else "")]
        cells += [row["cluster"]] if several else []
        cells += [row["namespace"], row["deployment"], row["container"], row["image"], row["version"] or "?"]
        ready = f"{row['ready']}/{row['replicas']}" + ("" if row["settled"] else " rolling out")
        style = "yellow" if row["ready"] < row["replicas"] or not row["settled"] else ""
        table.add_row(*(escape(c) for c in cells), Text(ready, style=style))
    return table


def plan_value(plan: Plan, inventory: Inventory) -> dict[str, Any]:
    """The plan for programs."""
    return {
        "to": str(plan.to),
        "current": str(plan.current) if plan.current else None,
        "blocked": bool(plan.blocked_by),
        "nothing_to_do": not plan.steps,
        "together": plan.together,
        "steps": [
            {"stage": title, "after": "manager" if title != "manager" else None, **step.model_dump(mode="json")}
            for title, steps in _titled(plan)
            for step in steps
        ],
        "unchanged": list(plan.unchanged),
        "findings": [f.model_dump(mode="json") for f in plan.findings],
        "environments": list(inventory.environments),
    }


def _titled(plan: Plan) -> list[tuple[str, tuple[RolloutStep, ...]]]:
    first = [("manager", (plan.manager,))] if plan.manager else []
    return [*first, *((stage.title, stage.steps) for stage in plan.stages)]


def plan_view(plan: Plan) -> RenderableType:
    """The plan for people: the steps in order, then the findings."""
    head = Text(f"Upgrade from {plan.current or 'an unknown version'} to {plan.to}", style="bold")
    table = plain_table("", "STAGE", "COMPONENT", "DEPLOYMENT", "PODS", "NEW IMAGE")
    for number, (title, steps) in enumerate(_titled(plan), start=1):
        for step in steps:
            first = step is steps[0]
            table.add_row(
                str(number) if first else "",
                title if first else "",
                step.component.value,
                escape(str(step.key)),
                str(step.replicas),
                escape("\n".join(step.images) or "as it is, wait until Ready"),
            )
    parts: list[RenderableType] = (
        [head, table] if plan.steps else [head, Text("Nothing to do: every component is there.")]
    )
    if plan.unchanged and plan.steps:
        parts.append(Text(f"Already there: {', '.join(plan.unchanged)}", style="dim"))
    for finding in plan.findings:
        parts.append(Text(f"{finding.severity.value}: {finding.what}", style=STYLE[finding.severity]))
        if finding.next and finding.severity is not Severity.INFO:
            parts.append(Text(f"  {finding.next}", style="dim"))
    return Group(*parts)


def before_and_after(before: Inventory, after: Inventory) -> list[dict[str, Any]]:
    """A row for each Deployment: image and ready pods before and after."""
    now = {d.key: d for d in after.deployments}
    return [_compared(d, now.get(d.key)) for d in before.deployments]


def _compared(before: DeploymentFacts, after: DeploymentFacts | None) -> dict[str, Any]:
    return {
        "component": before.component.value,
        "deployment": str(before.key),
        "before": before.main.image,
        "after": after.main.image if after else "gone",
        "ready": f"{after.ready}/{after.replicas}" if after else "0/0",
    }
