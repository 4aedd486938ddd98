"""Nodes whose images are a dictionary, in place of their runtimes; everything above them is as in a run."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest.mock import patch

from blocks.image_settings import ImageSourceSettings
from tasks.domain.errors import UpgradeError
from tasks.domain.placement import NodeFacts
from tasks.images import pruning
from tasks.images.node_listing import use_of
from tasks.images.prune import HeldImage, ImageUse
from tasks.images.remote import Remote

FOLDER = "docker.io/apinizercloud"


def worker(version: str) -> str:
    return f"{FOLDER}/worker:{version}"


@dataclass
class Shelf:
    """A node: its images by name, what its containers were made from, and names that come back whatever is removed.

    Of `parted` names not all layers are there.  `refuse` is raised by whatever is asked of it; `meanwhile` runs each time its images are asked for.
    """

    images_by_name: dict[str, str] = field(default_factory=dict)
    containers: list[str] = field(default_factory=list)
    sticky: frozenset[str] = frozenset()
    parted: frozenset[str] = frozenset()
    refuse: UpgradeError | None = None
    meanwhile: Callable[[], None] = lambda: None
    removals: int = 0

    def put(self, *names: str) -> None:
        """Each name an image of its own."""
        for name in names:
            self.images_by_name[name] = "sha256:" + hashlib.sha256(name.encode()).hexdigest()

    @property
    def versions(self) -> set[str]:
        return {name.rpartition(":")[2] for name in self.images_by_name}

    def images(self) -> tuple[HeldImage, ...]:
        if self.refuse:
            raise self.refuse
        self.meanwhile()
        names: dict[str, list[str]] = {}
        for name, digest in self.images_by_name.items():
            names.setdefault(digest, []).append(name)
        return tuple(
            HeldImage(digest, tuple(found), 1000, complete=self.parted.isdisjoint(found))
            for digest, found in names.items()
        )

    def used(self) -> ImageUse:
        return use_of(self.containers, "a container on the node is made from it")

    def remove(self, images: Sequence[HeldImage]) -> None:
        self.removals += 1
        for name in {name for image in images for name in image.names} - self.sticky:
            self.images_by_name.pop(name, None)


@contextmanager
def shelved(names: Iterable[str]) -> Iterator[dict[str, Shelf]]:
    """The shelves of these nodes; nobody is reached, so how much room a disk has is not known either."""
    shelves = {name: Shelf() for name in names}

    def store_of(settings: ImageSourceSettings, node: NodeFacts, remote: Remote) -> Shelf:
        return shelves[node.name]

    def free(*_: object) -> int:
        return 10**9 - 1000 * sum(len(shelf.images_by_name) for shelf in shelves.values())

    with patch.object(pruning, "store_of", store_of), patch.object(pruning, "_free", free):
        yield shelves
