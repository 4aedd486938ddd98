"""A source in memory, that can be anything a source may be: a registry's compressed layers or an engine's plain ones."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tasks.domain.reference import ImageReference
from tasks.images.bundle import Base, BundleFacts, Compression, write_bundle
from tasks.images.manifest import image_of
from tasks.images.media import DOCKER_CONFIG, DOCKER_LAYER, DOCKER_LAYER_GZIP, DOCKER_MANIFEST
from tasks.images.model import Blob, Descriptor, Image, Layer, Platform, digest_of

AT = datetime(2025, 7, 1, 12, 0, tzinfo=UTC)
AMD = Platform("linux", "amd64")


def layer_of(seed: bytes, size: int = 3000) -> bytes:
    """A layer: a tar archive with one file of `size` bytes that follow from `seed`."""
    content = b"".join(hashlib.sha256(seed + i.to_bytes(4)).digest() for i in range(size // 32 + 1))[:size]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(f"file-{seed.hex()}")
        info.size = size
        archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


@dataclass
class Shelf:
    """`engine`: layers plain, their form not known before reading, as with a Docker engine."""

    engine: bool = False
    where: str = "shelf"
    images: dict[str, Image] = field(default_factory=dict)
    contents: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    broken: dict[str, bytes] = field(default_factory=dict)
    closed: int = 0
    read_layers: list[str] = field(default_factory=list)

    def put(self, name: str, layers: Sequence[bytes], platform: Platform = AMD, **extra: str) -> Image:
        """An image of these (uncompressed) layers; `extra` goes into its config."""
        diff_ids = [digest_of(layer) for layer in layers]
        document = {"os": platform.os, "architecture": platform.architecture, "config": extra}
        config = json.dumps({**document, "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode()
        for diff_id, layer in zip(diff_ids, layers, strict=True):
            form = (DOCKER_LAYER, layer) if self.engine else (DOCKER_LAYER_GZIP, gzip.compress(layer, 6, mtime=0))
            self.contents[diff_id] = form
        full = ImageReference.parse(name).normal
        if self.engine:
            blank = tuple(Layer(diff_id) for diff_id in diff_ids)
            image = Image(full, name, platform, digest_of(config), blank)
        else:
            forms = [self.descriptor(diff_id).as_json() for diff_id in diff_ids]
            own = Descriptor(DOCKER_CONFIG, digest_of(config), len(config)).as_json()
            manifest = {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": own, "layers": forms}
            image = image_of(full, name, json.dumps(manifest).encode(), config)
        self.contents[image.config] = (DOCKER_CONFIG, config)
        self.images[full] = image
        return image

    def descriptor(self, diff_id: str) -> Descriptor:
        media_type, content = self.contents[diff_id]
        return Descriptor(media_type, digest_of(content), len(content))

    def find(self, references: Sequence[ImageReference], platform: Platform | None) -> tuple[Image, ...]:  # noqa: ARG002
        return tuple(self.images[reference.normal] for reference in references)

    def read(self, images: Sequence[Image], wanted: frozenset[str]) -> Iterator[Blob]:
        try:
            for config in dict.fromkeys(image.config for image in images):
                yield self._blob("config", config)
            for diff_id in dict.fromkeys(diff_id for image in images for diff_id in image.diff_ids):
                if diff_id in wanted:
                    self.read_layers.append(diff_id)
                    yield self._blob("layer", diff_id)
        finally:
            self.closed += 1

    def _blob(self, kind: str, key: str) -> Blob:
        told = self.descriptor(key)
        content = self.broken.get(key, self.contents[key][1])
        chunks = (content[at : at + 1000] for at in range(0, len(content), 1000))
        diff_id = "" if kind == "config" else key
        return Blob("layer" if diff_id else "config", diff_id, told.digest, told.size, told.media_type, chunks)


def release(shelf: Shelf, version: str = "2025.07.0", *, size: int = 3000) -> tuple[Image, ...]:
    """Five images, as a release has them: one layer of all, one of the version, one of each image's own."""
    shared = [layer_of(b"base", size), layer_of(version.encode(), size)]
    names = ("manager", "worker", "cache", "apiportal", "integration")
    return tuple(
        shelf.put(f"apinizercloud/{name}:{version}", [*shared, layer_of(f"{name}{version}".encode())]) for name in names
    )


def bundle(
    path: Path, *, engine: bool = False, compress: Compression | None = None, held: Base | None = None, size: int = 3000
) -> BundleFacts:
    """A bundle of a release at `path`."""
    shelf = Shelf(engine)
    return write_bundle(
        shelf, release(shelf, size=size), path, version="2025.07.0", made_at=AT, compress=compress, held=held
    )


def everything(blobs: Iterator[Blob]) -> Mapping[str, bytes]:
    """All blobs by digest."""
    return {blob.digest: b"".join(blob.chunks) for blob in blobs}


def names(folder: Path) -> list[str]:
    """What is in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())
