"""Where a reference's registry is on the network (pure)."""

from dataclasses import dataclass

from tasks.domain.reference import DOCKER_HUB, ImageReference

# Docker Hub's images are called docker.io/...; the host that answers for them has another name (moby, registry/config.go).
DOCKER_HUB_HOST = "registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository: the host with its port, as an image's name has it (docker.io for Docker Hub), and the path."""

    registry: str
    path: str

    @classmethod
    def parse(cls, text: str) -> "Repository":
        """What `str` made."""
        registry, _, path = text.partition("/")
        return cls(registry, path)

    @property
    def host(self) -> str:
        """Whom to connect to."""
        return DOCKER_HUB_HOST if self.registry == DOCKER_HUB else self.registry

    @property
    def pull(self) -> str:
        """The scope of a token that may read (distribution, "Token Scope Documentation")."""
        return f"repository:{self.path}:pull"

    @property
    def push(self) -> str:
        return f"repository:{self.path}:pull,push"

    def __str__(self) -> str:
        return f"{self.registry}/{self.path}"


def repository_of(reference: ImageReference) -> Repository:
    """The repository of a reference, Docker Hub's names made whole (`library/`)."""
    whole = ImageReference.parse(reference.normal)
    return Repository(whole.registry, whole.path)


def label_of(reference: ImageReference) -> str:
    """What the registry is asked for: the digest where the reference has one, else the tag (`latest` without one)."""
    return reference.digest or reference.tag or "latest"
