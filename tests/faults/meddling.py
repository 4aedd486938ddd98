"""Somebody else's hand in the middle of a run: noticed, named, stopped safely, and gone on when it is put back."""

from collections.abc import Callable
from dataclasses import dataclass

from deployments.sandbox.launch import JsonObject
from tests.faults import expected
from tests.faults.away import stopped_well
from tests.faults.flow import RESTORE, ROLLBACK, UPGRADE, Flow, effects, go_on, story
from tests.faults.killing import in_mid_restore
from tests.faults.results import Case, Outcome
from tests.faults.story import Story, StoryError
from tests.flows.world import MANAGER, OLD, World

STRANGE = "2025.11.1"
WORKER, LATER = "test/worker", "prod/worker-prod"


def set_image(world: World, key: str) -> None:
    """kubectl set image, to a release that nobody asked for."""
    image = world.images()[key]
    world.set_image(key, f"{image.rpartition(':')[0]}:{STRANGE}")


def undo(world: World, key: str) -> None:
    """kubectl rollout undo, while the new image rolls out."""
    old = world.images()[key].rpartition("/")[0]
    name = "manager" if key == MANAGER else "worker"
    world.set_image(key, f"{old}/{name}:{OLD}")


def scale(world: World, key: str) -> None:
    """kubectl scale: one more, or the first."""
    now = world.deployments()[key]["spec"]["replicas"]
    world.change(world.path(key), {"spec": {"replicas": now + 1}})


def delete(world: World, key: str) -> None:
    """kubectl delete deployment."""
    status, answer = world.ask("DELETE", world.path(key))
    assert status == 200, answer


@dataclass(frozen=True)
class Hand:
    """Who does what to which Deployment at which boundary; `goes_on`: a run may carry on and leave the change there."""

    what: Callable[[World, str], None]
    key: str
    at: str
    goes_on: bool = False


HANDS = (
    *(Hand(what, MANAGER, f"ready: manager {MANAGER} | midway #1") for what in (set_image, undo, delete)),
    Hand(scale, MANAGER, f"ready: manager {MANAGER} | midway #1", goes_on=True),
    *(Hand(what, WORKER, f"ready: worker {WORKER} | midway #1") for what in (set_image, undo, delete)),
    Hand(scale, WORKER, f"ready: worker {WORKER} | midway #1", goes_on=True),
    *(Hand(what, LATER, f"verify: manager {MANAGER} | after #1") for what in (set_image, delete)),
    Hand(scale, LATER, f"verify: manager {MANAGER} | after #1", goes_on=True),
)


def meddling_cases(*, every: bool = False) -> list[Case]:
    """Each of the four things that people do, to what rolls out and to what has not had its turn."""
    in_upgrade = [_case(UPGRADE, hand) for hand in HANDS]
    midway = next((one for one in ROLLBACK.undisturbed() if one["kind"] == "midway" and one["task"] == RESTORE), None)
    if midway is None:
        raise StoryError("an undisturbed rollback never says that its restore is half done")
    hands = [Hand(what, MANAGER, midway["at"]) for what in (scale, set_image, delete)]
    return [*in_upgrade, *(_case(ROLLBACK, hand) for hand in hands)]


def _case(flow: Flow, hand: Hand) -> Case:
    step, _, moment = hand.at.removesuffix(" #1").partition(" | ")
    return Case(
        "other hands", f"{flow.name}: {step}", moment, f"{hand.what.__name__} {hand.key}", _meddling(flow, hand)
    )


def _meddling(flow: Flow, hand: Hand) -> Callable[[Outcome], None]:
    def act(outcome: Outcome) -> None:
        with story(large=flow is ROLLBACK, slow=flow is UPGRADE) as told:
            flow.prepare(told)
            run = told.start(*flow.command_in(told), do="hold", at=hand.at)
            run.wait_at(hand.at)
            if flow is ROLLBACK:
                outcome.problems += in_mid_restore(told)
            was = told.world.deployments()[hand.key]
            hand.what(told.world, hand.key)
            theirs = _seen(told.world, hand.key)
            run.go_on()
            run.finish()
            outcome.told = run.err
            if run.code == 0:
                outcome.then = "completed"
                outcome.problems += [] if hand.goes_on else ["it was not noticed"]
            else:
                outcome.problems += [
                    *stopped_well(run.err),
                    *([] if hand.key in run.err else [f"{hand.key} was not named"]),
                ]
                outcome.problems += (
                    [] if _seen(told.world, hand.key) == theirs else ["their change was not left as found"]
                )
                _put_back(told, flow, hand, was, outcome)
            outcome.problems += expected.at_the_target(told, flow.version)
            outcome.effects = effects(told)

    return act


def _seen(world: World, key: str) -> tuple[str, int] | None:
    """Image and count of a Deployment; None where it is gone."""
    found = world.deployments().get(key)
    return None if found is None else (world.images()[key], found["spec"]["replicas"])


def _put_back(told: Story, flow: Flow, hand: Hand, was: JsonObject, outcome: Outcome) -> None:
    """As an operator does who has read the message; what was made anew is another, and is begun again by word."""
    world = told.world
    if hand.what is not delete:
        template = {"spec": {"template": {"spec": {"containers": was["spec"]["template"]["spec"]["containers"]}}}}
        world.change(world.path(hand.key), template, "application/strategic-merge-patch+json")
        world.change(world.path(hand.key), {"spec": {"replicas": was["spec"]["replicas"]}})
        go_on(told, outcome, flow)
        return
    meta = {name: was["metadata"].get(name) or {} for name in ("labels", "annotations")}
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": was["spec"], "metadata": {**meta, "name": was["metadata"]["name"]}}  # fmt: skip
    status, answer = world.ask("POST", world.path(hand.key).rpartition("/")[0], body)
    assert status == 201, answer
    unfinished = told.unfinished(flow.kind)
    refused = told.run("resume", unfinished, "--yes")
    if hand.key == LATER and refused.code == 0:  # nothing was done to it yet: the one that is there now has its turn
        outcome.then = "resume"
        return
    outcome.problems += (
        []
        if refused.code not in {0, None} and hand.key in refused.err
        else ["resume did not refuse what was made anew"]
    )
    if flow is ROLLBACK:
        again = told.run(*flow.command_in(told), "--manager-made-anew")
        outcome.told, outcome.seconds = again.err, again.seconds
        outcome.problems += [] if again.code == 0 else [f"with --manager-made-anew it ended with {again.code}"]
        outcome.then = "refused, as made anew"
        return
    told.run("runs", "abandon", unfinished, "--reason", "made anew", "--yes")
    go_on(told, outcome, flow)
    outcome.then = "refused, abandoned, again"
