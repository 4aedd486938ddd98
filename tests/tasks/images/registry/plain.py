"""A source as a Docker engine is one: layers come uncompressed, and what they are is known only while reading."""

import hashlib
import json
from collections.abc import Iterator, Sequence

from tasks.domain.reference import ImageReference
from tasks.images.media import DOCKER_CONFIG, DOCKER_LAYER
from tasks.images.model import Blob, Image, Layer, Platform


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def cut(content: bytes, size: int = 100_000) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


class PlainSource:
    """Images of uncompressed layers, by name."""

    where = "a source of uncompressed layers"

    def __init__(self, images: dict[str, Sequence[bytes]]) -> None:
        self._layers = {sha256(layer): layer for layers in images.values() for layer in layers}
        self._images: dict[str, Image] = {}
        for name, layers in images.items():
            diff_ids = [sha256(layer) for layer in layers]
            rootfs = {"type": "layers", "diff_ids": diff_ids}
            config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": rootfs}).encode()
            normal = ImageReference.parse(name).normal
            self._images[normal] = Image(
                name=normal,
                origin=name,
                platform=Platform("linux", "amd64"),
                config=sha256(config),
                layers=tuple(Layer(diff_id) for diff_id in diff_ids),
                config_content=config,
            )

    def find(self, references: Sequence[ImageReference], platform: Platform | None = None) -> tuple[Image, ...]:
        assert platform in (None, Platform("linux", "amd64"))
        return tuple(self._images[reference.normal] for reference in references)

    def read(self, images: Sequence[Image], wanted: frozenset[str]) -> Iterator[Blob]:
        for config in {image.config: image.config_content for image in images}.values():
            yield Blob("config", "", sha256(config), len(config), DOCKER_CONFIG, cut(config))
        for diff_id in sorted(wanted):
            layer = self._layers[diff_id]
            yield Blob("layer", diff_id, diff_id, len(layer), DOCKER_LAYER, cut(layer))
