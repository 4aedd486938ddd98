"""From a release and a source to a bundle: what it is called there, what the site holds already, one file, read back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from tasks.domain.component import Component
from tasks.domain.errors import NotFoundError, UsageError
from tasks.domain.reference import ImageReference
from tasks.domain.version import Version
from tasks.images.bundle import (
    Base,
    BundleFacts,
    read_held,
    require_folder,
    require_key,
    sign_bundle,
    signature_path,
    verify_bundle,
    write_bundle,
)
from tasks.images.model import Image, Platform, Source
from tasks.images.opening import Opened
from tasks.images.references import release_references

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class BundleOrder:
    """What is to be bundled: the release, less what `since` (a version) or `held` (a file of the site) says is there.

    `out` is a file or a folder, `compress` is "" where the layers decide, `sign` a key's file or "".
    """

    to: Version
    since: Version | None = None
    held: str = ""
    out: str = "."
    compress: Literal["", "zstd", "none"] = ""
    sign: str = ""
    replace: bool = False

    def require_place(self) -> Path:
        """The file or the folder that the bundle goes to; raise `UsageError` where that is in no folder: none is made."""
        place = Path(self.out or ".").expanduser()
        require_folder(place)
        return place


@dataclass(frozen=True, slots=True)
class Bundled:
    """A bundle that was written and read back whole; `signature` is its file, or ""."""

    facts: BundleFacts
    signature: str = ""


def find_release(opened: Opened, version: Version, repositories: Mapping[Component, str]) -> tuple[Image, ...]:
    """The release's images at the source; of a component whose repository's name is disputed, those that exist.

    Raise what `Source.find` raises.
    """
    settings = opened.settings
    platform = Platform.parse(settings.platform) if settings.platform else None
    asked = release_references(version, prefix=settings.source.prefix, repositories_named=repositories)
    sure = opened.source().find([names[0] for names in asked if len(names) == 1], platform)
    disputed = [_existing(opened.source(), names, platform) for names in asked if len(names) > 1]
    return (*sure, *(image for images in disputed for image in images))


def base_of(opened: Opened, order: BundleOrder, repositories: Mapping[Component, str]) -> Base | None:
    """What the site holds already, so that the bundle leaves it out; None for a whole bundle."""
    if order.since and order.held:
        raise UsageError(
            "A bundle is made since a version or for a list of what is held, not both.",
            observed="--since and --held were given.",
            next="Say --since VERSION or --held FILE.",
        )
    if order.held:
        return Base.of_list(read_held(Path(order.held).expanduser()))
    if order.since is None:
        return None
    if order.since == order.to:
        raise UsageError(
            f"A bundle of {order.to} since {order.to} would be empty.",
            observed="Both are the same version.",
            next="Name the version that the site runs.",
        )
    return Base.of_images(order.since.text, find_release(opened, order.since, repositories))


def make_bundle(
    opened: Opened,
    order: BundleOrder,
    images: Sequence[Image],
    base: Base | None,
    made_at: datetime,
    progress: Progress,
) -> BundleFacts:
    """Write the file; it appears whole or not at all.  Raise what `write_bundle` and `require_key` raise."""
    if order.sign:
        require_key(Path(order.sign).expanduser())
    facts = write_bundle(
        opened.source(),
        images,
        order.require_place(),
        version=order.to.text,
        made_at=made_at,
        held=base,
        compress=order.compress or None,
        replace=order.replace,
        progress=progress,
        stop=opened.stop,
    )
    # The signature of a file that was replaced is not this one's.
    signature_path(Path(facts.path)).unlink(missing_ok=True)
    return facts


def prove_bundle(opened: Opened, order: BundleOrder, path: Path, progress: Progress) -> Bundled:
    """Read the file back whole, then sign it where a key is given."""
    facts = verify_bundle(path, progress=progress, stop=opened.stop)
    if not order.sign:
        return Bundled(facts)
    return Bundled(facts, str(sign_bundle(path, Path(order.sign).expanduser(), replace=order.replace)))


def version_in(facts: BundleFacts) -> Version:
    """The version that a bundle brings; raise `UsageError` where its images are of several, or of none."""
    if facts.version:
        return Version(facts.version)
    tags = {tag for image in facts.images if (tag := _tag(image.name))}
    versions = {version for tag in tags if (version := Version.find(tag)) is not None}
    if len(versions) != 1:
        raise UsageError(
            f"Which version the file {facts.path} brings is not to be seen.",
            observed=f"The tags of its images: {', '.join(sorted(tags)) or 'none'}.",
            next="Bring it with images stage --to VERSION and the way bundle-to-nodes or bundle-to-registry.",
        )
    return versions.pop()


def _tag(name: str) -> str:
    reference = ImageReference.find(name)
    return (reference.tag or "") if reference else ""


def _existing(source: Source, names: Sequence[ImageReference], platform: Platform | None) -> list[Image]:
    found: list[Image] = []
    told: NotFoundError | None = None
    for name in names:
        try:
            found += source.find([name], platform)
        except NotFoundError as error:
            told = told or error
    if told is not None and not found:
        raise told
    return found
