"""Which images of old releases may be removed from the nodes, and why the others stay.  Pure.

Only images of the installation's components are judged; everything else on a node is somebody else's.  An image goes
when no reason to stay is known, never because it merely looks old.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tasks.domain.component import component_of
from tasks.domain.discovery import recognised
from tasks.domain.errors import BlockedError
from tasks.domain.reference import ImageReference
from tasks.domain.version import Version


@dataclass(frozen=True, slots=True)
class HeldImage:
    """An image on a node under all of its names there.

    `digest` is what the runtime keeps it by: the manifest's (containerd) or the config's (Docker).  `names` are full
    names with a tag or a digest, and `sha256:…` where the kubelet's side of containerd named the config.  `size` is
    in bytes, as the runtime tells it, layers that other images share included.
    """

    digest: str
    names: tuple[str, ...]
    size: int = 0
    pinned: bool = False
    complete: bool = True

    @property
    def tagged(self) -> tuple[str, ...]:
        """The names with a tag."""
        return tuple(n for n in self.names if "@" not in n and not n.startswith("sha256:"))

    @property
    def digests(self) -> frozenset[str]:
        """Every digest that means this image."""
        return frozenset({self.digest, *(n.partition("@")[2] or n for n in self.names if "sha256:" in n)})


@dataclass(frozen=True, slots=True)
class ImageUse:
    """Who uses which image: by full name and by digest, with words for a person ("pod prod/worker-1 runs it")."""

    names: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)

    def joined(self, other: "ImageUse") -> "ImageUse":
        """Both; where both know of an image, this one's words."""
        return ImageUse({**other.names, **self.names}, {**other.digests, **self.digests})

    def of(self, image: HeldImage) -> str:
        """Who uses it, or ""."""
        by_name = [self.names[name] for name in image.tagged if name in self.names]
        by_digest = [self.digests[digest] for digest in sorted(image.digests) if digest in self.digests]
        return next(iter([*by_name, *by_digest]), "")


@dataclass(frozen=True, slots=True)
class Stay:
    """What must stay whoever uses it now.

    `present` are the versions of the installation's components; `needed` the older versions that a way back needs,
    with the reason; `repositories` the full names (without tag) of the images that the installation runs; `keep` is
    how many releases more stay, the newest first.
    """

    present: frozenset[Version]
    needed: Mapping[Version, str] = field(default_factory=dict)
    repositories: frozenset[str] = frozenset()
    keep: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of an image: it goes, or stays; `why` completes "it goes/stays because …"."""

    image: HeldImage
    version: Version | None
    goes: bool
    why: str


def to_remove(held: Mapping[str, Sequence[HeldImage]], use: ImageUse, stay: Stay) -> Mapping[str, tuple[Verdict, ...]]:
    """The verdict on each image of a component, for each node, in the order of its versions.

    Raise `BlockedError` where the present version is not known: what is old cannot be told then.
    """
    if not stay.present:
        raise BlockedError(
            "No image may be removed: the installation's version is not known.",
            observed="No component's image has a version as its tag.",
            next="See apinizer-upgrade status; images are told apart by their tags.",
        )
    versions = {v for images in held.values() for image in images for v in versions_of(image, stay.repositories)}
    reasons = _reasons(versions, stay)
    return {
        node: tuple(
            sorted(
                (_verdict(image, use, stay, reasons) for image in images if is_ours(image, stay.repositories)),
                key=lambda v: ((v.version.numbers if v.version else (0, 0, 0)), v.image.tagged),
            )
        )
        for node, images in held.items()
    }


def is_ours(image: HeldImage, repositories: frozenset[str]) -> bool:
    """Whether one of its names is a component's."""
    return any(_ours(name, repositories) for name in image.tagged)


def versions_of(image: HeldImage, repositories: frozenset[str]) -> tuple[Version, ...]:
    """The versions that its names as a component say, each once."""
    references = (ImageReference.find(name) for name in image.tagged if _ours(name, repositories))
    found = (Version.find(reference.tag) for reference in references if reference)
    return tuple(sorted({version for version in found if version}))


def _ours(name: str, repositories: frozenset[str]) -> bool:
    """A component behind a prefix that says so, or behind one of the installation's own."""
    reference = ImageReference.find(name)
    if reference is None:
        return False
    if reference.name in repositories or recognised(name):
        return True
    folders = {repository.rpartition("/")[0] for repository in repositories}
    return component_of(reference.repository) is not None and reference.prefix in folders


def _reasons(versions: Iterable[Version], stay: Stay) -> Mapping[Version, str]:
    """Why each of these versions stays; one that is not in it may go."""
    oldest, newest = min(stay.present), max(stay.present)
    reasons: dict[Version, str] = {}
    for version in versions:
        if version in stay.present:
            reasons[version] = "it is the version that is installed"
        elif version > newest:
            reasons[version] = f"it is newer than {newest}: staged for an upgrade"
        elif version > oldest:
            reasons[version] = f"the installation is between {oldest} and {newest}"
        elif version in stay.needed:
            reasons[version] = stay.needed[version]
    older = sorted((v for v in versions if v < oldest), reverse=True)
    if older and not any(version in reasons for version in older):
        # Neither a ReplicaSet nor a backup remembers a release: the one before this is the likeliest way back.
        reasons[older[0]] = "it is the release before the present one"
    for version in [v for v in older if v not in reasons][: stay.keep]:
        reasons[version] = f"the newest {stay.keep} of the others are kept"
    return reasons


def _verdict(image: HeldImage, use: ImageUse, stay: Stay, reasons: Mapping[Version, str]) -> Verdict:
    versions = versions_of(image, stay.repositories)
    version = versions[-1] if versions else None
    strange = [name for name in image.tagged if not _ours(name, stay.repositories)]
    unnumbered = [n for n in image.tagged if n not in strange and Version.find(_tag(n)) is None]
    used, kept = use.of(image), next((reasons[v] for v in versions if v in reasons), "")
    why = (
        used
        or kept
        or (f"it is also named {strange[0]}" if strange else "")
        or (f"the tag of {unnumbered[0]} is no version" if unnumbered else "")
    )
    return Verdict(image, version, not why, why or "no pod, no template and no way back needs it")


def _tag(name: str) -> str | None:
    reference = ImageReference.find(name)
    return reference.tag if reference else None
