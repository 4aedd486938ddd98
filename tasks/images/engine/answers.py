"""Reads what a Docker engine says of itself and of its images (Engine API, /info and /images/NAME/json); pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tasks.domain.reference import ImageReference
from tasks.images.model import Image, JsonObject, Platform, is_digest
from tasks.images.saved.v1_id import chain_ids

CONTAINERD_STORE = "io.containerd.snapshotter.v1"


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """An engine: version, folder of its data, platform.

    `keeps_blobs`: it keeps its images in containerd's store (Docker 23 and later, where it is switched on; the default
    of 29): then an image's Id is a manifest's digest, not the config's.
    """

    version: str
    root: str
    platform: Platform
    keeps_blobs: bool


@dataclass(frozen=True, slots=True)
class Known:
    """An image that an engine has: its Id, full names, diffIDs, platform, and size in bytes unpacked."""

    id: str
    names: frozenset[str]
    diff_ids: tuple[str, ...]
    platform: Platform
    size: int


def engine_facts(info: JsonObject) -> EngineFacts:
    """What /info tells; what it leaves out is empty."""
    word = str(info.get("Architecture") or "")
    processor = Platform.of_machine(word) or Platform("linux", word)
    status = info.get("DriverStatus") or []
    return EngineFacts(
        version=str(info.get("ServerVersion") or ""),
        root=str(info.get("DockerRootDir") or ""),
        platform=replace(processor, os=str(info.get("OSType") or "linux")),
        keeps_blobs=any(isinstance(pair, list) and CONTAINERD_STORE in pair for pair in status),
    )


def known_image(answer: JsonObject) -> Known:
    """What the inspection of an image tells."""
    layers = (answer.get("RootFS") or {}).get("Layers") or []
    id = str(answer.get("Id") or "")  # noqa: A001 -- it is called so.
    return Known(
        id=id if ":" in id else f"sha256:{id}",  # podman leaves the algorithm out
        names=frozenset(_names([*(answer.get("RepoTags") or ()), *(answer.get("RepoDigests") or ())])),
        diff_ids=tuple(layer for layer in layers if is_digest(layer)),
        platform=Platform(
            str(answer.get("Os") or "linux"), str(answer.get("Architecture") or ""), str(answer.get("Variant") or "")
        ),
        size=int(answer.get("Size") or 0),
    )


def asked_name(reference: ImageReference) -> str:
    """The full name under which an engine knows the reference: a digest before a tag, `latest` where it has neither."""
    full = ImageReference.parse(reference.normal)
    if full.digest:
        return f"{full.name}@{full.digest}"
    return f"{full.name}:{full.tag or 'latest'}"


def sizes(history: Sequence[JsonObject], layers: int, total: int) -> tuple[int, ...]:
    """About how many bytes each of `layers` layers has, from an image's history (newest first) and size in all.

    The history does not say which of its steps made a layer; where as many have a size as there are layers, those did.
    """
    made = [int(step.get("Size") or 0) for step in reversed(history) if step.get("Size")]
    return tuple(made) if len(made) == layers else (total // max(layers, 1),) * layers


def usable_layers(lacking: Iterable[Image], held: Iterable[Known]) -> frozenset[str]:
    """The diffIDs that need not be sent to an engine for `lacking`, because it takes the layers from what it has.

    An engine finds a layer by its chain ID, the layer with all below it (moby: image/tarexport/load.go): the same
    layer above another one is of no use.  So a diffID counts only where its chain is held wherever it stands.
    """
    chains = frozenset(chain for image in held for chain in chain_ids(image.diff_ids))
    standing: dict[str, bool] = {}
    for image in lacking:
        for diff_id, chain in zip(image.diff_ids, chain_ids(image.diff_ids), strict=True):
            standing[diff_id] = standing.get(diff_id, True) and chain in chains
    return frozenset(diff_id for diff_id, usable in standing.items() if usable)


def by_name(names: Iterable[str], held: Sequence[Known]) -> Mapping[str, Known]:
    """The image behind each full name or Id that an engine knows."""
    return {name: image for name in names for image in held if name in image.names or name == image.id}


def _names(texts: Iterable[object]) -> Iterable[str]:
    for text in texts:
        reference = ImageReference.find(text) if isinstance(text, str) else None
        if reference is not None:
            yield reference.normal
