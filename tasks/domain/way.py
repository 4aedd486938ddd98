"""The ways in which the images of a release come to where the pods run.  Pure.

Source: the vendor's published procedure, which has a page of commands for each; `replaces` names them.
"""

from enum import StrEnum


class Way(StrEnum):
    """From where to where.  Two of them move nothing: the nodes pull by themselves, from Docker Hub or through a proxy."""

    ONLINE = "online"
    DOCKER_TO_NODES = "docker-to-nodes"
    CONTAINERD_TO_NODES = "containerd-to-nodes"
    REGISTRY_TO_NODES = "registry-to-nodes"
    BUNDLE_TO_NODES = "bundle-to-nodes"
    DOCKER_TO_REGISTRY = "docker-to-registry"
    CONTAINERD_TO_REGISTRY = "containerd-to-registry"
    REGISTRY_TO_REGISTRY = "registry-to-registry"
    BUNDLE_TO_REGISTRY = "bundle-to-registry"
    PROXY = "proxy"

    @property
    def source(self) -> str:
        """`docker`, `containerd`, `registry`, `bundle`; "" where nothing is moved."""
        return self.value.partition("-to-")[0] if "-to-" in self.value else ""

    @property
    def target(self) -> str:
        """`nodes` or `registry`; "" where nothing is moved."""
        return self.value.partition("-to-")[2]

    @property
    def replaces(self) -> str:
        """The published commands that this way stands for, one line."""
        return _REPLACES[self]


_SAVE = "docker pull, docker save, scp to every node"
_EXPORT = "ctr images pull, ctr images export, scp to every node"
_REPLACES = {
    Way.ONLINE: "nothing: kubectl set image, and the nodes pull from the registry that the image names",
    Way.DOCKER_TO_NODES: f"{_SAVE}, docker load or ctr -n k8s.io images import there",
    Way.CONTAINERD_TO_NODES: f"{_EXPORT}, ctr -n k8s.io images import or docker load there",
    Way.REGISTRY_TO_NODES: f"{_SAVE}, ctr -n k8s.io images import or docker load there, without an engine",
    Way.BUNDLE_TO_NODES: "a disk carried to the site, ctr -n k8s.io images import or docker load on every node",
    Way.DOCKER_TO_REGISTRY: "docker pull, docker tag, docker push of each image",
    Way.CONTAINERD_TO_REGISTRY: "ctr images pull, ctr images tag, ctr images push of each image",
    Way.REGISTRY_TO_REGISTRY: "docker pull, docker tag, docker push of each image, without an engine",
    Way.BUNDLE_TO_REGISTRY: "a disk carried to the site, docker load, docker tag, docker push of each image",
    Way.PROXY: "nothing: the nodes pull through a registry that proxies Docker Hub; only the name in front changes",
}
