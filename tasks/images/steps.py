"""The images' part of a run as Prefect tasks: find, look, bring, settle, prove."""

import threading
from collections.abc import Mapping, Sequence

from prefect import task
from prefect.logging import get_run_logger

from tasks.cluster.planning import read_plan
from tasks.cluster.session import connected
from tasks.domain.amounts import megabytes
from tasks.domain.errors import BlockedError
from tasks.domain.finding import Finding, Severity
from tasks.domain.inventory import Inventory
from tasks.domain.plan import Plan, PlanRequest
from tasks.images import staging, surveying
from tasks.images.delivery import Outcome
from tasks.images.demand import Demand, Place
from tasks.images.demand_reading import demand_for
from tasks.images.session import opened_for
from tasks.images.staging import Settled
from tasks.images.survey_text import survey_markdown
from tasks.images.surveying import REGISTRY, Found, Look
from tasks.record.artifacts import keep_page
from tasks.record.feed import State
from tasks.record.shares import ShareTold
from tasks.record.task_rules import LOOKS, PATIENT
from tasks.record.telling import failure_told, tell

IMAGES = "images"
"""The subject of what concerns all places; a place's own is `subject_of(key)`."""


def subject_of(place: str) -> str:
    """What the progress of one place is told under: "images on node-a"."""
    return f"{IMAGES} on {place}"


@task(name="plan images", task_run_name="plan images of {request.to}", **LOOKS)
def plan_images(installation: str, inventory: Inventory, request: PlanRequest) -> Plan:
    """What each Deployment would run at the version; findings that forbid an upgrade do not forbid to bring images.

    Raise `BlockedError` where nobody knows what an image is called, or no upgrade would take it under that name.
    """
    plan = read_plan(connected(installation), inventory, request)
    unknown = tuple(f for f in plan.findings if f.code in ("repository-unknown", "image-unrecognisable"))
    plan.model_copy(update={"findings": unknown}).require_allowed()
    return plan


@task(name="image places", task_run_name="image places", **LOOKS)
def find_places(installation: str, inventory: Inventory, plan: Plan, every: bool) -> Demand:  # noqa: FBT001 - a task's parameter
    """Which nodes can run which of the images, by the scheduler's rules."""
    opened = opened_for(installation)
    demand = demand_for(connected(installation), inventory, plan, opened.settings, every=every)
    if opened.settings.way.target == "nodes":
        opened.connect([place.node for place in demand.places])
    _log(demand.findings)
    nodes = ", ".join(place.key for place in demand.places) or "no node is known"
    tell(IMAGES, State.RUNNING, f"{_images(len(demand.wishes))}, for {nodes}")
    return demand


@task(name="images at hand", task_run_name="images at hand", **LOOKS)
def check_online(installation: str, demand: Demand) -> tuple[Finding, ...]:
    """Where the nodes pull by themselves: what their kubelets and the registries say; raise `BlockedError` where in vain."""
    with failure_told(IMAGES):
        findings = surveying.ask_registries(demand, opened_for(installation).settings)
        _log(findings)
        blocked = [finding for finding in findings if finding.severity is Severity.BLOCKING]
        if blocked:
            raise BlockedError(
                f"The images are not where the nodes could pull them: {blocked[0].what}",
                observed="\n".join(finding.what for finding in blocked),
                next=blocked[0].next,
            )
    said = "not all could be proved beforehand" if findings else f"at hand: {_images(len(demand.wishes))}"
    tell(IMAGES, State.DONE, said)
    return findings


@task(name="find images", task_run_name="find images", **LOOKS)
def find_images(installation: str, demand: Demand) -> Found:
    """What each image is at the source: its config's digest, its layers."""
    with failure_told(IMAGES):
        opened = opened_for(installation)
        found = surveying.find(opened, demand)
        surveying.foresee(opened, demand, found)
        tell(IMAGES, State.RUNNING, f"{_images(len(demand.wishes))} found at {opened.source().where}")
        return found


@task(name="look at node", task_run_name="look at {place.key}", **LOOKS)
def look_at_node(installation: str, place: Place, found: Found) -> Look:
    """Ask a node's own runtime what it holds."""
    subject = subject_of(place.key)
    with failure_told(subject):
        look = surveying.look_at(opened_for(installation), place, found)
    missing = f"missing: {len(look.missing)} of {_images(len(look.images))}, {megabytes(look.size)}"
    tell(subject, State.RUNNING, missing if look.missing else "all images are there")
    return look


