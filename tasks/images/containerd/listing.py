"""What containerd's `ctr` prints, as values (pure).

Sources: `cmd/ctr/commands/{content,images,plugins,version}` of containerd 1.4 to 2.1.  Columns are aligned by blanks or
tabs; sizes are rounded for people, so exact ones come from the files (`stat`) and from manifests.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.images.model import Platform, digest_of, is_digest
from tasks.images.remote.room import parse_free

UNCOMPRESSED = "containerd.io/uncompressed"
PINNED = "io.cri-containerd.pinned"
_SIZE = re.compile(r"([0-9]+) .*/([0-9a-f]{64})")
_VERSION = re.compile(r"Version:[ \t]*(\S+)")
_MINOR = re.compile(r"v?(\d+)\.(\d+)")
_ROUNDED = re.compile(r"([0-9.]+) ([KMGT]i)?B")


@dataclass(frozen=True, slots=True)
class Named:
    """An entry of containerd's image store: what the name points at (a manifest or an index), and its labels.

    `size` is in bytes, rounded as ctr prints it; 0 where it could not be told.
    """

    digest: str
    media_type: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    size: int = 0


@dataclass(frozen=True, slots=True)
class Looked:
    """A containerd namespace as it answered.

    `content` are the labels of each committed blob by digest (what is still being written is not in it); `sizes` the
    bytes of those whose files could be read; `documents` the small blobs that are no layers, each held to its digest.
    `unpacks`: whether the snapshotter that ctr takes by itself works there.  `server` is the version as text.
    """

    server: str
    platform: Platform | None
    free: int | None
    unpacks: bool
    names: Mapping[str, Named]
    content: Mapping[str, Mapping[str, str]]
    sizes: Mapping[str, int]
    documents: Mapping[str, bytes]

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor of the server; (0, 0) where it tells none that can be read."""
        found = _MINOR.match(self.server)
        return (int(found[1]), int(found[2])) if found else (0, 0)

    @property
    def pins(self) -> bool:
        """Whether the CRI plugin knows pinned images (containerd 1.7, internal/cri/labels)."""
        return self.version >= (1, 7)


def parse_look(output: bytes) -> Looked:
    """What the script LOOK printed; raise `ValueError` where it is not whole."""
    head, found, rest = output.partition(b"@@ documents\n")
    if not found:
        raise ValueError("the answer ends before its last section")
    sections = _sections(head.decode(errors="replace"))
    sizes = _sizes(sections.get("sizes", ""))
    content = parse_content(sections.get("content", ""))
    listed, marked, contents = rest.partition(b"@@\n")
    if not marked:
        raise ValueError("the list of the documents is not whole")
    return Looked(
        server=parse_server(sections.get("version", "")),
        platform=parse_machine(sections.get("machine", "")),
        free=parse_free(sections.get("room", "")),
        unpacks=_unpacks(sections.get("plugins", "")),
        names=parse_images(sections.get("images", "")),
        content=content,
        sizes={digest: size for digest, size in sizes.items() if digest in content},
        documents=_documents([f"sha256:{line}" for line in listed.decode().split()], sizes, contents),
    )


def parse_server(text: str) -> str:
    """The server's version as `ctr version` tells it ("1.6.20~ds1", "v1.7.27-k3s1"), "" where it does not."""
    found = _VERSION.search(text.partition("Server:")[2])
    return found[1] if found else ""


def parse_machine(text: str) -> Platform | None:
    """The platform that `uname -s -m` tells."""
    words = text.split()
    return Platform.of_machine(words[1]) if len(words) == 2 and words[0] == "Linux" else None


def parse_images(text: str) -> dict[str, Named]:
    """`ctr images ls`: name, media type and digest come first and without blanks, the labels last."""
    names = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 4 and is_digest(words[2]):
            names[words[0]] = Named(words[2], words[1], _labels(words[-1]), _rounded(" ".join(words[3:5])))
    return names


def parse_containers(text: str) -> tuple[str, ...]:
    """`ctr containers ls`: what each container was made from, as it was named; "-" where nothing was."""
    rows = [line.split() for line in text.splitlines()]
    return tuple(words[1] for words in rows if len(words) > 1 and words[:2] != ["CONTAINER", "IMAGE"])


def _rounded(text: str) -> int:
    found = _ROUNDED.match(text)
    return int(float(found[1]) * 1024 ** ("", "Ki", "Mi", "Gi", "Ti").index(found[2] or "")) if found else 0


def parse_content(text: str) -> dict[str, Mapping[str, str]]:
    """`ctr content ls`: the labels of each blob by digest."""
    rows = {}
    for line in text.splitlines():
        words = line.split()
        if words and is_digest(words[0]):
            rows[words[0]] = _labels(words[-1])
    return rows


def _labels(text: str) -> Mapping[str, str]:
    # A label's value may hold commas itself: a piece without "=" goes on the one before, and is nothing this reads.
    return dict(piece.split("=", 1) for piece in text.split(",") if "=" in piece)


def _sections(text: str) -> dict[str, str]:
    """The text below each line `@@ name`."""
    sections: dict[str, str] = {}
    for part in f"\n{text}".split("\n@@ ")[1:]:
        name, _, body = part.partition("\n")
        sections[name.strip()] = body
    return sections


def _sizes(text: str) -> dict[str, int]:
    found = (_SIZE.fullmatch(line.strip()) for line in text.splitlines())
    return {f"sha256:{each[2]}": int(each[1]) for each in found if each}


def _documents(digests: list[str], sizes: Mapping[str, int], contents: bytes) -> dict[str, bytes]:
    """The documents one after the other; raise `ValueError` where one is not what its digest says."""
    documents, at = {}, 0
    for digest in digests:
        if digest not in sizes:
            continue
        content = contents[at : at + sizes[digest]]
        at += sizes[digest]
        if digest_of(content) != digest:
            raise ValueError(f"{digest} changed while it was read")
        documents[digest] = content
    return documents


def _unpacks(plugins: str) -> bool:
    """Whether overlayfs, ctr's own choice, is a snapshotter that works (`ctr plugins ls -d`: an error, or none)."""
    blocks = [block.split() for block in plugins.split("Type:")[1:]]
    return any(
        "io.containerd.snapshotter.v1" in block and "overlayfs" in block and "Error:" not in block for block in blocks
    )
