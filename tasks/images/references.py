"""What each image of an upgrade is called, at the source and at the target.  Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.domain.component import Component, repositories
from tasks.domain.finding import Finding, warning
from tasks.domain.inventory import DeploymentKey, Inventory
from tasks.domain.reference import VENDOR, ImageReference
from tasks.domain.step import RolloutStep
from tasks.domain.version import Version


@dataclass(frozen=True, slots=True)
class Wish:
    """An image that is wanted.

    `name` is its full name at the target, `candidates` what it may be called at the source, the likeliest first;
    `users` are the Deployments whose pods will run it (none for a release that is not bound to an installation).
    """

    name: str
    candidates: tuple[ImageReference, ...]
    users: tuple[DeploymentKey, ...] = ()

    @property
    def reference(self) -> ImageReference:
        return ImageReference.parse(self.name)


def wishes_of(
    steps: Sequence[RolloutStep], inventory: Inventory, *, prefix: str = "", own_names: bool = True
) -> tuple[Wish, ...]:
    """The images that the Deployments of a plan's steps will run, each once, the manager's first.

    `prefix` is what stands before the names at the source, the vendor's if empty.  With `own_names` an image may be
    called there as the Deployment calls it, too: true of an engine or a bundle, of another registry not.  Images that a
    Deployment pins by digest are left out: no upgrade changes them, and no tag leads to them.
    """
    facts = {d.key: d for d in inventory.deployments}
    users: dict[ImageReference, list[DeploymentKey]] = {}
    for step in steps:
        new = {(change.container, change.init): change.new for change in step.changes}
        for container in facts[step.key].containers:
            reference = ImageReference.parse(new.get((container.name, container.init), container.image))
            if reference.tag and not reference.digest:
                users.setdefault(reference, []).append(step.key)
    wishes: dict[str, Wish] = {}
    for reference, keys in users.items():
        known = wishes.get(reference.normal)
        candidates = _candidates(reference, prefix, own_names=own_names)
        wishes[reference.normal] = Wish(
            reference.normal, candidates, tuple(dict.fromkeys((*(known.users if known else ()), *keys)))
        )
    return tuple(wishes.values())


def kept_names(wishes: Sequence[Wish], prefix: str) -> tuple[Finding, ...]:
    """A warning where images stay behind another prefix than the wanted one: what runs the version already keeps its name."""

    def wanted(wish: Wish) -> str:
        return ImageReference.parse(f"{prefix}/{wish.reference.repository}:{wish.reference.tag}").normal

    kept = [wish.name for wish in wishes if prefix and wanted(wish) != wish.name]
    if not kept:
        return ()
    return (
        warning(
            "prefix-not-taken",
            f"{', '.join(kept)}: run already, under names that are not behind {prefix}.",
            "They keep their names, and are looked for and brought under these: an upgrade sets no image whose version runs.",
        ),
    )


def _candidates(reference: ImageReference, prefix: str, *, own_names: bool) -> tuple[ImageReference, ...]:
    there = ImageReference.parse(f"{prefix or VENDOR}/{reference.repository}:{reference.tag}")
    if prefix or not own_names or there.normal == reference.normal:
        return (there,)
    return there, reference


def release_references(
    version: Version, *, prefix: str = "", repositories_named: Mapping[Component, str] = {}
) -> tuple[tuple[ImageReference, ...], ...]:
    """The images of a release without an installation: for each component what it may be called, one or two names.

    Two where the published sources disagree about a rename; whoever holds them knows which one exists.
    """
    names = ((repositories_named[c],) if c in repositories_named else repositories(c, version) for c in Component)
    return tuple(
        tuple(ImageReference.parse(f"{prefix or VENDOR}/{name}:{version}") for name in alternatives)
        for alternatives in names
    )
