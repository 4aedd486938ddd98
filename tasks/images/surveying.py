"""What an upgrade would have to move: which node is to hold what, what the source has, what each target lacks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

from blocks.image_settings import ImageSourceSettings
from tasks.cluster.planning import Connections
from tasks.domain.errors import BlockedError, ForbiddenError, NotFoundError, UnauthorizedError, UpgradeError
from tasks.domain.finding import Finding
from tasks.domain.inventory import Inventory
from tasks.domain.placement import NodeFacts
from tasks.domain.plan import Plan
from tasks.domain.reference import ImageReference
from tasks.images.demand import Demand, Place
from tasks.images.demand_reading import read_demand
from tasks.images.missing import need_of
from tasks.images.model import Holdings, Image, Need, Platform, Source, Target
from tasks.images.online import judge, to_ask
from tasks.images.opening import Opened
from tasks.images.proof import one_for_several
from tasks.images.references import Wish
from tasks.images.registry import holds, registry_of
from tasks.images.reported import unreported

T = TypeVar("T")
R = TypeVar("R")

Found = Mapping[str, tuple[Image, ...]]
"""The images by the platform that they were asked for ("linux/amd64"; "" where no node said one), in the wishes' order."""

ABSENT = (NotFoundError, UnauthorizedError, ForbiddenError)
"""What a source raises for a name that does not exist there, or that it does not show."""


@runtime_checkable
class Beginning(Protocol):
    """A source that takes its time before the first byte (an engine, which writes its archive down first)."""

    def begin(self, images: Sequence[Image]) -> None:
        """Begin what `read` of these images will want."""
        ...

    def leave(self) -> None:
        """End what was begun and not read."""
        ...


REGISTRY = "registry"
"""The key of the one place of a way to a registry."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one target holds of the images that it is to have; `place` is its key, `node` None for a registry."""

    place: str
    where: str
    images: tuple[Image, ...]
    holdings: Holdings
    need: Need
    node: NodeFacts | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """The full names of the images that it does not hold."""
        return tuple(image.name for image in self.images if image.name not in self.need.complete)

    @property
    def size(self) -> int:
        """Bytes to send; about, where the source tells sizes only while it is read."""
        if self.need.size is not None:
            return self.need.size
        layers = {layer.diff_id: layer for image in self.images for layer in image.layers}
        wanted = [layers[diff_id] for diff_id in self.need.layers if diff_id in layers]
        return sum(layer.blob.size if layer.blob else layer.estimate for layer in wanted)


@dataclass(frozen=True, slots=True)
class Survey:
    """What would be moved; `failed` are the places that could not be looked at, `findings` what else is to be known."""

    demand: Demand
    found: Found = field(default_factory=dict)
    looks: Mapping[str, Look] = field(default_factory=dict)
    failed: Mapping[str, UpgradeError] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


def find(opened: Opened, demand: Demand) -> Found:
    """The wished images at the source, for each platform that the nodes have; raise what `Source.find` raises."""
    source, given = opened.source(), opened.settings.platform
    names = (given,) if given else (demand.platforms or ("",))
    return {name: find_at(source, demand.wishes, Platform.parse(name) if name else None) for name in names}


def foresee(opened: Opened, demand: Demand, found: Found) -> None:
    """Have a source begin what nodes will surely want of it, while they are still asked; nothing is read of it yet."""
    source, lacking = opened.source(), unreported(demand)
    if isinstance(source, Beginning) and len(found) == 1 and lacking:
        source.begin([image for image in the_platform(found) if image.name in lacking])


def find_at(source: Source, wishes: Sequence[Wish], platform: Platform | None) -> tuple[Image, ...]:
    """The images under their names at the target; of several names at the source the first that it has.

    A registry may refuse a repository that does not exist as it does one that is not for everybody (Docker Hub says
    `denied` for both), so the next name is tried then, too.
    """
    try:
        images = source.find([wish.candidates[0] for wish in wishes], platform)
    except ABSENT:
        if all(len(wish.candidates) == 1 for wish in wishes):
            raise
        images = tuple(_either(source, wish.candidates, platform) for wish in wishes)
    return tuple(image.named(wish.name) for image, wish in zip(images, wishes, strict=True))


def _either(source: Source, candidates: Sequence[ImageReference], platform: Platform | None) -> Image:
    """The first that the source has; the error is that of the likeliest name."""
    told: UpgradeError | None = None
    for candidate in candidates:
        try:
            return source.find([candidate], platform)[0]
        except ABSENT as error:
            told = told or error
    raise told or NotFoundError(
        "No name was asked for.", observed="The list of names is empty.", next="Name the version's images."
    )


def images_for(place: Place, found: Found, given: str = "") -> tuple[Image, ...]:
    """The images that a place is to hold, of its own platform or the `given` one."""
    return tuple(image for image in found[given or place.node.platform] if image.name in place.images)


