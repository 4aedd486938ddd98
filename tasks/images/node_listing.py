"""What a node's runtime prints about its images and containers, as values.  Pure.

Sources: containerd's `ctr images ls`, `ctr images check` and `ctr containers ls` (cmd/ctr/commands), which print aligned
columns and nothing else; Docker's `--format '{{json .}}'`, one object a line (docker/cli, cli/command/formatter).
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tasks.domain.reference import ImageReference
from tasks.images.prune import HeldImage, ImageUse

PINNED = "io.cri-containerd.pinned=pinned"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DECIMAL = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BINARY_SIZE = re.compile(r"([0-9.]+) ([KMGT]i)?B\b")
_DECIMAL_SIZE = re.compile(r"([0-9.]+)([kKMGT]?B)")


def containerd_images(listed: str, checked: str = "") -> tuple[HeldImage, ...]:
    """The images of a containerd namespace, one for each digest, from `images ls` and `images check`.

    Without what `check` says of a name it counts as complete.
    """
    whole = {name: " complete (" in line for name, line in _lines(checked)}
    names: dict[str, list[str]] = {}
    facts: dict[str, tuple[int, bool, bool]] = {}
    for name, line in _lines(listed):
        # The name may be a digest itself (`sha256:<config>`): the digest column is the last one.
        digests = _DIGEST.findall(line[len(name) :])
        if not digests:
            continue
        digest = digests[0]
        names.setdefault(digest, []).append(name)
        size, pinned, complete = facts.get(digest, (0, False, True))
        facts[digest] = (max(size, _binary(line)), pinned or PINNED in line, complete and whole.get(name, True))
    return tuple(
        HeldImage(digest, tuple(sorted(found)), *facts[digest])
        for digest, found in sorted(names.items(), key=lambda item: sorted(item[1]))
    )


def containerd_use(containers: str) -> ImageUse:
    """What the containers of the namespace were made from, running or not: by name, or by the digest it was named."""
    used = [line.split()[1] for _, line in _lines(containers) if len(line.split()) > 1]
    return use_of(used, "a container on the node is made from it")


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


def _lines(table: str) -> Sequence[tuple[str, str]]:
    """The first word of each line below the heading, and the line."""
    rows = [line for line in table.splitlines() if line.strip()]
    return [(row.split()[0], row) for row in rows if not row.startswith(("REF ", "CONTAINER "))]


def _objects(text: str) -> Sequence[Mapping[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def _binary(line: str) -> int:
    found = _BINARY_SIZE.search(line)
    powers = {"": 0, "Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4}
    return int(float(found[1]) * 1024 ** powers[found[2] or ""]) if found else 0


def _decimal(text: str) -> int:
    found = _DECIMAL_SIZE.fullmatch(text.strip())
    return int(float(found[1]) * _DECIMAL[found[2].upper()]) if found else 0
