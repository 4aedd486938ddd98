"""What an archive of images holds, from its members: a bundle, another tool's OCI layout, or a `docker save`."""

import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from tasks.domain.errors import UsageError
from tasks.domain.reference import ImageReference
from tasks.images.bundle.body import damaged
from tasks.images.bundle.form import BLOBS, FOR_DOCKER, FORMAT, GZIP, MARK, RECORD
from tasks.images.bundle.record import BundleRecord
from tasks.images.bundle.scan import Member
from tasks.images.layout import IMAGE_NAME, INDEX_NAME, LAYOUT_NAME, OCI_LAYOUT, REF_NAME
from tasks.images.manifest import image_of, is_index, parse_config, parse_index
from tasks.images.media import DOCKER_LAYER, DOCKER_LAYER_GZIP, DOCKER_LAYER_ZSTD, MANIFESTS
from tasks.images.model import Descriptor, Image, Layer, digest_of

Members = Mapping[str, Member]

_NO_SEAL: Final = (
    "It is the archive of another tool and has no seal: that its names are those that were written is not proved."
)


@dataclass(frozen=True, slots=True)
class Contents:
    """The images of an archive, and the members that hold their configs and layers, by the digest of their bytes.

    `unproven` are sentences for people.  An image may be there twice under one name, for two platforms.
    """

    kind: Literal["bundle", "oci-layout", "docker-save"]
    images: tuple[Image, ...]
    blobs: Mapping[str, Member]
    record: BundleRecord | None = None
    unproven: tuple[str, ...] = ()


def own_contents(members: Members) -> Contents:
    """What a bundle of this project holds; raise `DamagedArchiveError` where it is not what its record says."""
    names = [name for name in members if not name.startswith(BLOBS)]
    if names not in (
        [MARK, LAYOUT_NAME, INDEX_NAME, RECORD],
        [MARK, LAYOUT_NAME, INDEX_NAME, FOR_DOCKER, RECORD],
    ) or list(members)[-1:] != [RECORD]:
        raise damaged("its members are not those of a bundle")
    if members[MARK].digest != digest_of(f"{FORMAT}\n".encode()) or _content(members, LAYOUT_NAME) != OCI_LAYOUT:
        raise damaged("it is of a format that this version does not know")
    record = BundleRecord.parse(_content(members, RECORD))
    blobs = _blobs(members)
    if {blob.digest: blob.size for blob in record.blobs} != {digest: each.size for digest, each in blobs.items()}:
        raise damaged("its blobs are not those that its record lists")
    images = tuple(_layout_images(members, blobs))
    if [(image.name, image.config, image.manifest_digest) for image in images] != [
        (image.name, image.config, image.manifest) for image in record.images
    ]:
        raise damaged("its index is not what its record says")
    _require_layers(images, blobs, frozenset(blob.digest for blob in record.left_out))
    return Contents("bundle", images, blobs, record)


def foreign_contents(members: Members) -> Contents:
    """What another tool's archive holds; raise `DamagedArchiveError`, or `UsageError` where it holds no images."""
    if any(name.startswith(MARK) for name in members):
        raise damaged("it is a bundle whose seal is missing or broken")
    if LAYOUT_NAME in members and INDEX_NAME in members:
        blobs = _blobs(members)
        images = tuple(_layout_images(members, blobs))
        _require_layers(images, blobs)
        return _foreign("oci-layout", images, blobs)
    if FOR_DOCKER in members:
        saved = tuple(_saved_images(members))
        held = {each.digest: each for each in members.values() if not each.link}
        return _foreign("docker-save", saved, held)
    raise UsageError(
        "The file holds no images.",
        observed="It is a tar archive without index.json (an OCI layout) and without manifest.json (`docker save`).",
        next="Make a bundle with `apinizer-upgrade images bundle`.",
    )


def _foreign(
    kind: Literal["oci-layout", "docker-save"], images: Sequence[Image], blobs: Mapping[str, Member]
) -> Contents:
    if not images:
        raise UsageError(
            "The file holds no image with a full name.",
            observed="Its index names its images by tag only, or not at all.",
            next="Write it with full names, e.g. docker.io/apinizercloud/worker:2025.07.0.",
        )
    return Contents(kind, tuple(images), blobs, None, (_NO_SEAL,))


def _blobs(members: Members) -> dict[str, Member]:
    """The blobs of an OCI layout by digest, each held to its name."""
    found: dict[str, Member] = {}
    for name, each in members.items():
        if name.startswith(BLOBS) and not each.link:
            if name.removeprefix(BLOBS) != each.digest.removeprefix("sha256:"):
                raise damaged(f"the bytes of {name} are not those of its name")
            found[each.digest] = each
    return found


def _layout_images(members: Members, blobs: Mapping[str, Member]) -> Iterator[Image]:
    for entry in parse_index(_content(members, INDEX_NAME), "the archive"):
        if name := _full_name(entry.annotations):
            yield from _images_of(name, entry.descriptor, blobs)


