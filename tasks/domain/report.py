"""What a run did, and what is safe when it failed: from the plan and what was reached.  Pure."""

from collections.abc import Collection, Iterable, Mapping

from tasks.domain.component import Component
from tasks.domain.inventory import DeploymentFacts, DeploymentKey, Facts, Inventory
from tasks.domain.journal import Journal
from tasks.domain.plan import Plan


class ReportRow(Facts):
    """One Deployment before and after, the versions that its pods answered, and whether it is at the target.

    `planned` is false for one whose images were at the target before the run: its pods are asked, nothing is set.
    """

    component: Component
    deployment: str
    before: str
    after: str
    ready: str
    answered: tuple[str, ...] = ()
    reached: bool
    planned: bool = True


class Report(Facts):
    """The result of a run: `complete` when every Deployment that was to be at the target was proved there."""

    to: str
    before: str | None
    complete: bool
    rows: tuple[ReportRow, ...]
    backup: str = ""
    notes: tuple[str, ...] = ()


def make_report(
    plan: Plan,
    before: Inventory,
    after: Inventory,
    answered: dict[str, tuple[str, ...]],
    backup: str = "",
    notes: tuple[str, ...] = (),
    journal: Journal | None = None,
) -> Report:
    """The report; `answered` maps a Deployment's key, as text, to the versions that its pods answered.

    `journal` is the run's: what it changed in a former try is told as it was before that.

    A Deployment of the plan counts as reached when its pods were asked and answered; one without pods when its
    image is set.
    """
    now = {d.key: d for d in after.deployments}
    rows = tuple(_row(d, now.get(d.key), plan, answered, _first_image(journal, d)) for d in before.deployments)
    current = (journal.current if journal else None) or plan.current
    return Report(
        to=str(plan.to),
        before=str(current) if current else None,
        complete=all(row.reached for row in rows),
        rows=rows,
        backup=backup,
        notes=(*notes, *_without_pods(rows)),
    )


def _first_image(journal: Journal | None, deployment: DeploymentFacts) -> str:
    """The image that the run found before it changed it, "" where it did not."""
    entry = journal.entry("set-image", deployment.key) if journal else None
    return entry.before.images.get(deployment.main.name, "") if entry and entry.before else ""


def _without_pods(rows: Iterable[ReportRow]) -> list[str]:
    return [
        f"{r.deployment} has no pods: its image is set, and none has proved it."
        for r in rows
        if r.ready == "0/0" and r.reached
    ]


def _row(
    before: DeploymentFacts,
    after: DeploymentFacts | None,
    plan: Plan,
    answered: dict[str, tuple[str, ...]],
    first: str,
) -> ReportRow:
    planned = bool(first) or any(step.key == before.key for step in plan.steps)
    asked = planned or before.serves
    return ReportRow(
        component=before.component,
        deployment=str(before.key),
        before=first or before.main.image,
        after=after.main.image if after else "gone",
        ready=f"{after.ready}/{after.replicas}" if after else "0/0",
        answered=answered.get(str(before.key), ()),
        reached=after is not None and after.version == plan.to and (str(before.key) in answered or not asked),
        planned=planned,
    )


def safe_now(
    plan: Plan,
    patched: Collection[DeploymentKey],
    proved: Collection[DeploymentKey],
    backup: str,
    now: Mapping[DeploymentKey, str] | None = None,
) -> str:
    """The sentence that an operator needs first when a run has failed.

    `patched` are the Deployments whose image was set, `proved` those that became Ready and answered, `now` the images
    as they were seen last.
    """
    sentences = []
    images = now or {}
    theirs = [
        s for s in plan.steps if s.key in patched and s.changes and images.get(s.key, s.images[0]) not in s.images
    ]
    moved = {s.key for s in theirs}
    open_steps = [s for s in plan.steps if s.key in patched and s.key not in proved and s.key not in moved]
    untouched = [s for s in plan.steps if s.key not in patched]
    if not patched:
        sentences.append("Nothing was changed.")
    if open_steps:
        sentences.append(f"Set to {plan.to} and not proved: {_names(s.key for s in open_steps)}.")
    sentences += [f"Changed by somebody else since: {s.key} runs {images[s.key]}." for s in theirs]
    if proved:
        sentences.append(f"At {plan.to} and answering: {_names(proved)}.")
    if patched and untouched:
        sentences.append(f"Not touched: {_names(s.key for s in untouched)}.")
    if patched and backup:
        sentences.append(f"The database as it was before is in {backup}, read back whole.")
    return "\n".join(sentences)


def _names(keys: Iterable[DeploymentKey]) -> str:
    return ", ".join(str(key) for key in keys)
