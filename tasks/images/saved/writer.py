"""Writes the archive that `docker load` takes, piece by piece: `<diffID>.tar` and `<config>.json`, `manifest.json` last.

moby's load (image/tarexport/load.go) unpacks the archive to a folder, reads `manifest.json`, and takes from each image's
list of layers only those whose chain ID it does not have: a file of a layer that it has need not be there.  Layers may
be compressed (archive.DecompressStream).  An archive that was cut short has no `manifest.json`, so nothing of it is
loaded.
"""

import json
from collections.abc import Sequence

from tasks.images.layout import TAR_END, padding, tar_file, tar_member
from tasks.images.model import Image

__all__ = ["TAR_END", "config_file", "familiar", "layer_head", "manifest_file", "padding"]

_HUB, _LIBRARY = "docker.io/", "library/"


def familiar(name: str) -> str:
    """A full name as Docker writes it: without `docker.io/` and `library/` (distribution's reference, FamiliarString)."""
    if not name.startswith(_HUB):
        return name
    short = name.removeprefix(_HUB)
    rest = short.removeprefix(_LIBRARY)
    return rest if "/" not in rest else short


def layer_head(diff_id: str, size: int) -> bytes:
    """The header of a layer's file; `size` bytes and `padding(size)` follow it."""
    return tar_member(_layer(diff_id), size)


def config_file(digest: str, content: bytes) -> bytes:
    """A config as it stands in the archive."""
    return tar_file(_config(digest), content)


def manifest_file(images: Sequence[Image]) -> bytes:
    """`manifest.json` of the images: an entry a config, with all names of it."""
    entries: dict[str, tuple[Image, list[str]]] = {}
    for image in images:
        entries.setdefault(image.config, (image, []))[1].append(familiar(image.name))
    document = [
        {"Config": _config(config), "RepoTags": names, "Layers": [_layer(each) for each in image.diff_ids]}
        for config, (image, names) in entries.items()
    ]
    return tar_file("manifest.json", json.dumps(document, separators=(",", ":")).encode())


def _layer(diff_id: str) -> str:
    return diff_id.removeprefix("sha256:") + ".tar"


def _config(digest: str) -> str:
    return digest.removeprefix("sha256:") + ".json"
