"""Brings images to where they are missing, and has each target prove them: all of it without Prefect."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from tasks.domain.errors import TemporaryError, UnprovenError, UpgradeError
from tasks.domain.finding import Finding
from tasks.domain.placement import NodeFacts
from tasks.domain.reference import ImageReference
from tasks.images.delivery import Outcome, Receiver, deliver
from tasks.images.demand import Demand, Place
from tasks.images.handing_over import LOOK
from tasks.images.missing import nothing_to_do, require_space
from tasks.images.model import Holdings, Image, Need, Proof, Target
from tasks.images.opening import Opened
from tasks.images.proof import require_same
from tasks.images.reported import doubtful, held_otherwise, require_none_held_otherwise
from tasks.images.stash import stashed
from tasks.images.surveying import REGISTRY, Beginning, Found, Look, at_once, find, images_for, looked, the_platform

Progress = Callable[[str, int, int], None]
"""(place, bytes done, bytes in all or 0)."""


BEGUN = "No component was changed. What was brought of the images stays where it is and does no harm; it does not travel again."
"""What is safe now once something may have been sent."""

PAUSES = (2.0, 5.0, 10.0)
"""Seconds before each further try in common."""


@runtime_checkable
class Partial(Protocol):
    """A source that may leave out layers on purpose (a differential bundle)."""

    def require(self, needs: Mapping[str, Need]) -> None: ...


@dataclass(frozen=True, slots=True)
class Settled:
    """A target that holds everything, as its own runtime says; `brought` are names, `sent` is in bytes."""

    place: str
    where: str
    brought: tuple[str, ...]
    sent: int
    proofs: tuple[Proof, ...]

    @property
    def pinned(self) -> bool:
        """Whether the garbage collection of the runtime leaves all of them alone."""
        return all(proof.pinned for proof in self.proofs)


def weigh(opened: Opened, looks: Sequence[Look]) -> tuple[Look, ...]:
    """The nodes that lack something.

    Raise `BlockedError` where one cannot be given what it lacks: its disk is too small, or the bundle left out what the
    target was thought to hold.
    """
    lacking = tuple(look for look in looks if not nothing_to_do(look.need, look.images))
    if not lacking and isinstance(source := opened.source(), Beginning):
        source.leave()
    for look in lacking:
        require_space(look.need, look.holdings, look.where)
    if lacking and isinstance(source := opened.source(), Partial):
        source.require({look.where: look.need for look in lacking})
    return lacking


def bring(
    opened: Opened, looks: Sequence[Look], progress: Progress, pauses: Sequence[float] = PAUSES
) -> dict[str, Outcome]:
    """Send each node what it lacks, all at once, the source read once for each platform; how it ended for each.

    What broke off at several nodes was the source, or something on the way to all of them: after each of `pauses`
    (seconds) they are looked at anew and get the rest in common, so that the source is not read for each alone.
    """
    outcomes = _together(opened, looks, progress)
    for pause in pauses:
        broken = [look for look in looks if isinstance(outcomes[look.place].error, TemporaryError)]
        if len(broken) < 2 or not _waited(pause, opened.stop):
            break
        answers = at_once(lambda look: _anew(opened, look), broken, opened.settings.parallel)
        fresh = [answer for answer in answers if isinstance(answer, Look)]
        now = _together(opened, fresh, progress)
        for look, answer in zip(broken, answers, strict=True):
            ended = now[look.place] if isinstance(answer, Look) else Outcome(0, answer)
            outcomes[look.place] = replace(ended, sent=outcomes[look.place].sent + ended.sent)
    return outcomes


def settle(opened: Opened, look: Look, outcome: Outcome | None, progress: Progress) -> Settled:
    """Have a node hold everything, pinned and proved; what a delivery in common left missing is sent alone.

    Raise the delivery's error where another try would meet it again, `TemporaryError` where one may help.
    """
    error = outcome.error if outcome else None
    if error is not None and not isinstance(error, TemporaryError):
        raise error.with_safe(BEGUN)
    target, sent = opened.target(_node(look)), outcome.sent if outcome else 0
    if error is None:
        try:
            return _kept(target, look.place, look.images, look.missing, sent)
        except UnprovenError:
            pass  # removed since it was looked at: asked anew, and brought again
    return hold(opened, target, look, sent, progress)


def hold(opened: Opened, target: Target, before: Look, sent: int, progress: Progress) -> Settled:
    """Look anew, send what is missing to this target alone, keep and prove."""
    look = looked(target, before.place, before.images, before.node)
    if not nothing_to_do(look.need, look.images):
        weigh(opened, [look])
        receiver = Receiver(look.place, target, look.images, look.holdings, look.need)
        outcome = _deliver(opened, look.images, [receiver], progress)[look.place]
        sent += outcome.sent
        if outcome.error is not None:
            raise outcome.error.with_safe(BEGUN)
    brought = tuple(dict.fromkeys((*before.missing, *look.missing)))
    return _kept(target, look.place, look.images, brought, sent)


def push(opened: Opened, found: Found, known: Sequence[ImageReference], progress: Progress) -> Settled:
    """Bring all images to the registry, what it lacks of them, and read them back.

    `known` are tags there whose layers need not travel.  Raise `BlockedError` where a tag holds another image.
    """
    images = the_platform(found)
    target = opened.registry(known)
    return hold(opened, target, _trusting(REGISTRY, target, images), 0, progress)


def prove_again(opened: Opened, demand: Demand, found: Found, progress: Progress) -> tuple[Settled, ...]:
    """Every place of `demand` asked anew, and the source whether its tags still lead to what was found.

    A place that lacks something by now (it joined since, or lost an image) gets it here.  Raise `DriftError` where a
    tag was moved, `BlockedError` where a node has something else under a name of the registry's (or another form of it,
    and cannot be asked), and what the places raise.
    """
    now = find(opened, demand)
    for platform, images in found.items():
        require_same(images, now.get(platform, ()))
    if opened.settings.way.target == "registry":
        target, images = opened.registry(), the_platform(found)
        proofs = target.prove(images)
        manifests = {proof.name: proof.manifest_digest for proof in proofs}
        require_none_held_otherwise(demand, manifests, _same_by_config(opened, demand, images, manifests))
        return (Settled(REGISTRY, target.where, (), 0, proofs),)

    def one(place: Place) -> Settled | Look:
        target = opened.target(place.node)
        images = images_for(place, {**now, **found}, opened.settings.platform)
        try:
            return Settled(place.key, target.where, (), 0, target.prove(images))
        except UnprovenError:
            return looked(target, place.key, images, place.node)

    asked = at_once(one, demand.places, opened.settings.parallel)
    lacking = weigh(opened, [each for each in asked if isinstance(each, Look)])
    outcomes = bring(opened, lacking, progress)

    def proved(each: Settled | Look) -> Settled:
        return each if isinstance(each, Settled) else settle(opened, each, outcomes.get(each.place), progress)

    return at_once(proved, asked, opened.settings.parallel)


def in_the_way(opened: Opened, demand: Demand, found: Found, proofs: Sequence[Proof]) -> tuple[Finding, ...]:
    """What nodes have under the registry's names already, and an upgrade would stop at; `proofs` are the registry's own."""
    manifests = {proof.name: proof.manifest_digest for proof in proofs}
    same = _same_by_config(opened, demand, the_platform(found), manifests)
    return tuple(held_otherwise(demand, manifests, same))


def _same_by_config(
    opened: Opened, demand: Demand, images: Sequence[Image], manifests: Mapping[str, str]
) -> frozenset[tuple[str, str]]:
    """What nodes hold under another digest than the registry's, and their own runtime names by the same config.

    An image that was imported or loaded has a manifest of its own.  A node that cannot be asked proves nothing.
    """
    named = {image.name: image for image in images}

    def one(asked: tuple[Place, str]) -> bool:
        place, name = asked
        try:
            return bool(opened.target(place.node).prove([named[name]]))
        except UpgradeError:
            return False

    asked = tuple(doubtful(demand, manifests))
    same = at_once(one, asked, opened.settings.parallel)
    return frozenset((place.key, name) for (place, name), proved in zip(asked, same, strict=True) if proved)


def _together(opened: Opened, looks: Sequence[Look], progress: Progress) -> dict[str, Outcome]:
    """One reading of the source for each platform; a staging folder that cannot be filled now fails all of its nodes."""
    outcomes: dict[str, Outcome] = {}
    groups: dict[str, list[Receiver]] = {}
    for look in looks:
        outcomes[look.place] = Outcome(0, None)
        if not nothing_to_do(look.need, look.images):
            receiver = Receiver(look.place, opened.target(_node(look)), look.images, look.holdings, look.need)
            groups.setdefault(str(look.images[0].platform), []).append(receiver)
    for receivers in groups.values():
        images = {image.name: image for receiver in receivers for image in receiver.images}
        try:
            outcomes |= _deliver(opened, list(images.values()), receivers, progress)
        except TemporaryError as error:
            outcomes |= {receiver.name: Outcome(0, error) for receiver in receivers}
    return outcomes


def _anew(opened: Opened, look: Look) -> Look | UpgradeError:
    """What the node lacks by now, if it can be asked and be given that."""
    try:
        fresh = looked(opened.target(_node(look)), look.place, look.images, look.node)
        weigh(opened, [fresh])
    except UpgradeError as error:
        return error
    return fresh


def _waited(seconds: float, stop: Callable[[], bool]) -> bool:
    """Whether the time went by before anybody asked to stop."""
    end = time.monotonic() + seconds
    while not stop():
        left = end - time.monotonic()
        if left <= 0:
            return True
        time.sleep(min(left, LOOK))
    return False


def _deliver(
    opened: Opened, images: Sequence[Image], receivers: Sequence[Receiver], progress: Progress
) -> dict[str, Outcome]:
    """Straight from the source, or by way of the staging folder where one is named."""
    if not opened.settings.staging:
        return deliver(opened.source(), images, receivers, progress=progress, stop=opened.stop)
    folder = Path(opened.settings.staging).expanduser()
    with stashed(opened.source(), images, receivers, folder, opened.stop) as (here, there, getting):
        return deliver(here, there, getting, progress=progress, stop=opened.stop)


def _kept(target: Target, place: str, images: Sequence[Image], brought: tuple[str, ...], sent: int) -> Settled:
    target.keep(images)
    return Settled(place, target.where, brought, sent, target.prove(images))


def _trusting(place: str, target: Target, images: Sequence[Image], node: NodeFacts | None = None) -> Look:
    """A target that has not been looked at, as if it held everything."""
    return Look(
        place,
        target.where,
        tuple(images),
        Holdings(),
        Need(frozenset(i.name for i in images), frozenset(), frozenset(), {}, 0),
        node,
    )


def _node(look: Look) -> NodeFacts:
    if look.node is None:
        raise TypeError("a registry is no node")
    return look.node
