"""Reads manifests, indexes and configs of the OCI and of Docker's schema 2, and holds them to what they promise.

OCI image-spec (manifest.md, image-index.md, config.md) and distribution's "Image Manifest Version 2, Schema 2".
Refused, because nobody could run or carry them: schema 1, layers that must not be distributed, encrypted layers,
and what is no container image (a Helm chart, an attestation).
"""

import json
from dataclasses import dataclass
from typing import Any

from tasks.domain.errors import BlockedError, UnprovenError
from tasks.images.media import (
    CONFIGS,
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    INDEXES,
    LAYERS,
    MANIFESTS,
    OCI_MANIFEST,
)
from tasks.images.model import DEFAULT_PLATFORM, Descriptor, Image, JsonObject, Layer, Platform, digest_of, is_digest

# Registries must take manifests up to this size (distribution-spec, "Pushing Manifests"); nobody writes larger ones.
LARGEST_MANIFEST = 4 * 1024 * 1024
LARGEST_LAYER_COUNT = 1000


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest: its own media type, the config's descriptor and the layers' in order."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """What a config says of its image: the platform and the diffIDs of the layers in order."""

    platform: Platform
    diff_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A manifest of an index; `platform` is None where the index does not tell it; `annotations` as written."""

    descriptor: Descriptor
    platform: Platform | None
    annotations: dict[str, str]


def is_index(content: bytes, media_type: str = "") -> bool:
    """Whether `content` is an index (several platforms) and not a manifest; `media_type` is what the server said.

    The content decides where it says so itself: an OCI document need not carry its media type, and a server may err.
    """
    document = _object(content, "manifest")
    said = document.get("mediaType") or media_type
    if said in INDEXES or said in MANIFESTS:
        return said in INDEXES
    return "manifests" in document and "layers" not in document


def parse_manifest(content: bytes, name: str = "the image") -> Manifest:
    """Raise `UnprovenError` where `content` is no valid manifest, `BlockedError` where it is of a kind nobody can carry."""
    document = _object(content, f"manifest of {name}")
    if document.get("schemaVersion") == 1:
        raise _refused(name, "its manifest is of schema 1, which no current runtime takes")
    said = document.get("mediaType", "")
    if document.get("schemaVersion") != 2 or (said and said not in MANIFESTS):
        raise _bad(f"manifest of {name}", f"schemaVersion {document.get('schemaVersion')!r}, mediaType {said!r}")
    listed = document.get("layers")
    if not isinstance(listed, list) or len(listed) > LARGEST_LAYER_COUNT:
        raise _bad(f"manifest of {name}", "it has no list of layers")
    config = _descriptor(document.get("config"), f"manifest of {name}")
    if config.media_type not in CONFIGS:
        raise _refused(name, f"it is no container image: its config is {config.media_type!r}")
    layers = tuple(_descriptor(each, f"manifest of {name}") for each in listed)
    for layer in layers:
        _carried(layer, name)
    kind = said or (DOCKER_MANIFEST if config.media_type == DOCKER_CONFIG else OCI_MANIFEST)
    return Manifest(kind, config, layers)


def parse_config(content: bytes, name: str = "the image") -> Config:
    """Raise `UnprovenError` where `content` is no valid config of an image with layers (OCI image-spec, config.md)."""
    document = _object(content, f"config of {name}")
    root = document.get("rootfs")
    diff_ids = root.get("diff_ids") if isinstance(root, dict) else None
    if not isinstance(diff_ids, list) or not all(is_digest(each) for each in diff_ids):
        raise _bad(f"config of {name}", "it does not list its layers' digests (rootfs.diff_ids)")
    parts = [document.get(key) or "" for key in ("os", "architecture", "variant")]
    if not all(isinstance(part, str) for part in parts) or not parts[0] or not parts[1]:
        raise _bad(f"config of {name}", "it does not say which platform it is for")
    return Config(Platform(*parts), tuple(diff_ids))


def parse_index(content: bytes, name: str = "the image") -> tuple[IndexEntry, ...]:
    """The entries of an index or of Docker's manifest list, in order; raise `UnprovenError` where it is not valid."""
    document = _object(content, f"index of {name}")
    listed = document.get("manifests")
    said = document.get("mediaType", "")
    if document.get("schemaVersion") != 2 or not isinstance(listed, list) or (said and said not in INDEXES):
        raise _bad(f"index of {name}", f"schemaVersion {document.get('schemaVersion')!r}, mediaType {said!r}")
    return tuple(_entry(each, name) for each in listed)


