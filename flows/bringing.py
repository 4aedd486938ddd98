"""The images' part of a flow: who holds what, what is missing brought to all at once, each place proved.

It follows the cluster as it is found, so some steps are known only when others have ended: the flow waits for those.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from prefect import allow_failure
from prefect.futures import PrefectFuture

from tasks.domain.finding import Finding
from tasks.domain.inventory import Inventory
from tasks.domain.plan import Plan
from tasks.images.demand import Demand, Place
from tasks.images.proof import one_for_several
from tasks.images.session import opened_for
from tasks.images.staging import Settled
from tasks.images.steps import (
    bring_images,
    check_online,
    find_images,
    find_places,
    look_at_node,
    prove_images,
    push_images,
    settle_node,
    weigh_images,
)
from tasks.images.surveying import Found, Look, images_digests

R = TypeVar("R")
Future = PrefectFuture[Any]


@dataclass
class Bringing:
    """The futures of the steps that say something at the end; `gate` are those that must have succeeded."""

    demand: PrefectFuture[Demand]
    found: PrefectFuture[Found] | None = None
    findings: PrefectFuture[tuple[Finding, ...]] | None = None
    moved: list[Future] = field(default_factory=list)
    settled: list[PrefectFuture[Settled]] = field(default_factory=list)
    gate: list[Future] = field(default_factory=list)

    def begun(self) -> bool:
        """Whether anything may have been sent."""
        return any(not future.state.is_pending() for future in self.moved)

    def results(self) -> tuple[Settled, ...]:
        """The places that hold everything."""
        return tuple(future.result() for future in self.settled if future.state.is_completed())

    def digests(self) -> dict[str, frozenset[str]]:
        """What each image may be reported under by a kubelet, by its full name; empty where nothing is brought."""
        if self.found is None or not done(self.found):
            return {}
        return images_digests(self.found.result())

    def noticed(self) -> tuple[Finding, ...]:
        """What was found on the way that a person should read."""
        demand = self.demand.result().findings if self.demand.state.is_completed() else ()
        online = self.findings.result() if self.findings and self.findings.state.is_completed() else ()
        found = one_for_several(self.found.result()) if self.found and self.found.state.is_completed() else ()
        return (*demand, *online, *found)

    def notes(self) -> tuple[str, ...]:
        """The same as sentences for a report."""
        return tuple(finding.what for finding in self.noticed())


def bring(
    installation: str,
    inventory: Inventory,
    plan: Plan,
    *,
    after: Sequence[Future],
    keep: Callable[[PrefectFuture[Any]], PrefectFuture[Any]],
    every: bool = False,
) -> Bringing:
    """Submit what it takes that every place holds its images; `keep` is told of each step.

    Returns when it is known what is missing, while it is being sent.  `every`: also for what is at the target already.
    """
    settings = opened_for(installation).settings
    demand = find_places.submit(installation, inventory, plan, every, wait_for=after, return_state=False)
    run = Bringing(demand, gate=[keep(demand)])
    if not done(demand) or not demand.result().wishes:
        return run
    if not settings.way.source:
        run.findings = check_online.submit(installation, demand, return_state=False)
        run.gate = [keep(run.findings)]
        return run
    run.found = find_images.submit(installation, demand, return_state=False)
    run.gate = [keep(run.found)]
    if settings.way.target == "registry":
        run.settled = [push_images.submit(installation, inventory, run.found, return_state=False)]
        run.moved, run.gate = list(run.settled), [keep(run.settled[0])]
        return run
    _to_nodes(installation, run, run.found, settings.parallel, keep)
    return run


def prove(
    installation: str,
    inventory: Inventory,
    plan: Plan,
    run: Bringing,
    *,
    after: Sequence[Future],
    keep: Callable[[PrefectFuture[Any]], PrefectFuture[Any]],
) -> list[Future]:
    """What must have succeeded before a component is touched: all of it proved anew when `after` and the images are there."""
    gate = [*after, *run.gate]
    if run.found is None:
        return gate
    return [
        keep(prove_images.submit(installation, inventory, plan, run.found, wait_for=gate, return_state=False)),
        *after,
    ]


def done(future: PrefectFuture[Any]) -> bool:
    """Wait for a step; whether it succeeded."""
    future.wait()
    return future.state.is_completed()


def _to_nodes(
    installation: str,
    run: Bringing,
    found: PrefectFuture[Found],
    most: int,
    keep: Callable[[PrefectFuture[Any]], PrefectFuture[Any]],
) -> None:
    """Look at each node, feed all that lack something from one reading, settle each; `most` bounds looks and settling."""
    looks = _looks(installation, run.demand.result().places, found, most)
    for asked in looks:
        keep(asked)
    weighed = weigh_images.submit(installation, run.demand, looks, return_state=False)
    run.gate = [keep(weighed)]
    if not done(weighed):
        return
    lacking = {look.place: look for look in weighed.result()}
    brought: Any = {}
    if lacking:
        brought = keep(
            bring_images.submit(installation, tuple(lacking.values()), wait_for=[weighed], return_state=False)
        )
        run.moved.append(brought)
    # Those that lack nothing need not wait for the others.
    there = [look for look in (future.result() for future in looks) if look.place not in lacking]
    for look, outcomes in [*((each, {}) for each in there), *((each, brought) for each in lacking.values())]:
        # One that fails does not keep the next from its turn.
        ahead = [allow_failure(run.settled[-most])] if len(run.settled) >= most else [weighed]
        run.settled.append(keep(settle_node.submit(installation, look, outcomes, wait_for=ahead, return_state=False)))
    run.gate = [*run.settled] or run.gate


def _looks(
    installation: str, places: Sequence[Place], found: PrefectFuture[Found], most: int
) -> list[PrefectFuture[Look]]:
    """One step a node, at most `most` at a time: each waits for the one that many before it, however that ends."""
    looks: list[PrefectFuture[Look]] = []
    for number, place in enumerate(places):
        ahead = [allow_failure(looks[number - most])] if number >= most else []
        looks.append(look_at_node.submit(installation, place, found, wait_for=ahead, return_state=False))
    return looks
