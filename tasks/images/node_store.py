"""The images of one node as its own runtime tells them, and their removal: `ctr` or `docker`, here or over SSH."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tasks.domain.errors import UpgradeError
from tasks.domain.placement import NodeFacts
from tasks.images import node_listing as listing
from tasks.images.containerd.listing import Looked
from tasks.images.containerd.looking import look_at_kubelets
from tasks.images.containerd.script import CONTAINERS, REMOVE, Ctr
from tasks.images.prune import HeldImage, ImageUse
from tasks.images.remote import Ran, Remote

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


class ContainerdStore:
    """A containerd namespace (the kubelet's is k8s.io); `address` is its socket where it is not the usual one.

    With `node` it must be the containerd of that node's kubelet, and is looked for where no socket is given.
    """

    def __init__(
        self, remote: Remote, address: str = "", namespace: str = "k8s.io", node: NodeFacts | None = None
    ) -> None:
        self._ctr = Ctr(remote, address, namespace)
        self._node = node
        self._settled = node is None

    def images(self) -> tuple[HeldImage, ...]:
        return listing.containerd_images(self._look())

    def used(self) -> ImageUse:
        self._settle()
        return listing.containerd_use(self._run(CONTAINERS))

    def remove(self, images: Sequence[HeldImage]) -> None:
        if names := [name for image in images for name in image.names]:
            self._settle()
            self._run(REMOVE, *names)

    def _settle(self) -> None:
        """Make sure of whose containerd it is, which may be known only by what it holds."""
        if not self._settled:
            self._look()

    def _look(self) -> Looked:
        self._ctr, looked = look_at_kubelets(self._ctr, self._ctr.remote.host.name, self._node)
        self._settled = True
        return looked

    def _run(self, script: str, *words: str) -> str:
        ran = self._ctr.remote.run(self._ctr.command(script, *words), timeout=SECONDS, sudo=False)
        what = ["ctr", "-n", self._ctr.namespace, "images", "rm" if script == REMOVE else "ls"]
        return _output(self._ctr.remote, what, ran)


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
        return _output(self.remote, ["docker", *words], self.remote.run(["docker", *words], timeout=SECONDS))


def still_there(store: NodeStore, removed: Iterable[HeldImage]) -> tuple[str, ...]:
    """The names of removed images that the runtime tells all the same."""
    present = {name for image in store.images() for name in image.names}
    return tuple(name for image in removed for name in image.names if name in present)


def _output(remote: Remote, argv: Sequence[str], ran: Ran) -> str:
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
