"""What a rollback did, as rows: each Deployment before and after, and whether it is as it was before the upgrade.  Pure."""

from collections.abc import Mapping

from tasks.domain.inventory import DeploymentFacts, Inventory
from tasks.domain.report import Report, ReportRow
from tasks.domain.rollback import RollbackPlan
from tasks.domain.step import RolloutStep


def rollback_report(
    plan: RollbackPlan,
    before: Inventory,
    after: Inventory,
    answered: Mapping[str, tuple[str, ...]],
    backup: str = "",
    notes: tuple[str, ...] = (),
) -> Report:
    """`answered` maps a Deployment's key, as text, to the versions that its pods answered.

    One that the plan left out counts as reached: it was to be left as it is.
    """
    now = {d.key: d for d in after.deployments}
    steps = {step.key: step for step in (*plan.plan.steps, *plan.plan.there)}
    rows = tuple(_row(d, now.get(d.key), plan, steps.get(d.key), answered) for d in before.deployments)
    without = [f"{r.deployment} has no pods: its image is set, and none has proved it." for r in rows if _empty(r)]
    return Report(
        to=str(plan.to),
        before=str(plan.plan.current) if plan.plan.current else None,
        complete=all(row.reached for row in rows),
        rows=rows,
        backup=backup,
        notes=(*notes, *without),
    )


def _row(
    before: DeploymentFacts,
    after: DeploymentFacts | None,
    plan: RollbackPlan,
    step: RolloutStep | None,
    answered: Mapping[str, tuple[str, ...]],
) -> ReportRow:
    name = str(before.key)
    return ReportRow(
        component=before.component,
        deployment=name,
        before=before.main.image,
        after=after.main.image if after else "gone",
        ready=f"{after.ready}/{after.replicas}" if after else "0/0",
        answered=answered.get(name, ()),
        reached=step is None or (after is not None and _is_back(after, plan, step, answered)),
        planned=step is not None and bool(step.changes),
    )


def _is_back(
    after: DeploymentFacts, plan: RollbackPlan, step: RolloutStep, answered: Mapping[str, tuple[str, ...]]
) -> bool:
    wanted = {change.container: change.new for change in step.changes}
    images = all(c.image == wanted.get(c.name, c.image) for c in after.containers)
    proved = str(after.key) in answered or plan.expected(step) is None or not step.serves
    # Another count than before is its owner's or an autoscaler's choice; none at all where there were pods is not.
    return images and proved and (after.replicas > 0 or plan.of(after.key).replicas == 0)


def _empty(row: ReportRow) -> bool:
    return row.ready == "0/0" and row.reached and row.after != "gone"
