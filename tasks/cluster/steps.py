"""The cluster's part of a run as Prefect tasks: each reads, asks the rule, does one thing, returns evidence."""

import re
from contextlib import nullcontext

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact

from tasks.cluster.image_change import set_images
from tasks.cluster.planning import read_plan
from tasks.cluster.pod_log import ManagerLog
from tasks.cluster.rollout import RolloutProgress, wait_ready
from tasks.cluster.session import connected, hub
from tasks.cluster.verification import verify
from tasks.domain.component import Component
from tasks.domain.inventory import Inventory
from tasks.domain.plan import Plan, PlanRequest
from tasks.domain.plan_text import plan_markdown
from tasks.domain.step import RolloutStep
from tasks.domain.version import Version
from tasks.record import stopping
from tasks.record.feed import Event, State, publish
from tasks.record.task_rules import LOOKS
from tasks.record.telling import tell


@task(name="inventory", task_run_name="inventory", **LOOKS)
def take_inventory(installation: str) -> Inventory:
    """Find every Deployment that runs a component."""
    found = connected(installation).inventory()
    tell(
        "inventory", State.DONE, f"{len(found.deployments)} Deployments, environments: {', '.join(found.environments)}"
    )
    return found


@task(name="plan", task_run_name="plan to {request.to}", **LOOKS)
def make_plan(installation: str, inventory: Inventory, request: PlanRequest) -> Plan:
    """Decide what to do, in order; write it as an artifact; raise `BlockedError` where a finding forbids it."""
    plan = read_plan(connected(installation), inventory, request)
    create_markdown_artifact(plan_markdown(plan), key="plan", description=f"Upgrade to {plan.to}")
    for finding in plan.findings:
        tell("plan", State.LOG, f"{finding.severity.value}: {finding.what}")
    plan.require_allowed()
    tell("plan", State.DONE, f"{plan.current} to {plan.to}, {len(plan.steps)} Deployments")
    return plan


@task(name="set image", task_run_name="set image: {step.component} {step.key}", **LOOKS)
def change_images(installation: str, step: RolloutStep, cause: str) -> bool:
    """Set the step's images, unless somebody else changed the Deployment since it was judged; whether it changed."""
    tell(str(step.key), State.RUNNING, ", ".join(step.images) or "its images are there already")
    evidence = set_images(connected(installation).apis[step.key.cluster], step, cause)
    tell(str(step.key), State.RUNNING, "image set" if evidence.changed else "nothing to set")
    return evidence.changed


@task(name="ready", task_run_name="ready: {step.component} {step.key}", **LOOKS)
def wait_until_ready(installation: str, step: RolloutStep, deadline: int) -> float:
    """Wait until the new images run in Ready pods; the seconds it took.  The manager's log is followed meanwhile."""
    name = str(step.key)
    artifact = create_progress_artifact(0.0, key=f"rollout-{slug(name)}", description=f"{step.component} {name}")

    def progress(now: RolloutProgress) -> None:
        share = now.counts.share
        publish(Event(name, State.RUNNING, now.text, share))
        update_progress_artifact(artifact, share * 100, description=f"{step.component} {name}: {now.text}")

    def line(text: str) -> None:
        publish(Event(name, State.LOG, text))

    watches = hub(installation, step.key.cluster)
    following = ManagerLog(watches, step, line) if step.component is Component.MANAGER else nullcontext()
    with following:
        evidence = wait_ready(watches, step, deadline_seconds=deadline, progress=progress, stop=stopping.asked)
    tell(name, State.RUNNING, f"Ready after {evidence.seconds:.0f} s", 1.0)
    return evidence.seconds


@task(name="verify", task_run_name="verify: {step.component} {step.key}", **LOOKS)
def ask_versions(installation: str, step: RolloutStep, wanted: str) -> tuple[str, ...]:
    """Ask every pod for its version through the API server's proxy; what they answered."""
    answers = verify(connected(installation).apis[step.key.cluster], step, Version(wanted))
    tell(str(step.key), State.DONE, f"{len(answers)} of {len(answers)} pods answer {wanted}", 1.0)
    return tuple(answer.version for answer in answers)


def slug(text: str) -> str:
    """A key as Prefect's artifacts want it: lower-case letters, digits and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
