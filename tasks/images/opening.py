"""Opens what the settings name: the source of the images, a node, a registry.  Nothing is asked of them yet."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypedDict

from blocks.image_settings import ContainerdSettings, ImageSourceSettings, NodeAccessSettings, by_way
from tasks.domain.errors import BlockedError, UsageError
from tasks.domain.placement import NodeFacts
from tasks.domain.reference import DOCKER_HUB, VENDOR, ImageReference
from tasks.domain.way import Way
from tasks.images.identity import NodeTarget
from tasks.images.model import Source, Target
from tasks.images.registry.lines import never
from tasks.images.remote import Host, Remote

# The key of the machine of a source among those of the nodes, none of which has an empty name.
SOURCE = ("", "")

Stop = Callable[[], bool]

# A node is reached from where this runs, which is rarely a machine that resolves the node's name.
ADDRESSES = ("InternalIP", "ExternalIP", "Hostname", "InternalDNS", "ExternalDNS")


def source_for(settings: ImageSourceSettings, *, stop: Stop = never, remote: Remote | None = None) -> Source:
    """Where the way of the settings takes images from; raise `UsageError` where it takes none from anywhere.

    `remote` is the machine of a containerd; `remote_for_source` gives it.
    """
    given = settings.source
    match settings.way.source:
        case "docker":
            from tasks.images.engine import DockerSource

            ssh = Host("", **_keys(settings.nodes))
            return DockerSource(given.docker, pull=given.pull, ssh=ssh, stop=stop)
        case "containerd":
            from tasks.images.containerd import ContainerdSource

            at = remote or remote_for_source(settings, stop=stop)
            return ContainerdSource(at, address=given.containerd.address, namespace=given.containerd.namespace)
        case "registry":
            from tasks.images.registry.access import Access
            from tasks.images.registry.source import RegistrySource

            registry = given.registry
            access = Access(registry.user, registry.password, registry.ca_file, insecure=registry.insecure)
            where = ImageReference.parse(f"{given.prefix or VENDOR}/worker").registry or DOCKER_HUB
            return RegistrySource(access, where=where, stop=stop)
        case "bundle":
            from tasks.images.bundle import BundleSource

            by_way(settings, None)  # raises where no bundle is named
            signers = Path(given.allowed_signers) if given.allowed_signers else None
            return BundleSource(Path(given.bundle), allowed_signers=signers, stop=stop)
    raise _moves_nothing(settings.way)


def target_for_node(
    settings: ImageSourceSettings, node: NodeFacts, *, stop: Stop = never, remote: Remote | None = None
) -> Target:
    """The node as a target; raise `BlockedError` where its runtime is none that images can be brought to."""
    at = remote or remote_for_node(settings, node, stop=stop)
    if runtime_of(settings, node) == "docker":
        from tasks.images.engine import DockerNodeTarget

        return NodeTarget(at, node, DockerNodeTarget(at, node.name))
    from tasks.images.containerd import ContainerdTarget

    access = settings.nodes
    kept = ContainerdTarget(at, node.name, address=access.address, namespace=access.namespace, node=node)
    return NodeTarget(at, node, kept)


def registry_target(
    settings: ImageSourceSettings, known: Sequence[ImageReference] = (), *, stop: Stop = never
) -> Target:
    """The registry that the installation's containers use; `known` are tags there whose layers need not be sent."""
    from tasks.images.registry.access import Access
    from tasks.images.registry.target import RegistryTarget

    access = Access(settings.user, settings.password, settings.ca_file, insecure=settings.insecure)
    name = settings.prefix.partition("/")[0]
    return RegistryTarget(access, name=name, known=tuple(known), overwrite=settings.overwrite, stop=stop)


def remote_for_node(settings: ImageSourceSettings, node: NodeFacts, *, stop: Stop = never) -> Remote:
    """How commands run on the node; no connection is made before the first."""
    access, named = settings.nodes, settings.nodes.of(node.name, node.cluster)
    host = Host(
        node.name,
        named.host or node.address(*ADDRESSES) or node.name,
        user=named.user or access.user,
        port=named.port or access.port,
        **_keys(access),
        sudo=access.sudo if named.sudo is None else named.sudo,
    )
    return Remote(host, stop=stop)


