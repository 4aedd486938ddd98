"""Layers are the ones that the images' configs name: of compressed ones that is known when they are unpacked."""

import gzip
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from tasks.domain.errors import DamagedArchiveError
from tasks.images.bundle import verify_bundle, write_bundle
from tasks.images.bundle.unpacking import Unpacked
from tasks.images.media import DOCKER_LAYER_GZIP, OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST
from tasks.images.model import Descriptor, digest_of
from tests.tasks.images.bundle.shelf import AT, Shelf, layer_of, release
from tests.tasks.images.bundle.test_foreign import FULL, Layout, config, dumped, packed

LAYER = layer_of(b"one", 20_000)
HALF = len(LAYER) // 2


def two_members(content: bytes) -> bytes:
    return gzip.compress(content[:HALF], mtime=0) + gzip.compress(content[HALF:], mtime=0)


def two_frames(content: bytes) -> bytes:
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    return zstandard.compress(content[:HALF]) + skippable + zstandard.compress(content[HALF:])


def layout(path: Path, stored: bytes, media_type: str) -> Path:
    """An image whose config names `LAYER` and whose layer's bytes are `stored`."""
    made = Layout()
    own = made.blob(config([LAYER]), OCI_CONFIG)
    forms = [made.blob(stored, media_type)]
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": own, "layers": forms}
    made.name(made.blob(dumped(manifest), OCI_MANIFEST), io_containerd_image_name=FULL)
    return packed(made.done(), path)


@pytest.mark.parametrize(
    ("pack", "media_type"),
    [(bytes, OCI_LAYER), (gzip.compress, OCI_LAYER_GZIP), (two_members, OCI_LAYER_GZIP), (zstandard.compress, OCI_LAYER_ZSTD),
     (two_frames, OCI_LAYER_ZSTD), (gzip.compress, OCI_LAYER_ZSTD)],
)  # fmt: skip
def test_layers_in_every_form(tmp_path: Path, pack: Callable[[bytes], bytes], media_type: str) -> None:
    """What the bytes are counts, not what they are called: runtimes look at them too."""
    assert verify_bundle(layout(tmp_path / "b", pack(LAYER), media_type)).kind == "oci-layout"


@pytest.mark.parametrize(
    ("stored", "media_type"),
    [
        (layer_of(b"two"), OCI_LAYER), (gzip.compress(layer_of(b"two")), OCI_LAYER_GZIP), (b"no gzip", OCI_LAYER_GZIP),
        (zstandard.compress(layer_of(b"two")), OCI_LAYER_ZSTD), (gzip.compress(LAYER)[:-1], OCI_LAYER_GZIP),
        (gzip.compress(LAYER) + b"more", OCI_LAYER_GZIP), (zstandard.compress(LAYER)[:-1], OCI_LAYER_ZSTD), (b"", OCI_LAYER),
    ],
)  # fmt: skip
def test_layers_that_are_others(tmp_path: Path, stored: bytes, media_type: str) -> None:
    with pytest.raises(DamagedArchiveError, match=digest_of(LAYER)):
        verify_bundle(layout(tmp_path / "b", stored, media_type))


@pytest.mark.parametrize("other", [gzip.compress(layer_of(b"two")), b"no gzip"])
def test_a_bundle_of_a_registry_that_keeps_another_layer(tmp_path: Path, other: bytes) -> None:
    """Its manifest has the digest of these bytes; only unpacking them shows that the config means others."""
    shelf = Shelf()
    (image,) = release(shelf)[:1]
    diff_id = image.diff_ids[0]
    layers = tuple(
        replace(layer, blob=Descriptor(DOCKER_LAYER_GZIP, digest_of(other), len(other)))
        if layer.diff_id == diff_id
        else layer
        for layer in image.layers
    )
    document = json.loads(image.manifest)
    document["layers"][0] |= {"digest": digest_of(other), "size": len(other)}
    shelf.contents[diff_id] = (DOCKER_LAYER_GZIP, other)
    changed = replace(image, layers=layers, manifest=dumped(document), manifest_digest=digest_of(dumped(document)))
    write_bundle(shelf, [changed], tmp_path / "b", version="2025.07.0", made_at=AT)
    with pytest.raises(DamagedArchiveError, match=diff_id):
        verify_bundle(tmp_path / "b")


def test_memory_is_bounded_and_pieces_of_any_size_do() -> None:
    plain = bytes(200_000_000)
    packed_form, expected = gzip.compress(plain, 1), digest_of(plain)
    del plain
    tracemalloc.start()
    try:
        unpacked = Unpacked()
        unpacked.update(packed_form)
        assert unpacked.digest == expected
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()
    for form in (gzip.compress(LAYER), two_members(LAYER), zstandard.compress(LAYER), two_frames(LAYER)):
        for size in (1, 3, 1000):
            unpacked = Unpacked()
            for at in range(0, len(form), size):
                unpacked.update(memoryview(form)[at : at + size])
            assert unpacked.digest == digest_of(LAYER)