def choose_platform(content: bytes, platform: Platform | None, name: str = "the image") -> Descriptor:
    """The manifest of an index for `platform`; without one the only platform, else linux/amd64.

    The first entry that matches counts (OCI image-spec, image-index.md).  Attestations, which builders list under the
    platform unknown/unknown, are passed over.  Raise `BlockedError` that tells the platforms which are there.
    """
    entries = [each for each in parse_index(content, name) if _runnable(each)]
    if platform is None and len(entries) == 1:
        return entries[0].descriptor
    wanted = platform or DEFAULT_PLATFORM
    for entry in entries:
        if entry.platform is not None and wanted.matches(entry.platform):
            return entry.descriptor
    raise platform_lacking(name, wanted, sorted(str(each.platform) for each in entries if each.platform))


def platform_lacking(name: str, wanted: Platform, there: list[str]) -> BlockedError:
    """The error of an image that does not exist for the wanted platform."""
    return BlockedError(
        f"{name} does not exist for {wanted}.",
        observed=f"It exists for {', '.join(there)}." if there else "Its index lists no platform.",
        next="Choose a platform that the image has and the nodes run, or another version.",
    )


def image_of(
    name: str,
    origin: str,
    manifest: bytes,
    config: bytes,
    *,
    manifest_digest: str = "",
    platform: Platform | None = None,
) -> Image:
    """The image of a manifest and a config, each held to the other.

    `manifest_digest` is what the source answers for the reference, by default the manifest's own; `platform`, where
    given, must be the config's.  Raise `UnprovenError` (config or count of layers differ) or `BlockedError`.
    """
    told, known = parse_manifest(manifest, origin), parse_config(config, origin)
    if digest_of(config) != told.config.digest:
        raise UnprovenError(
            f"The config of {origin} is not the one that its manifest names.",
            observed=f"expected {told.config.digest}, found {digest_of(config)}",
            next="Ask again; if it stays so, the source is damaged: pull or push the image there anew.",
        )
    if len(known.diff_ids) != len(told.layers):
        raise _bad(f"manifest of {origin}", f"{len(told.layers)} layers, its config has {len(known.diff_ids)}")
    if platform is not None and not platform.matches(known.platform):
        raise platform_lacking(origin, platform, [str(known.platform)])
    layers = tuple(Layer(diff_id, blob) for diff_id, blob in zip(known.diff_ids, told.layers, strict=True))
    return Image(
        name=name,
        origin=origin,
        platform=known.platform,
        config=told.config.digest,
        layers=layers,
        manifest=manifest,
        config_content=config,
        manifest_digest=manifest_digest or digest_of(manifest),
    )


def _runnable(entry: IndexEntry) -> bool:
    of_image = entry.descriptor.media_type in MANIFESTS
    return of_image and (entry.platform is None or entry.platform.os != "unknown")


def _entry(value: object, name: str) -> IndexEntry:
    descriptor = _descriptor(value, f"index of {name}")
    assert isinstance(value, dict)  # noqa: S101 -- _descriptor has seen to it.
    told, notes = value.get("platform"), value.get("annotations")
    platform = None
    if isinstance(told, dict):
        platform = Platform(*(str(told.get(key) or "") for key in ("os", "architecture", "variant")))
    annotations = {str(key): str(text) for key, text in notes.items()} if isinstance(notes, dict) else {}
    return IndexEntry(descriptor, platform, annotations)


def _descriptor(value: object, where: str) -> Descriptor:
    if not isinstance(value, dict):
        raise _bad(where, "a descriptor is missing")
    media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
    if not isinstance(media_type, str) or not is_digest(digest):
        raise _bad(where, f"a descriptor without media type or SHA-256 digest: {media_type!r}, {digest!r}")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise _bad(where, f"{digest} has the size {size!r}")
    return Descriptor(media_type, str(digest), size)


def _carried(layer: Descriptor, name: str) -> None:
    if layer.media_type in LAYERS:
        return
    if "nondistributable" in layer.media_type or ".foreign." in layer.media_type:
        raise _refused(name, f"its layer {layer.digest} may not be distributed ({layer.media_type}): it lies elsewhere")
    if "encrypted" in layer.media_type:
        raise _refused(name, f"its layer {layer.digest} is encrypted ({layer.media_type})")
    raise _refused(name, f"its layer {layer.digest} is of the unknown kind {layer.media_type!r}")


def _object(content: bytes, where: str) -> JsonObject:
    if len(content) > LARGEST_MANIFEST:
        raise _bad(where, f"{len(content)} bytes are too many")
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _bad(where, f"it is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise _bad(where, "it is no JSON object")
    return document


def _bad(where: str, why: str) -> UnprovenError:
    return UnprovenError(
        f"The {where} is not valid.",
        observed=why,
        next="Ask again; if it stays so, the source is damaged: pull or push the image there anew.",
    )


def _refused(name: str, why: str) -> BlockedError:
    return BlockedError(
        f"{name} cannot be transferred.", observed=f"{why}.", next="Have the image built or pushed as an OCI image."
    )
