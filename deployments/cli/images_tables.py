"""Releases on nodes, for people."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import RenderableType
from rich.markup import escape

from deployments.cli.tables import plain_table
from tasks.domain.amounts import megabytes
from tasks.domain.component import Component, component_of
from tasks.domain.reference import ImageReference
from tasks.domain.version import Version
from tasks.images.prune import HeldImage, versions_of

_WORDS = {True: "yes", False: "no", None: ""}


@dataclass(frozen=True, slots=True)
class Release:
    """One version's images on one node: the repositories found, whether all of those are complete and pinned (None: not
    known, as the kubelet does not say it).
    """

    version: Version
    repositories: tuple[str, ...]
    size: int
    complete: bool
    pinned: bool | None


def releases(images: Sequence[HeldImage], repositories: frozenset[str], *, pins: bool) -> list[Release]:
    """What a node holds of each version, the newest first; `pins` says whether it told what is pinned.  Pure."""
    by_version: dict[Version, list[HeldImage]] = {}
    for image in images:
        for version in versions_of(image, repositories):
            by_version.setdefault(version, []).append(image)
    return [
        Release(
            version,
            _ordered(name for image in found for name in _repositories(image, version)),
            sum(image.size for image in found),
            all(image.complete for image in found),
            all(image.pinned for image in found) if pins else None,
        )
        for version, found in sorted(by_version.items(), reverse=True)
    ]


def _repositories(image: HeldImage, version: Version) -> Iterable[str]:
    for name in image.tagged:
        reference = ImageReference.find(name)
        if reference and Version.find(reference.tag) == version:
            yield reference.repository


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    """As the procedure has the components, then the rest."""
    order = list(Component)
    return tuple(sorted(set(names), key=lambda n: (order.index(c) if (c := component_of(n)) else len(order), n)))


def releases_table(rows: Iterable[tuple[str, Release | None, str]]) -> RenderableType:
    """(node, a release or None, why there is none)."""
    table = plain_table("NODE", "VERSION", "IMAGES", "SIZE", "COMPLETE", "PINNED")
    for node, release, why in rows:
        if release is None:
            table.add_row(escape(node), "", escape(why), "", "", "")
            continue
        complete, pinned = (_WORDS[flag] for flag in (release.complete, release.pinned))
        names = ", ".join(release.repositories)
        table.add_row(escape(node), str(release.version), escape(names), megabytes(release.size), complete, pinned)
    return table
