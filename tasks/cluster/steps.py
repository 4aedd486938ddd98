"""The cluster's part of a run as Prefect tasks: each reads, asks the rule, does one thing, returns evidence."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext

from prefect import task
from prefect.logging import get_run_logger

from tasks.cluster.planning import read_plan
from tasks.cluster.pod_log import RolloutLog
from tasks.cluster.recorded_change import change_recorded
from tasks.cluster.rollout import RolloutProgress, wait_ready
from tasks.cluster.running_image import expected_digests
from tasks.cluster.session import connected, hub
from tasks.cluster.verdict import Counts
from tasks.cluster.verification import verify
from tasks.domain.errors import StoppedError
from tasks.domain.inventory import Inventory
from tasks.domain.plan import Plan, PlanRequest
from tasks.domain.plan_text import plan_markdown
from tasks.domain.step import RolloutStep
from tasks.domain.version import Version
from tasks.record import stopping
from tasks.record.artifacts import Gauge, keep_page
from tasks.record.feed import Event, State, publish
from tasks.record.run_record import held_record, record_of
from tasks.record.task_rules import LOOKS
from tasks.record.telling import failure_told, tell


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
    keep_page("plan", plan_markdown(plan), f"Upgrade to {plan.to}")
    for finding in plan.findings:
        get_run_logger().info("%s: %s", finding.severity.value, finding.what)
    plan.require_allowed()
    tell("plan", State.DONE, f"{plan.current} to {plan.to}, {len(plan.steps)} Deployments")
    return plan


@task(name="set image", task_run_name="set image: {step.component} {step.key}", **LOOKS)
def change_images(installation: str, step: RolloutStep, cause: str) -> bool:
    """Set the step's images under the run's journal, unless somebody else changed the Deployment since it was judged.

    The answer is whether it changed.
    """
    if stopping.asked():
        raise StoppedError(f"{step.key} was not begun: the run is to stop.", observed="Its image is as it was.")
    record, name = held_record(installation), str(step.key)
    tell(name, State.RUNNING, ", ".join(step.images) or "its images are there already")
    with failure_told(name):
        evidence = change_recorded(connected(installation).apis[step.key.cluster], step, cause, record)
    tell(name, State.RUNNING, "image set" if evidence.changed else "nothing to set")
    return evidence.changed


@task(name="ready", task_run_name="ready: {step.component} {step.key}", **LOOKS)
def wait_until_ready(installation: str, step: RolloutStep, changed: bool, deadline: int) -> float:  # noqa: FBT001 - a task's future
    """Wait until the new images run in Ready pods; the seconds it took.  The manager's log is followed meanwhile.

    `changed` is what `change_images` answered: pods that a former run left in trouble get another try.
    """
    name = str(step.key)

    def line(_pod: str, text: str) -> None:
        publish(Event(name, State.LOG, text))

    watches = hub(installation, step.key.cluster)
    following = RolloutLog(watches, step, line) if step.is_manager else nullcontext()
    with following, failure_told(name):
        evidence = wait_ready(
            watches,
            step,
            deadline_seconds=deadline,
            fresh=changed,
            progress=progress_of(step, "rollout"),
            stop=stopping.asked,
        )
    tell(name, State.RUNNING, f"Ready after {evidence.seconds:.0f} s", 1.0)
    return evidence.seconds


@task(name="verify", task_run_name="verify: {step.component} {step.key}", **LOOKS)
def ask_versions(
    installation: str, step: RolloutStep, wanted: str, digests: Mapping[str, frozenset[str]] = {}
) -> tuple[str, ...]:
    """Ask every pod for its version through the API server's proxy; what they answered.

    `digests`: what an image may be reported under, by its full name; a pod that runs another one is told.
    """
    images = expected_digests(step, digests)
    if not step.serves:
        _note(installation, step, {"pods": step.replicas})
        tell(str(step.key), State.DONE, "Ready; it answers no version of its own", 1.0)
        return ()
    api = connected(installation).apis[step.key.cluster]
    with failure_told(str(step.key)):
        answers = verify(
            api, step.key, step.uid, step.component, Version(wanted), container=step.container, images=images
        )
    _note(installation, step, {"pods": len(answers), "answered": wanted if answers else ""})
    said = f"{len(answers)} of {len(answers)} pods answer {wanted}" if answers else "no pods, so none has proved it"
    tell(str(step.key), State.DONE, said, 1.0)
    return tuple(answer.version for answer in answers)


def _note(installation: str, step: RolloutStep, evidence: Mapping[str, str | int]) -> None:
    """Write what was seen last into the run's journal; what another try had left open is known by it."""
    record = record_of(installation)
    if record is not None and record.journal is not None:
        record.found_done("set-image", step.key, {})
        record.add_evidence("set-image", step.key, dict(evidence))


def progress_of(step: RolloutStep, what: str) -> Callable[[RolloutProgress], None]:
    """Tells how far a rollout is, to who listens and in a gauge of the run; `what` it belongs to."""
    name = str(step.key)
    gauge = Gauge(f"{what} {name}", f"{step.component} {name}")

    def tell_progress(now: RolloutProgress) -> None:
        share = done_share(now.counts)
        publish(Event(name, State.RUNNING, now.text, share))
        gauge.show(share, now.text)

    return tell_progress


def done_share(counts: Counts) -> float:
    """How much of a rollout is done, 0 to 1: half for new pods made, half for new pods ready."""
    return min((counts.updated + counts.ready) / (2 * counts.desired), 1.0) if counts.desired else 1.0
