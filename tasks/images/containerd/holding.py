"""Which images a containerd namespace holds complete, and in which form it holds layers (pure).

An image is complete when its manifest, its config and every layer of it are committed in the content store with the
sizes that the manifest names.  What is being written, what an import left half done, and layers that were discarded
once they were unpacked (`discard_unpacked_layers`) do not count: no later image could be made from them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tasks.domain.errors import UpgradeError
from tasks.images.containerd.listing import PINNED, UNCOMPRESSED, Looked
from tasks.images.manifest import Config, Manifest, is_index, parse_config, parse_index, parse_manifest
from tasks.images.media import MANIFESTS
from tasks.images.model import DEFAULT_PLATFORM, HeldBlob, Holdings, Platform


@dataclass(frozen=True, slots=True)
class Whole:
    """A complete image: its manifest's digest and content, its config's digest and what they say."""

    manifest_digest: str
    manifest: Manifest
    config: Config
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Lacking:
    """Why a name is no complete image; `layers` are the layers that are not there, where nothing else is wrong."""

    why: str
    layers: tuple[str, ...] = ()


def holdings_of(looked: Looked) -> Holdings:
    """What is held, for `missing.need_of`: every blob whose exact size is known, and the names of complete images."""
    platform = looked.platform or DEFAULT_PLATFORM
    found = {name: image_at(looked, name, platform) for name in looked.names}
    return Holdings(
        blobs=_blobs(looked),
        names={name: one.manifest.config.digest for name, one in found.items() if isinstance(one, Whole)},
        free=looked.free,
        platform=looked.platform,
    )


def image_at(looked: Looked, name: str, platform: Platform | None) -> Whole | Lacking:
    """The image that a name means on `platform`, None for whichever is complete first."""
    named = looked.names.get(name)
    if named is None:
        return Lacking("there is no such name")
    wholes = [_whole(looked, digest, platform) for digest in manifests_at(looked, named.digest, platform)]
    best = next((one for one in wholes if isinstance(one, Whole)), None)
    if best is not None:
        return Whole(best.manifest_digest, best.manifest, best.config, named.labels.get(PINNED) == "pinned")
    if wholes:
        return wholes[0]
    return Lacking(f"{named.digest} has no manifest for {platform}" if platform else f"{named.digest} has no manifest")


def manifests_at(looked: Looked, digest: str, platform: Platform | None) -> tuple[str, ...]:
    """The manifests that a digest means: itself, or those of an index that fit the platform (in the index's order)."""
    content = looked.documents.get(digest)
    if content is None or not _is_index(content):
        return (digest,)
    try:
        entries = parse_index(content)
    except UpgradeError:
        return ()
    fitting = (
        entry.descriptor.digest
        for entry in entries
        if entry.descriptor.media_type in MANIFESTS
        and (entry.platform is None or (entry.platform.os != "unknown" and _fits(entry.platform, platform)))
    )
    return tuple(fitting)


def platforms_at(looked: Looked, digest: str) -> tuple[Platform, ...]:
    """The platforms that an index lists."""
    content = looked.documents.get(digest)
    if content is None or not _is_index(content):
        return ()
    return tuple(entry.platform for entry in parse_index(content) if entry.platform)


def _fits(one: Platform, wanted: Platform | None) -> bool:
    return wanted is None or wanted.matches(one)


def _whole(looked: Looked, digest: str, platform: Platform | None) -> Whole | Lacking:
    try:
        manifest = _manifest(looked, digest)
        config = _config(looked, manifest.config.digest)
    except KeyError as error:
        return Lacking(f"{error.args[0]} is not in its content store")
    except UpgradeError as error:
        return Lacking(error.observed or error.happened)
    if platform is not None and not platform.matches(config.platform):
        return Lacking(f"it is for {config.platform}")
    if len(config.diff_ids) != len(manifest.layers):
        return Lacking(f"its config names {len(config.diff_ids)} layers, its manifest {len(manifest.layers)}")
    absent = tuple(layer.digest for layer in manifest.layers if layer.digest not in looked.content)
    if absent:
        return Lacking("layers are not in its content store: " + ", ".join(absent), absent)
    for layer in manifest.layers:
        if looked.sizes.get(layer.digest, layer.size) != layer.size:
            return Lacking(f"{layer.digest} has {looked.sizes[layer.digest]} bytes there, not {layer.size}")
    return Whole(digest, manifest, config)


def _manifest(looked: Looked, digest: str) -> Manifest:
    if digest not in looked.content or digest not in looked.documents:
        raise KeyError(digest)
    return parse_manifest(looked.documents[digest])


def _config(looked: Looked, digest: str) -> Config:
    if digest not in looked.content or digest not in looked.documents:
        raise KeyError(digest)
    return parse_config(looked.documents[digest])


def _blobs(looked: Looked) -> dict[str, HeldBlob]:
    """Every blob with its exact size, from its file or from a manifest; the diffID from its label or from a config."""
    kinds: dict[str, str] = {}
    sizes = dict(looked.sizes)
    diff_ids: dict[str, str] = {}
    for manifest, config in _pairs(looked):
        for number, layer in enumerate(manifest.layers):
            kinds[layer.digest] = layer.media_type
            sizes.setdefault(layer.digest, layer.size)
            if config is not None and len(config.diff_ids) == len(manifest.layers):
                diff_ids[layer.digest] = config.diff_ids[number]
    return {
        digest: HeldBlob(digest, sizes[digest], kinds.get(digest, ""), labels.get(UNCOMPRESSED) or diff_ids.get(digest, ""))
        for digest, labels in looked.content.items()
        if digest in sizes
    }  # fmt: skip


def _pairs(looked: Looked) -> Iterator[tuple[Manifest, Config | None]]:
    """Every manifest in the content store, named or not, with its config where that is there."""
    for content in looked.documents.values():
        manifest = _try_manifest(content)
        if manifest is not None:
            yield manifest, _try_config(looked.documents, manifest.config.digest)


def _try_manifest(content: bytes) -> Manifest | None:
    # Most documents are configs, and parsing one as a manifest fails as it should.
    if b'"layers"' not in content:
        return None
    try:
        return parse_manifest(content)
    except UpgradeError:
        return None


def _try_config(documents: Mapping[str, bytes], digest: str) -> Config | None:
    try:
        return parse_config(documents[digest])
    except (KeyError, UpgradeError):
        return None


def _is_index(content: bytes) -> bool:
    try:
        return is_index(content)
    except UpgradeError:
        return False
