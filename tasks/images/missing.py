"""What a target lacks of some images, computed over every form in which it may hold a layer; and whether it has the room."""

from collections.abc import Iterable, Mapping, Sequence

from tasks.domain.errors import BlockedError
from tasks.images.media import OCI_LAYER, OCI_LAYER_GZIP, PLAIN_LAYERS
from tasks.images.model import Descriptor, HeldBlob, Holdings, Image, Layer, Need

# A layer lies on a node twice: as the blob that came and unpacked.  A compressed layer unpacks to about three times
# its size (base systems and Java programs compress to 35 to 45 %).
TIMES_PLAIN = 2
TIMES_COMPRESSED = 4
# Directories, inodes and the runtime's own records, in percent.
SPARE_PERCENT = 10


def need_of(images: Sequence[Image], holdings: Holdings) -> Need:
    """What must be sent so that the target holds all of `images`.

    An image whose name the target holds complete, with the same config, needs nothing.  Of the others a layer counts
    as held in any of three forms: the source's own blob; a blob whose digest is the diffID (uncompressed, as
    `docker save` writes it); a compressed blob that the runtime has noted to unpack to that diffID.  Configs are a few
    kilobytes and always sent anew.  A target that needs whole layers (a Docker engine) gets every layer of an image
    that it lacks, and nothing but a name for an image that it holds under another one.
    """
    complete = frozenset(image.name for image in images if holdings.names.get(image.name) == image.config)
    lacking = [image for image in images if image.name not in complete]
    if holdings.whole_layers:
        known = frozenset(holdings.names.values())
        lacking = [image for image in lacking if image.config not in known]
        reuse: dict[str, Descriptor] = {}
    else:
        reuse = _held(lacking, holdings.blobs)
    forms = _forms(layer for image in lacking for layer in image.layers if layer.diff_id not in reuse)
    configs = {image.config: len(image.config_content) for image in lacking}
    sizes = [layer.blob.size if layer.blob else None for layer in forms.values()]
    known_sizes = [size for size in sizes if size is not None]
    return Need(
        complete=complete,
        layers=frozenset(forms),
        configs=frozenset(configs),
        reuse=reuse,
        size=sum(known_sizes) + sum(configs.values()) if len(known_sizes) == len(sizes) else None,
        room=sum(_room(layer) for layer in forms.values()),
    )


def nothing_to_do(need: Need, images: Sequence[Image]) -> bool:
    """Whether the target holds every one of `images` already under its name; where it does, no delivery is opened.

    A need without layers and configs is not that: a name may be all that is lacking.
    """
    return all(image.name in need.complete for image in images)


def require_space(need: Need, holdings: Holdings, where: str) -> None:
    """Raise `BlockedError` where the target is known to have too little room for what it needs.

    The room is that of the blobs and of their unpacked form, for a runtime keeps both (containerd: content store and
    snapshots; Docker: the archive it loads, until the layers are unpacked), and ten percent more.
    """
    wanted = need.room * (100 + SPARE_PERCENT) // 100
    if holdings.free is None or wanted <= holdings.free:
        return
    raise BlockedError(
        f"{where} has too little room for the images.",
        observed=f"{_megabytes(wanted)} are needed (the layers that it lacks, and as much as they unpack to), "
        f"{_megabytes(holdings.free)} are free.",
        next="Remove old releases there (`apinizer-upgrade images prune`) or enlarge its disk, then start again.",
    )


def _held(images: Iterable[Image], blobs: Mapping[str, HeldBlob]) -> dict[str, Descriptor]:
    """The form in which the target holds each layer of `images` that it holds; the source's own form before any other."""
    noted: dict[str, HeldBlob] = {}
    for digest in sorted(blobs):
        noted.setdefault(blobs[digest].diff_id or digest, blobs[digest])
    held: dict[str, Descriptor] = {}
    for layer in (layer for image in images for layer in image.layers):
        if layer.blob is not None and layer.blob.digest in blobs:
            held[layer.diff_id] = layer.blob
        elif layer.diff_id not in held and layer.diff_id in blobs:
            held[layer.diff_id] = _descriptor(blobs[layer.diff_id], OCI_LAYER)
        elif layer.diff_id not in held and layer.diff_id in noted:
            held[layer.diff_id] = _descriptor(noted[layer.diff_id], OCI_LAYER_GZIP)
    return held


def _descriptor(blob: HeldBlob, media_type: str) -> Descriptor:
    return Descriptor(blob.media_type or media_type, blob.digest, blob.size)


def _forms(layers: Iterable[Layer]) -> dict[str, Layer]:
    """Each diffID once, with a known form where one of its layers has one."""
    forms: dict[str, Layer] = {}
    for layer in layers:
        before = forms.setdefault(layer.diff_id, layer)
        if before.blob is None and layer.blob is not None:
            forms[layer.diff_id] = layer
    return forms


def _room(layer: Layer) -> int:
    if layer.blob is None:
        return layer.estimate * TIMES_PLAIN
    return layer.blob.size * (TIMES_PLAIN if layer.blob.media_type in PLAIN_LAYERS else TIMES_COMPRESSED)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