@task(name="weigh images", task_run_name="weigh images", **LOOKS)
def weigh_images(installation: str, demand: Demand, looks: Sequence[Look]) -> tuple[Look, ...]:
    """What is missing where, kept as a page; the nodes to be given it; raise `BlockedError` where there is no room."""
    opened = opened_for(installation)
    page = survey_markdown(surveying.Survey(demand, {}, {look.place: look for look in looks}, {}, demand.findings))
    keep_page("images", page, "What is missing where")
    with failure_told(IMAGES):
        lacking = staging.weigh(opened, looks)
    tell(
        IMAGES,
        State.RUNNING,
        f"{megabytes(sum(look.size for look in lacking))} to {len(lacking)} of {len(looks)} nodes",
    )
    return lacking


@task(name="bring images", task_run_name="bring images", **LOOKS)
def bring_images(installation: str, looks: Sequence[Look]) -> dict[str, Outcome]:
    """Read the source once and send each node what it lacks; how it ended for each, whatever happened to the others."""
    bars = _Bars({look.place: look.size for look in looks})
    outcomes = staging.bring(opened_for(installation), looks, bars.show)
    for place, outcome in outcomes.items():
        if outcome.error is None:
            bars.complete(place, f"{megabytes(outcome.sent)} sent")
        ended = f"broke off after {megabytes(outcome.sent)}" if outcome.error else f"{megabytes(outcome.sent)} sent"
        tell(subject_of(place), State.RUNNING, ended)
    return outcomes


@task(name="settle node", task_run_name="settle {look.place}", **PATIENT)
def settle_node(installation: str, look: Look, outcomes: Mapping[str, Outcome]) -> Settled:
    """The node holds every image, pinned where it knows that and proved by its runtime; what is still missing is sent."""
    bars = _Bars({look.place: look.size})
    with failure_told(subject_of(look.place)):
        settled = staging.settle(opened_for(installation), look, outcomes.get(look.place), bars.show)
    bars.complete(look.place, settled_text(settled))
    tell(subject_of(look.place), State.DONE, settled_text(settled), 1.0)
    return settled


@task(name="push images", task_run_name="push images", **PATIENT)
def push_images(installation: str, inventory: Inventory, found: Found) -> Settled:
    """Bring to the registry what it lacks, and read it back."""
    opened = opened_for(installation)
    known = surveying.known_in_registry(inventory, opened.settings.prefix)
    bars = _Bars({})
    with failure_told(subject_of(REGISTRY)):
        settled = staging.push(opened, found, known, bars.show)
    bars.complete(REGISTRY, settled_text(settled))
    tell(subject_of(REGISTRY), State.DONE, settled_text(settled), 1.0)
    return settled


@task(name="images in the way", task_run_name="images in the way", **LOOKS)
def find_in_the_way(installation: str, demand: Demand, found: Found, settled: Settled) -> tuple[Finding, ...]:
    """What nodes have under the registry's names already: to bring the images does no harm by it, and an upgrade stops."""
    return staging.in_the_way(opened_for(installation), demand, found, settled.proofs)


@task(name="prove images", task_run_name="prove images", **PATIENT)
def prove_images(installation: str, inventory: Inventory, plan: Plan, found: Found) -> tuple[Settled, ...]:
    """Right before the manager is touched: every place asked anew, the nodes as they are now, and no tag moved."""
    opened = opened_for(installation)
    with failure_told(IMAGES):
        demand = demand_for(connected(installation), inventory, plan, opened.settings)
        settled = staging.prove_again(opened, demand, found, lambda *_: None)
    images = len({proof.name for each in settled for proof in each.proofs})
    tell(
        IMAGES,
        State.DONE,
        f"{_images(images)} proved at {len(settled)} {'place' if len(settled) == 1 else 'places'}",
        1.0,
    )
    return settled


def settled_text(settled: Settled) -> str:
    """One line of what a place holds and got."""
    brought = (
        f"{len(settled.brought)} brought, {megabytes(settled.sent)} sent" if settled.brought else "nothing was missing"
    )
    return f"{_images(len(settled.proofs))} proved, {brought}" + (", pinned" if settled.pinned else "")


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"


class _Bars:
    """Progress in bytes, a bar and a gauge for each place that is sent anything, made when its first bytes are.

    Where the source tells no sizes, the estimate of the look stands for them.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = sizes
        self._bars: dict[str, ShareTold] = {}
        self._lock = threading.Lock()

    def show(self, place: str, done: int, total: int) -> None:
        with self._lock:
            if place not in self._bars:
                self._bars[place] = ShareTold(subject_of(place), f"Images on {place}")
        total = total or self._sizes.get(place, 0)
        self._bars[place].show(done, total, _amount(done, total))

    def complete(self, place: str, text: str) -> None:
        if place in self._bars:
            self._bars[place].complete(text)


def _amount(done: int, total: int) -> str:
    return f"{megabytes(done)} of {megabytes(total)}" if total else megabytes(done)


def _log(findings: Sequence[Finding]) -> None:
    for finding in findings:
        get_run_logger().info("%s: %s", finding.severity.value, finding.what)
