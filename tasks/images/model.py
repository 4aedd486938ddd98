"""What an image is, and what a source and a target of images can do.

An image is the same image when its config digest is the same, and with it its diffIDs (OCI image-spec, config.md:
the digests of the layers' uncompressed archives).  Manifest and layer digests are no identity: `docker save` writes
uncompressed layers under a manifest of its own, a registry holds compressed ones.

Digests are texts "sha256:<64 hex>", sizes are bytes, names are full names (`ImageReference.normal`), Kubernetes' and
the OCI's objects are plain JSON.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from tasks.domain.errors import UsageError
from tasks.domain.reference import ImageReference
from tasks.images.media import DOCKER_CONFIG, DOCKER_MANIFEST, OCI_MANIFEST

JsonObject = dict[str, Any]

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")


def digest_of(content: bytes) -> str:
    """The digest of `content`, "sha256:<64 hex>"."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def is_digest(text: object) -> bool:
    """Whether `text` is a digest as this package knows them: SHA-256 in lower case (OCI image-spec, descriptor.md)."""
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None


_MACHINES = {
    "x86_64": ("amd64", ""),
    "amd64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "arm64": ("arm64", ""),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "i386": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
}


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on, in Go's words: linux, amd64, and for arm the variant."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> "Platform":
        """`linux/amd64`, `linux/arm64/v8`; raise `UsageError` for anything else."""
        parts = text.strip().lower().split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise UsageError(
                f"{text!r} is not a platform.",
                observed="It is not of the form OS/ARCHITECTURE.",
                next="Write it as linux/amd64 or linux/arm64/v8.",
            )
        return cls(*parts)

    @classmethod
    def of_machine(cls, word: str) -> "Platform | None":
        """The Linux platform that the kernel calls so (`uname -m`), None for a word that is not known.

        Go's words for them: https://go.dev/doc/install/source#environment.
        """
        known = _MACHINES.get(word)
        return cls("linux", *known) if known else None

    def matches(self, other: "Platform") -> bool:
        """Whether an image for one of them runs on the other; a variant counts only where both tell one."""
        same = (self.os, self.architecture) == (other.os, other.architecture)
        return same and (self.variant == other.variant or not (self.variant and other.variant))

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


DEFAULT_PLATFORM = Platform("linux", "amd64")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A piece of content: its media type, digest, and size in bytes (OCI image-spec, descriptor.md)."""

    media_type: str
    digest: str
    size: int

    def as_json(self) -> JsonObject:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer: `diff_id` is its identity, `blob` its form at the source.

    `blob` is None where the source can tell it only while reading (a Docker engine); `estimate` is then about how many
    bytes the uncompressed layer has, 0 where the source cannot tell even that.
    """

    diff_id: str
    blob: Descriptor | None = None
    estimate: int = 0


@dataclass(frozen=True, slots=True)
class Image:
    """An image that a source has, under the name that it will have at the target.

    `origin` is the reference at the source, as text; `config` the config's digest; `layers` in the manifest's order,
    the same layer twice where the image has it twice.  `manifest` and `config_content` are the bytes as the source
    keeps them, b"" where it has none before reading; `manifest_digest` is what the source answers for the reference
    ("" where it has none), which is an index's digest where the reference means several platforms.
    """

    name: str
    origin: str
    platform: Platform
    config: str
    layers: tuple[Layer, ...]
    manifest: bytes = b""
    config_content: bytes = b""
    manifest_digest: str = ""

    def named(self, name: str) -> "Image":
        """The same image under another full name."""
        return replace(self, name=name)

    @property
    def diff_ids(self) -> tuple[str, ...]:
        return tuple(layer.diff_id for layer in self.layers)

    @property
    def manifest_descriptor(self) -> Descriptor | None:
        """The descriptor of `manifest`, None where the source has none before reading."""
        if not self.manifest:
            return None
        told = json.loads(self.manifest)
        of_docker = told["config"]["mediaType"] == DOCKER_CONFIG
        media_type = told.get("mediaType") or (DOCKER_MANIFEST if of_docker else OCI_MANIFEST)
        return Descriptor(media_type, digest_of(self.manifest), len(self.manifest))