def runtime_of(settings: ImageSourceSettings, node: NodeFacts) -> str:
    """`containerd` or `docker`: as the node says of itself, or the settings where it says nothing.

    Raise `BlockedError` for another, and where the two contradict each other: what is brought to a runtime that the
    kubelet does not use helps nobody.
    """
    named, access = settings.nodes.of(node.name, node.cluster).runtime, settings.nodes.runtime
    told = named or (access if access != "auto" else node.engine)
    if told not in ("containerd", "docker"):
        raise BlockedError(
            f"Images cannot be brought to the node {node.name}: its runtime is {told or 'not known'}.",
            observed=f"It says {node.runtime!r} of itself. containerd and Docker are known.",
            next="Say images.nodes.runtime in the configuration if it is one of them; else bring the images to a "
            "registry: a way that ends in -to-registry.",
        )
    if node.engine and node.engine != told:
        raise BlockedError(
            f"The settings say that the node {node.name} runs {told}, and it says another.",
            observed=f"images.nodes has runtime: {told}; the node's kubelet says {node.runtime!r}.",
            next="Leave the runtime out of the configuration: each node says it of itself.",
        )
    return told


def remote_for_source(settings: ImageSourceSettings, *, stop: Stop = never) -> Remote:
    """How commands run where the containerd is that images are taken from: here where no machine is named."""
    return Remote(_host_of(settings.source.containerd, settings.nodes), stop=stop)


def _host_of(containerd: ContainerdSettings, access: NodeAccessSettings) -> Host:
    """Keys, known hosts and jump hosts are those of the nodes."""
    if not containerd.ssh:
        return Host("this machine", sudo=containerd.sudo)
    return Host(
        containerd.ssh,
        containerd.ssh,
        user="" if "@" in containerd.ssh else access.user,
        port=containerd.port,
        **_keys(access),
        sudo=containerd.sudo,
    )


class Keys(TypedDict):
    """What ssh is told beside the destination, the same for every machine."""

    identity_file: str
    config_file: str
    known_hosts: str
    jump: str


def _keys(access: NodeAccessSettings) -> Keys:
    return {
        "identity_file": access.identity_file,
        "config_file": access.config_file,
        "known_hosts": access.known_hosts,
        "jump": access.jump,
    }


def _moves_nothing(way: Way) -> UsageError:
    ways = ", ".join(each for each in Way if each.source)
    return UsageError(
        f"The way {way} moves no images: the nodes pull them by themselves.",
        observed="So there is nothing to bring anywhere.",
        next=f"Choose one of these, with --way or images.way in the configuration: {ways}.",
    )


class Opened:
    """What a run has open: one source for all of its steps, one target for each place.  Safe between threads.

    A bundle is read whole before its first use, and a connection costs more than most commands: both are kept until
    `close`.
    """

    def __init__(self, settings: ImageSourceSettings, *, stop: Stop = never) -> None:
        self.settings = settings
        self.stop = stop
        self._lock = threading.Lock()
        self._source: Source | None = None
        self._registry: Target | None = None
        self._targets: dict[tuple[str, str], Target] = {}
        self._remotes: dict[tuple[str, str], Remote] = {}

    def source(self) -> Source:
        """Where images are taken from."""
        with self._lock:
            if self._source is None:
                remote = None
                if self.settings.way.source == "containerd":
                    remote = self._remotes[SOURCE] = remote_for_source(self.settings, stop=self.stop)
                self._source = source_for(self.settings, stop=self.stop, remote=remote)
            return self._source

    def target(self, node: NodeFacts) -> Target:
        """A node."""
        with self._lock:
            key = (node.cluster, node.name)
            if key not in self._targets:
                remote = self._remote(node)
                self._targets[key] = target_for_node(self.settings, node, stop=self.stop, remote=remote)
            return self._targets[key]

    def connect(self, nodes: Sequence[NodeFacts]) -> None:
        """Begin to connect to nodes that are about to be asked; returns at once.  What fails is told when they are."""
        pool = ThreadPoolExecutor(self.settings.parallel, thread_name_prefix="connect")
        for node in nodes:
            with self._lock, suppress(UsageError):
                pool.submit(self._remote(node).begin)
        pool.shutdown(wait=False)

    def registry(self, known: Sequence[ImageReference] = ()) -> Target:
        """The registry that images are pushed to; `known` counts when it is opened first."""
        with self._lock:
            if self._registry is None:
                self._registry = registry_target(self.settings, known, stop=self.stop)
            return self._registry

    def close(self) -> None:
        """Close every connection; what is asked for afterwards is opened anew."""
        with self._lock:
            for each in (self._source, self._registry, *self._targets.values(), *self._remotes.values()):
                close = getattr(each, "close", None)
                if close is not None:
                    close()
            self._source = self._registry = None
            self._targets.clear()
            self._remotes.clear()

    def _remote(self, node: NodeFacts) -> Remote:
        key = (node.cluster, node.name)
        if key not in self._remotes:
            self._remotes[key] = remote_for_node(self.settings, node, stop=self.stop)
        return self._remotes[key]
