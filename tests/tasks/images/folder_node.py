"""Nodes that keep images in a folder: blobs by digest, a file of names that is written last.  Faults to order."""

# ruff: noqa: ARG002 -- the targets here have the whole interface and use a part of it.

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from blocks.image_settings import ImageSourceSettings
from tasks.domain.errors import TemporaryError, UpgradeError
from tasks.domain.placement import NodeFacts
from tasks.images.model import Blob, HeldBlob, Holdings, Image, Need, Proof
from tasks.images.opening import Opened
from tasks.images.proof import Found, judge


@dataclass
class FolderNode:
    """A node: `cut` deliveries break after so many bytes each, `refuse` is raised by every look."""

    where: str
    folder: Path
    cut: list[int] = field(default_factory=list)
    refuse: UpgradeError | None = None
    free: int | None = None
    pins: bool = True
    received: int = 0
    deliveries: int = 0
    pinned: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.folder.mkdir()

    @property
    def names(self) -> dict[str, dict[str, list[str] | str]]:
        file = self.folder / "names"
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def look(self, images: Sequence[Image]) -> Holdings:
        if self.refuse:
            raise self.refuse
        blobs = {p.name: HeldBlob(p.name, p.stat().st_size) for p in self.folder.iterdir() if ":" in p.name}
        return Holdings(blobs, {name: str(each["config"]) for name, each in self.names.items()}, free=self.free)

    def inlet(self, images: Sequence[Image], need: Need, holdings: Holdings) -> "FolderInlet":
        self.deliveries += 1
        return FolderInlet(self, images, self.cut.pop(0) if self.cut else -1)

    def keep(self, images: Sequence[Image]) -> None:
        if self.pins:
            self.pinned |= {image.name for image in images}

    def prove(self, images: Sequence[Image]) -> tuple[Proof, ...]:
        if self.refuse:
            raise self.refuse
        found = {
            name: Found(str(each["config"]), "", name in self.pinned, self._lacks(each["blobs"]))
            for name, each in self.names.items()
        }
        return judge(self.where, images, found)

    def forget(self, name: str) -> None:
        """As garbage collection does: the name goes, and with it what only it needs."""
        names = self.names
        gone = names.pop(name)
        (self.folder / "names").write_text(json.dumps(names))
        still = {digest for each in names.values() for digest in each["blobs"]}
        for digest in gone["blobs"]:
            if digest not in still:
                (self.folder / digest).unlink()

    def _lacks(self, digests: list[str] | str) -> tuple[str, ...]:
        return tuple(digest for digest in digests if not (self.folder / digest).exists())


class FolderInlet:
    def __init__(self, node: FolderNode, images: Sequence[Image], cut: int) -> None:
        self._node, self._images, self._cut = node, images, cut
        self._came: dict[str, bytes] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def take(self, blob: Blob) -> None:
        content = b""
        for chunk in blob.chunks:
            content += chunk
            self._node.received += len(chunk)
            if 0 <= self._cut < sum(map(len, self._came.values())) + len(content):
                raise TemporaryError(f"The connection to {self._node.where} was cut.")
        self._came[blob.digest] = content
        if blob.kind == "layer":  # as containerd ingests: what came whole stays, named or not
            (self._node.folder / blob.digest).write_bytes(content)

    def finish(self) -> None:
        names = self._node.names
        for digest, content in self._came.items():
            (self._node.folder / digest).write_bytes(content)
        for image in self._images:
            layers = [layer.blob.digest for layer in image.layers if layer.blob]
            names[image.name] = {"config": image.config, "blobs": [image.config, *layers]}
        (self._node.folder / "names").write_text(json.dumps(names))


class FolderNodes(Opened):
    """Opens folder nodes instead of the machines that the nodes' facts name; everything else is as in a run."""

    def __init__(self, settings: ImageSourceSettings, nodes: dict[str, FolderNode]) -> None:
        super().__init__(settings)
        self.nodes = nodes

    def target(self, node: NodeFacts) -> FolderNode:
        return self.nodes[node.name]


@contextmanager
def folder_nodes(settings: ImageSourceSettings, root: Path, *names: str) -> Iterator[FolderNodes]:
    opened = FolderNodes(settings, {name: FolderNode(name, root / name) for name in names})
    try:
        yield opened
    finally:
        opened.close()