def _images_of(name: str, there: Descriptor, blobs: Mapping[str, Member], depth: int = 0) -> Iterator[Image]:
    """The images of a manifest, or of an index whose manifests are there (a tool may have taken one platform only)."""
    content = _bytes_of(there.digest, blobs, name)
    if is_index(content, there.media_type):
        entries = [each for each in parse_index(content, name) if depth < 2]
        for entry in entries:
            of_image = entry.platform is None or entry.platform.os != "unknown"
            if entry.descriptor.digest in blobs and of_image:
                yield from _images_of(name, entry.descriptor, blobs, depth + 1)
    elif there.media_type in MANIFESTS or depth == 0:
        config = json.loads(content)["config"]["digest"] if _names_config(content) else ""
        yield image_of(name, name, content, _bytes_of(config, blobs, name))


def _names_config(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content)["config"]["digest"], str)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _full_name(annotations: Mapping[str, str]) -> str:
    for text in (annotations.get(IMAGE_NAME, ""), annotations.get(REF_NAME, "")):
        reference = ImageReference.find(text) if "/" in text else None
        if reference and (reference.tag or reference.digest):
            return reference.normal
    return ""


def _require_layers(
    images: Sequence[Image], blobs: Mapping[str, Member], left_out: frozenset[str] = frozenset()
) -> None:
    """Each layer is there, and is or unpacks to the one that the image's config names."""
    for image in images:
        for layer in image.layers:
            digest = layer.blob.digest if layer.blob else ""
            if digest in left_out:
                continue
            if digest not in blobs:
                raise damaged(f"the layer {layer.diff_id} of {image.name} is not in it")
            if layer.diff_id not in (digest, blobs[digest].unpacked):
                raise damaged(_another_layer(digest, layer.diff_id, blobs[digest], image.name))


def _another_layer(what: str, diff_id: str, member: Member, name: str) -> str:
    found = f"; it unpacks to {member.unpacked}" if member.unpacked else ""
    return f"the layer {what} is not the one that the config of {name} names ({diff_id}){found}"


def _saved_images(members: Members) -> Iterator[Image]:
    """The images of `docker save` (moby: image/tarexport, the entries of manifest.json)."""
    for config_path, tags, paths in _entries(_content(members, FOR_DOCKER)):
        member = _resolve(members, config_path)
        told = posixpath.basename(config_path).removesuffix(".json")
        if len(told) == 64 and member.digest != f"sha256:{told}":
            raise damaged(f"the bytes of {config_path} are not those of its name")
        content = _kept(member, config_path)
        config = parse_config(content, config_path)
        if len(config.diff_ids) != len(paths):
            raise damaged(f"{config_path} has {len(config.diff_ids)} layers, the archive has {len(paths)} for it")
        layers = tuple(_saved_layer(members, p, d, config_path) for p, d in zip(paths, config.diff_ids, strict=True))
        for reference in filter(None, (ImageReference.find(tag) for tag in tags)):
            name = reference.normal
            yield Image(name, name, config.platform, member.digest, layers, config_content=content)


def _entries(content: bytes) -> list[tuple[str, list[str], list[str]]]:
    """The path of the config, the names and the paths of the layers, of each image in `manifest.json`."""
    try:
        listed: Any = json.loads(content)
        found = [(each["Config"], each.get("RepoTags") or [], each["Layers"]) for each in listed]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise damaged("its manifest.json cannot be read") from None
    for config_path, tags, paths in found:
        lists = isinstance(tags, list) and isinstance(paths, list)
        if not lists or not all(isinstance(text, str) for text in (config_path, *tags, *paths)):
            raise damaged("its manifest.json is not as `docker save` writes it")
    return found


def _saved_layer(members: Members, path: str, diff_id: str, name: str) -> Layer:
    member = _resolve(members, path)
    if member.digest == diff_id:
        return Layer(diff_id, Descriptor(DOCKER_LAYER, diff_id, member.size))
    # Tools other than Docker compress the layers of this form too.
    if member.unpacked == diff_id:
        media_type = DOCKER_LAYER_GZIP if member.head.startswith(GZIP) else DOCKER_LAYER_ZSTD
        return Layer(diff_id, Descriptor(media_type, member.digest, member.size))
    raise damaged(_another_layer(path, diff_id, member, name))


def _resolve(members: Members, path: str) -> Member:
    """The file at a path, through the links of old `docker save`s."""
    member = members.get(posixpath.normpath(path))
    for _ in range(8):
        if member is None or not member.link:
            break
        member = members.get(member.link)
    if member is None or member.link:
        raise damaged(f"{path} is not in it")
    return member


def _content(members: Members, name: str) -> bytes:
    return _kept(_resolve(members, name), name)


def _bytes_of(digest: str, blobs: Mapping[str, Member], name: str) -> bytes:
    if digest not in blobs:
        raise damaged(f"the manifest or config {digest} of {name} is not in it")
    return _kept(blobs[digest], digest)


def _kept(member: Member, name: str) -> bytes:
    if member.content is None:
        raise damaged(f"{name} is empty, too large or no JSON")
    return member.content
