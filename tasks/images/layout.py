"""Writes OCI layouts as bytes: the manifest of an image from the pieces that are there, the index, the tar around them.

The same input gives the same bytes.  Formats: OCI image-spec (image-layout.md, manifest.md, image-index.md, annotations.md);
containerd's `images/archive/importer.go` takes every file of the archive by the digest that it computes, reads
`index.json` when the archive has ended, and then wants each blob in its content store, whether it came or was there.
"""

import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.domain.errors import UnprovenError
from tasks.domain.reference import ImageReference
from tasks.images.manifest import parse_config
from tasks.images.media import (
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_LAYER_ZSTD,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
)
from tasks.images.model import Descriptor, Image, JsonObject, Layer, digest_of

LAYOUT_NAME = "oci-layout"
INDEX_NAME = "index.json"
OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
TAR_END = bytes(2 * tarfile.BLOCKSIZE)

# containerd names an image after this annotation, other tools after the tag alone (OCI image-spec, annotations.md).
IMAGE_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"

_IN_OCI = {DOCKER_LAYER: OCI_LAYER, DOCKER_LAYER_GZIP: OCI_LAYER_GZIP, DOCKER_LAYER_ZSTD: OCI_LAYER_ZSTD}


@dataclass(frozen=True, slots=True)
class Assembled:
    """A manifest under which an image can be imported: its bytes and their descriptor."""

    manifest: bytes
    descriptor: Descriptor


def assemble(
    image: Image, came: Mapping[str, Descriptor], reuse: Mapping[str, Descriptor], config: bytes = b""
) -> Assembled:
    """The manifest of `image` over the layers that `came` and those held (`reuse`), both by diffID.

    The source's own manifest is kept where every layer is there in its own form; otherwise an OCI manifest is written,
    the image staying the same (config and diffIDs).  `config` are the bytes that came, by default the image's own.
    Raise `UnprovenError` where a layer is neither there nor came, or the config is not the image's.
    """
    content = config or image.config_content
    _require_config(image, content)
    chosen = [_choose(image, layer, came, reuse) for layer in image.layers]
    own = image.manifest_descriptor
    if own is not None and all(one == layer.blob for one, layer in zip(chosen, image.layers, strict=True)):
        return Assembled(image.manifest, own)
    manifest = as_bytes(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": Descriptor(OCI_CONFIG, image.config, len(content)).as_json(),
            "layers": [_in_oci(one).as_json() for one in chosen],
        }
    )
    return Assembled(manifest, Descriptor(OCI_MANIFEST, digest_of(manifest), len(manifest)))


def index_of(assembled: Sequence[tuple[Image, Assembled]], annotations: Mapping[str, str] | None = None) -> bytes:
    """The index of a layout: one entry for each image's name, in the order given; `annotations` are the index's own."""
    document: JsonObject = {"schemaVersion": 2, "mediaType": OCI_INDEX}
    document["manifests"] = [_entry(image, one) for image, one in assembled]
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    return as_bytes(document)


def as_bytes(document: JsonObject) -> bytes:
    """JSON without blanks, keys in the order given."""
    return json.dumps(document, separators=(",", ":")).encode()


def blob_path(digest: str) -> str:
    """Where a layout keeps a blob: `blobs/sha256/<hex>`."""
    algorithm, _, value = digest.partition(":")
    return f"blobs/{algorithm}/{value}"


def tar_member(name: str, size: int) -> bytes:
    """The header of a file of `size` bytes in a tar archive; without owner and time, so that it is always the same."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.GNU_FORMAT)  # GNU's form carries sizes above 8 GiB; Go's and every other reader takes it.


def padding(size: int) -> bytes:
    """What follows a file of `size` bytes up to the next block."""
    return bytes(-size % tarfile.BLOCKSIZE)


def tar_file(name: str, content: bytes) -> bytes:
    """A whole small file as it stands in a tar archive."""
    return tar_member(name, len(content)) + content + padding(len(content))


def _entry(image: Image, one: Assembled) -> JsonObject:
    platform = {"architecture": image.platform.architecture, "os": image.platform.os}
    if image.platform.variant:
        platform["variant"] = image.platform.variant
    reference = ImageReference.find(image.name)
    names = {IMAGE_NAME: image.name, REF_NAME: (reference.tag if reference else None) or image.name}
    return {**one.descriptor.as_json(), "annotations": names, "platform": platform}


def _choose(image: Image, layer: Layer, came: Mapping[str, Descriptor], reuse: Mapping[str, Descriptor]) -> Descriptor:
    there = [forms[layer.diff_id] for forms in (came, reuse) if layer.diff_id in forms]
    if not there:
        raise UnprovenError(
            f"A layer of {image.name} is missing.",
            observed=f"The layer {layer.diff_id} neither came from the source nor is at the target.",
            next="Start again: what is missing is computed anew.",
        )
    # The media type of the source's manifest is the better known one where the content is the same.
    return layer.blob if layer.blob and layer.blob.digest in {one.digest for one in there} else there[0]


def _in_oci(one: Descriptor) -> Descriptor:
    return Descriptor(_IN_OCI.get(one.media_type, one.media_type), one.digest, one.size)


def _require_config(image: Image, content: bytes) -> None:
    found = digest_of(content) if content else "none"
    if found != image.config:
        raise UnprovenError(
            f"The config of {image.name} is not the expected one.",
            observed=f"expected {image.config}, found {found}",
            next="Start again; if it stays so, the source is damaged.",
        )
    if parse_config(content, image.name).diff_ids != image.diff_ids:
        raise UnprovenError(
            f"The layers of {image.name} are not those that its config names.",
            observed=f"The config {image.config} has other diffIDs than the source told.",
            next="Start again; if it stays so, the source is damaged.",
        )
