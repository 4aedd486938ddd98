"""The images of one node as its own runtime tells them, and their removal: `ctr` or `docker`, here or over SSH."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tasks.domain.errors import UpgradeError
from tasks.images import node_listing as listing
from tasks.images.prune import HeldImage, ImageUse
from tasks.images.remote.ssh import Ran, Remote

SECONDS = 120.0
SOME_LEFT = "What was removed before this stays removed; nothing that is in use was."


class NodeStore(Protocol):
    """What a node holds."""

    def images(self) -> tuple[HeldImage, ...]:
        """Every image, with all of its names."""
        ...

    def used(self) -> ImageUse:
        """What the node's own containers were made from, whether Kubernetes knows them or not."""
        ...

    def remove(self, images: Sequence[HeldImage]) -> None:
        """Remove these under all of their names; what is gone already is no failure."""
        ...


@dataclass(frozen=True, slots=True)
class ContainerdStore:
    """A containerd namespace (the kubelet's is k8s.io); `address` is its socket where it is not the usual one."""

    remote: Remote
    address: str = ""
    namespace: str = "k8s.io"

    def images(self) -> tuple[HeldImage, ...]:
        return listing.containerd_images(self._ctr("images", "ls"), self._ctr("images", "check"))

    def used(self) -> ImageUse:
        return listing.containerd_use(self._ctr("containers", "ls"))

    def remove(self, images: Sequence[HeldImage]) -> None:
        names = [name for image in images for name in image.names]
        if names:
            # With --sync it returns when the content is gone, not when it might be collected.
            self._ctr("images", "rm", "--sync", *names)

    def _ctr(self, *words: str) -> str:
        address = ("--address", self.address) if self.address else ()
        return _output(self.remote, ["ctr", *address, "--namespace", self.namespace, *words])


@dataclass(frozen=True, slots=True)
class DockerStore:
    """A node's Docker engine."""

    remote: Remote

    def images(self) -> tuple[HeldImage, ...]:
        return listing.docker_images(self._docker("images", "--no-trunc", "--digests", "--format", "{{json .}}"))

    def used(self) -> ImageUse:
        return listing.docker_use(self._docker("ps", "--all", "--no-trunc", "--format", "{{json .}}"))

    def remove(self, images: Sequence[HeldImage]) -> None:
        # By its names, never by force: the engine refuses where a container was made from it.
        if names := [name for image in images for name in image.tagged]:
            self._docker("rmi", *names)

    def _docker(self, *words: str) -> str:
        return _output(self.remote, ["docker", *words])


def still_there(store: NodeStore, removed: Iterable[HeldImage]) -> tuple[str, ...]:
    """The names of removed images that the runtime tells all the same."""
    present = {name for image in store.images() for name in image.names}
    return tuple(name for image in removed for name in image.names if name in present)


def _output(remote: Remote, argv: Sequence[str]) -> str:
    ran = remote.run(argv, timeout=SECONDS)
    if ran.code != 0:
        raise _failed(remote, argv, ran)
    return ran.stdout.decode(errors="replace")


def _failed(remote: Remote, argv: Sequence[str], ran: Ran) -> UpgradeError:
    removes = "rm" in argv or "rmi" in argv
    return UpgradeError(
        f"{argv[0]} on {remote.host.name} could not {'remove images' if removes else 'tell its images'}.",
        observed=ran.stderr.strip()[-600:] or f"Its exit code is {ran.code}, and it said nothing.",
        safe=SOME_LEFT if removes else "Nothing was changed.",
        next=f"Try it on that node: {' '.join(argv[:6])}",
    )
