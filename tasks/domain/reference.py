"""Image references, parsed once: registry with port, path, tag, digest.

Grammar: the `reference` package of the distribution project (the registry is the first part when it holds
a dot, a colon or a capital, or is `localhost`; a tag is at most 128 characters; a digest is `algorithm:hex`).
"""

import re
from dataclasses import dataclass, replace

from tasks.domain.errors import UsageError

DOCKER_HUB = "docker.io"
VENDOR = "apinizercloud"

_PART = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_REGISTRY = re.compile(r"(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class ImageReference:
    """`[registry/]path[:tag][@digest]`, kept as written: no registry, tag or digest is made up.

    `registry` is "" where none was written (the runtime then means Docker Hub); `path` has at least one part.
    """

    registry: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> "ImageReference":
        """Raise `UsageError` where `text` is no image reference."""
        name, at, digest = text.partition("@")
        if at and not _DIGEST.fullmatch(digest):
            raise _bad(text, f"{digest!r} is no digest")
        head, slash, rest = name.partition("/")
        of_host = "." in head or ":" in head or head == "localhost" or head != head.lower()
        registry = head if slash and of_host else ""
        if registry and not _REGISTRY.fullmatch(registry):
            raise _bad(text, f"{registry!r} is no registry")
        remainder = rest if registry else name
        path, colon, tag = remainder.partition(":")
        if colon and not _TAG.fullmatch(tag):
            raise _bad(text, f"{tag!r} is no tag")
        if not all(_PART.fullmatch(part) for part in path.split("/")) or len(path) > 255:
            raise _bad(text, f"{path!r} is no repository path")
        return cls(registry, path, tag or None, digest or None)

    @classmethod
    def find(cls, text: str) -> "ImageReference | None":
        """The reference, or None where `text` is none (a cluster may hold anything)."""
        try:
            return cls.parse(text)
        except UsageError:
            return None

    @property
    def repository(self) -> str:
        """The last part of the path: `worker` of `nexus.local:5000/apinizercloud/worker`."""
        return self.path.rpartition("/")[2]

    @property
    def prefix(self) -> str:
        """What stands before the last part, registry included: `nexus.local:5000/apinizercloud`."""
        return "/".join(part for part in (self.registry, self.path.rpartition("/")[0]) if part)

    @property
    def name(self) -> str:
        """Registry and path, without tag and digest."""
        return f"{self.registry}/{self.path}" if self.registry else self.path

    @property
    def normal(self) -> str:
        """The full name as Docker and containerd keep it: `docker.io/library/cache:1` for `cache:1`.

        The names of Docker Hub (`index.docker.io`, none) become `docker.io`; a path of one part gets `library/`.
        """
        registry = DOCKER_HUB if self.registry in ("", "index.docker.io", "registry-1.docker.io") else self.registry
        path = f"library/{self.path}" if registry == DOCKER_HUB and "/" not in self.path else self.path
        return str(ImageReference(registry, path, self.tag, self.digest))

    def with_tag(self, repository: str, tag: str) -> "ImageReference":
        """The same registry and folder, another repository and tag; a digest does not survive that."""
        folder = self.path.rpartition("/")[0]
        return replace(self, path=f"{folder}/{repository}" if folder else repository, tag=tag, digest=None)

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def _bad(text: str, why: str) -> UsageError:
    return UsageError(
        f"{text!r} is not an image reference.",
        observed=why + ".",
        next="Write it as registry:port/path/name:tag, e.g. nexus.local:5000/apinizercloud/worker:2025.07.0.",
    )