@dataclass(slots=True)
class Blob:
    """A config or a layer on its way: its chunks must be consumed before the source is asked for the next one.

    `diff_id` is "" for a config.  `digest` and `size` are what the source says; delivery holds the bytes to them.
    """

    kind: Literal["config", "layer"]
    diff_id: str
    digest: str
    size: int
    media_type: str
    chunks: Iterator[bytes]

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.media_type, self.digest, self.size)


@dataclass(frozen=True, slots=True)
class HeldBlob:
    """A piece of content that a target holds.

    `diff_id` is that of a compressed layer, as the runtime noted it (containerd's label `containerd.io/uncompressed`);
    `repository` is where in a registry it can be mounted from.
    """

    digest: str
    size: int
    media_type: str = ""
    diff_id: str = ""
    repository: str = ""


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a target holds: `blobs` by digest, and `names` (full name to config digest) of images that are complete there.

    `free` is the room in bytes where it keeps images, None where nobody can tell; `whole_layers` says that it needs
    all layers of an image that it lacks (a Docker engine, which keeps no blobs).
    """

    blobs: Mapping[str, HeldBlob] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    free: int | None = None
    platform: Platform | None = None
    whole_layers: bool = False


@dataclass(frozen=True, slots=True)
class Need:
    """What a target lacks of some images.

    `complete` are the names that it holds already; `layers` the diffIDs and `configs` the config digests to send;
    `reuse` the form in which it holds each other layer; `size` the bytes to send, None where a size is not known yet; `room` the
    bytes that the target needs for it, unpacked form included, as far as that is known.
    """

    complete: frozenset[str]
    layers: frozenset[str]
    configs: frozenset[str]
    reuse: Mapping[str, Descriptor]
    size: int | None
    room: int = 0


@dataclass(frozen=True, slots=True)
class Proof:
    """What a target's own runtime answered for an image; `pinned`: its garbage collection leaves the image alone."""

    where: str
    name: str
    config: str
    manifest_digest: str
    pinned: bool


class Source(Protocol):
    """Where images come from: a registry, a Docker engine, a containerd, a bundle."""

    @property
    def where(self) -> str:
        """For people: `Docker engine at /run/docker.sock`."""
        ...

    def find(self, references: Sequence[ImageReference], platform: Platform | None) -> tuple[Image, ...]:
        """The images in the order asked, each named `reference.normal`.

        Without a platform: the only one that the source has, else linux/amd64.  Raise `NotFoundError` (which tag or
        repository, and what is there where that is cheap to know), `UnauthorizedError`, `ForbiddenError`,
        `TemporaryError`, `UnprovenError` (a digest is wrong) or `BlockedError` (the platform is lacking).
        """
        ...

    def read(self, images: Sequence[Image], wanted: frozenset[str]) -> Iterator[Blob]:
        """A generator of each config of `images` once and each layer of `wanted` (diffIDs) once, in any order.

        Closing it ends what it started.  Digests are not checked here: delivery checks them.
        """
        ...


class Inlet(Protocol):
    """An open delivery into a target.  Left without `finish` it leaves nothing that counts."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None: ...

    def take(self, blob: Blob) -> None:
        """Consume all of `blob.chunks`; an exception from them goes through."""
        ...

    def finish(self) -> None:
        """Return when the target has all of it imported under the images' names."""
        ...


class Target(Protocol):
    """Where images go: a node with containerd or Docker, a registry."""

    @property
    def where(self) -> str:
        """For people: `node-a (containerd)`."""
        ...

    def look(self, images: Sequence[Image]) -> Holdings:
        """What the target holds that matters for `images`."""
        ...

    def inlet(self, images: Sequence[Image], need: Need, holdings: Holdings) -> Inlet:
        """Open a delivery of what `need` says; nothing is sent before the first `take`."""
        ...

    def keep(self, images: Sequence[Image]) -> None:
        """Pin the images against garbage collection where the runtime knows pinning."""
        ...

    def prove(self, images: Sequence[Image]) -> tuple[Proof, ...]:
        """Ask the runtime anew; raise `UnprovenError` that names the image, the expected config digest and the found one."""
        ...