def looked(target: Target, key: str, images: Sequence[Image], node: NodeFacts | None = None) -> Look:
    """What a target holds of `images`, and what it lacks; raise what `Target.look` raises.

    Raise `BlockedError` where a node that no cluster tells of has another platform than the images that are meant for it.
    """
    holdings = target.look(images)
    if node is not None and (not node.platform or node.runtime.endswith("://")):
        _require_platform(target.where, images, holdings)
    return Look(key, target.where, tuple(images), holdings, need_of(images, holdings), node)


def _require_platform(where: str, images: Sequence[Image], holdings: Holdings) -> None:
    """Images of another platform are held and proved like any, and none of their containers would start."""
    has = holdings.platform
    other = next((image for image in images if has and not image.platform.matches(has)), None)
    if has is not None and other is not None:
        raise BlockedError(
            f"{where} is {has}, and the images found for it are {other.platform}.",
            observed=f"No cluster tells the platform of this node; {other.name} was taken for {other.platform}.",
            next=f"Say it in the configuration, beside the node's name in images.nodes.named: platform: {has}; and no "
            "images.platform for all.",
        )


def look_at(opened: Opened, place: Place, found: Found) -> Look:
    """Ask a node what it holds of its images."""
    images = images_for(place, found, opened.settings.platform)
    return looked(opened.target(place.node), place.key, images, place.node)


def images_digests(found: Found) -> dict[str, frozenset[str]]:
    """By an image's full name at the target the digests of its configs and manifests, over all platforms."""
    digests: dict[str, frozenset[str]] = {}
    for image in (image for images in found.values() for image in images):
        known = {image.config, image.manifest_digest} - {""}
        digests[image.name] = digests.get(image.name, frozenset()) | known
    return digests


def the_platform(found: Found) -> tuple[Image, ...]:
    """The images of the one platform, for a registry; raise `UpgradeError` where the nodes have several."""
    if len(found) != 1:
        raise UpgradeError(
            f"The nodes have several platforms: {', '.join(sorted(found))}.",
            observed="A tag of the registry would hold the images of one of them only.",
            next="Push images of several platforms by hand (docker buildx imagetools create) and choose the way online, "
            "or say which one is meant: images.platform in the configuration.",
        )
    return next(iter(found.values()))


def known_in_registry(inventory: Inventory, prefix: str) -> tuple[ImageReference, ...]:
    """The images that the installation runs now from the registry of `prefix`: their layers are there."""
    host = prefix.partition("/")[0]
    references = (c.reference for d in inventory.deployments for c in d.containers)
    return tuple(dict.fromkeys(r for r in references if r.registry == host and (r.tag or r.digest)))


def ask_registries(demand: Demand, settings: ImageSourceSettings) -> tuple[Finding, ...]:
    """For ways that move nothing: what the kubelets report and, where they do not, what the registries hold.

    A registry that did not answer once is not asked again: a closed site costs one timeout.
    """
    answers: dict[str, bool | None] = {}
    silent: set[str] = set()
    registries = {registry_of(wish.name) for wish in demand.wishes}
    for name in to_ask(demand):
        reference = ImageReference.parse(name)
        host = reference.registry
        hub = host == "docker.io"
        asked = ImageReference("" if hub else host, reference.path, reference.tag)
        answers[name] = None if host in silent else holds(asked, settings, registries=registries)
        if answers[name] is None:
            silent.add(host)
    return judge(demand, answers)


def survey(
    connections: Connections, inventory: Inventory, plan: Plan, opened: Opened, *, every: bool = False
) -> Survey:
    """What the way of the settings would move; nothing is changed.

    Raise what `demand_for` and `find` raise; a node that cannot be looked at is told in `failed`.
    """
    settings = opened.settings
    demand = read_demand(connections, inventory, plan, settings, every=every)
    if not settings.way.source:
        return Survey(demand, findings=(*demand.findings, *ask_registries(demand, settings)))
    if not demand.wishes:
        return Survey(demand, findings=demand.findings)
    found = find(opened, demand)
    findings = (*demand.findings, *one_for_several(found))
    if settings.way.target == "registry":
        target = opened.registry(known_in_registry(inventory, settings.prefix))
        return Survey(demand, found, {REGISTRY: looked(target, REGISTRY, the_platform(found))}, {}, findings)

    def one(place: Place) -> Look | UpgradeError:
        try:
            return look_at(opened, place, found)
        except UpgradeError as error:
            return error

    answers = list(zip(demand.places, at_once(one, demand.places, settings.parallel), strict=True))
    looks = {place.key: answer for place, answer in answers if isinstance(answer, Look)}
    failed = {place.key: answer for place, answer in answers if isinstance(answer, UpgradeError)}
    return Survey(demand, found, looks, failed, findings)


def at_once(act: Callable[[T], R], values: Iterable[T], most: int) -> tuple[R, ...]:
    """`act` of each value, at most `most` at a time; the first error in their order is raised when all have ended.

    Each runs in a copy of the caller's context: what it tells belongs to the run that the caller is part of.
    """
    here = [(copy_context(), value) for value in values]
    with ThreadPoolExecutor(most, thread_name_prefix="images") as pool:
        return tuple(pool.map(lambda each: each[0].run(act, each[1]), here))
