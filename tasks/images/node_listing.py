"""What a node's runtime prints about its images and containers, as values.  Pure.

What `ctr` prints is read in `containerd.listing`; Docker's `--format '{{json .}}'`, one object a line, here
(docker/cli, cli/command/formatter).
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tasks.domain.reference import ImageReference
from tasks.images.containerd.holding import Whole, image_at
from tasks.images.containerd.listing import PINNED, Looked, parse_containers
from tasks.images.model import DEFAULT_PLATFORM
from tasks.images.prune import HeldImage, ImageUse

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DECIMAL = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_DECIMAL_SIZE = re.compile(r"([0-9.]+)([kKMGT]?B)")


def containerd_images(looked: Looked) -> tuple[HeldImage, ...]:
    """The images of a containerd namespace, one for each digest that a name points at.

    Sizes are exact where the image is complete, as ctr rounds them where it is not.
    """
    names: dict[str, list[str]] = {}
    for name, named in looked.names.items():
        names.setdefault(named.digest, []).append(name)
    held = (_containerd_image(looked, digest, tuple(sorted(found))) for digest, found in names.items())
    return tuple(sorted(held, key=lambda image: image.names))


def _containerd_image(looked: Looked, digest: str, names: tuple[str, ...]) -> HeldImage:
    named = [looked.names[name] for name in names]
    found = image_at(looked, names[0], looked.platform or DEFAULT_PLATFORM)
    pinned = any(each.labels.get(PINNED) == "pinned" for each in named)
    if isinstance(found, Whole):
        size = found.manifest.config.size + sum(layer.size for layer in found.manifest.layers)
        return HeldImage(digest, names, size, pinned)
    return HeldImage(digest, names, max(each.size for each in named), pinned, complete=False)


def containerd_use(containers: str) -> ImageUse:
    """What the containers of the namespace were made from, running or not: by name, or by the digest it was named."""
    return use_of(parse_containers(containers), "a container on the node is made from it")


def docker_images(listed: str) -> tuple[HeldImage, ...]:
    """A Docker engine's images, one for each ID, from `docker images --no-trunc --digests --format '{{json .}}'`."""
    names: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    for row in _objects(listed):
        found = names.setdefault(row["ID"], [])
        repository, tag, digest = row.get("Repository"), row.get("Tag"), row.get("Digest")
        for text, given in ((f"{repository}:{tag}", tag), (f"{repository}@{digest}", digest)):
            name = _normal(text) if repository not in (None, "<none>") and given not in (None, "<none>", "") else ""
            if name and name not in found:
                found.append(name)
        sizes[row["ID"]] = max(sizes.get(row["ID"], 0), _decimal(row.get("VirtualSize") or row.get("Size") or ""))
    return tuple(HeldImage(identity, tuple(sorted(found)), sizes[identity]) for identity, found in names.items())


def docker_use(containers: str) -> ImageUse:
    """What the engine's containers were made from, from `docker ps --all --no-trunc --format '{{json .}}'`."""
    return use_of([row.get("Image") or "" for row in _objects(containers)], "a container on the node is made from it")


def use_of(images: Iterable[str], who: str) -> ImageUse:
    """The use of images as they are written: a tag names one, a digest (`name@sha256:…` or alone) means one."""
    names: dict[str, str] = {}
    digests: dict[str, str] = {}
    for text in images:
        if found := _DIGEST.search(text):
            digests[found.group()] = who
        elif name := _normal(text):
            names[name] = who
    return ImageUse(names, digests)


def _normal(text: str) -> str:
    reference = ImageReference.find(text)
    return reference.normal if reference else ""


def _objects(text: str) -> Sequence[Mapping[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def _decimal(text: str) -> int:
    found = _DECIMAL_SIZE.fullmatch(text.strip())
    return int(float(found[1]) * _DECIMAL[found[2].upper()]) if found else 0
