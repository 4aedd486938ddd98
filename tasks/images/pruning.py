"""Looks at what the nodes hold, has it judged, removes what may go, and looks again."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from blocks.image_settings import ImageSourceSettings
from tasks.cluster.image_use import read_use, read_versions_before
from tasks.cluster.inventory import ClusterScope, read_inventory
from tasks.cluster.nodes import read_nodes
from tasks.cluster.planning import Connections
from tasks.database.catalogue import Backup
from tasks.domain.errors import UnprovenError, UpgradeError
from tasks.domain.inventory import Inventory
from tasks.domain.placement import NodeFacts
from tasks.domain.reference import ImageReference
from tasks.domain.version import Version
from tasks.images.identity import require_node
from tasks.images.node_store import ContainerdStore, DockerStore, NodeStore, still_there
from tasks.images.opening import remote_for_node, runtime_of, target_for_node
from tasks.images.prune import HeldImage, ImageUse, Stay, Verdict, to_remove
from tasks.images.registry.lines import never
from tasks.images.remote import Remote
from tasks.images.surveying import at_once

Stop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class NodeLook:
    """What one node holds and what its own containers use; `error` says why it could not be asked."""

    node: NodeFacts
    images: tuple[HeldImage, ...] = ()
    used: ImageUse = field(default_factory=ImageUse)
    error: UpgradeError | None = None

    @property
    def key(self) -> str:
        """The node's name, with its cluster where the installation has several."""
        return f"{self.node.name} in {self.node.cluster}" if self.node.cluster else self.node.name


@dataclass(frozen=True, slots=True)
class Removed:
    """What went from a node: names, images, and the bytes that its disk has more now (None where it cannot tell)."""

    node: str
    names: tuple[str, ...] = ()
    freed: int | None = None
    error: UpgradeError | None = None


def all_nodes(connections: Connections) -> tuple[NodeFacts, ...]:
    """The nodes of every cluster of the installation."""
    return tuple(node for api in connections.apis.values() for node in read_nodes(api))


def extra_nodes(settings: ImageSourceSettings) -> tuple[NodeFacts, ...]:
    """Machines that the settings name and no cluster has, which are to hold the images all the same."""
    named = (node for node in settings.nodes.named if node.extra)
    return tuple(NodeFacts(name=node.name, runtime=f"{node.runtime}://", platform=node.platform) for node in named)


def reported(node: NodeFacts) -> tuple[HeldImage, ...]:
    """The images that the kubelet reports of its node; it tells neither which are pinned nor all of many."""
    return tuple(
        HeldImage(next((n.partition("@")[2] for n in image.names if "@" in n), ""), image.names, image.size)
        for image in node.images
    )


def repositories_of(inventory: Inventory) -> frozenset[str]:
    """The full names, without tag, of the images that the installation runs."""
    references = (c.reference for d in inventory.deployments for c in d.containers)
    return frozenset(ImageReference.parse(reference.normal).name for reference in references)


def store_of(settings: ImageSourceSettings, node: NodeFacts, remote: Remote) -> NodeStore:
    """The node's images through its own runtime, over `remote`.

    Raise `BlockedError` where that is neither containerd nor Docker, or where the machine is surely not the node: what
    is judged by one node's use must not be removed from another.
    """
    runtime = runtime_of(settings, node)
    require_node(remote, node)
    if runtime == "docker":
        return DockerStore(remote)
    return ContainerdStore(remote, settings.nodes.address, settings.nodes.namespace, node=node)


def look_at_nodes(
    settings: ImageSourceSettings, nodes: Sequence[NodeFacts], *, stop: Stop = never
) -> tuple[NodeLook, ...]:
    """Ask each node, some at a time; one that cannot be asked is told in its look."""

    def one(node: NodeFacts) -> NodeLook:
        with closing(remote_for_node(settings, node, stop=stop)) as remote:
            try:
                store = store_of(settings, node, remote)
                return NodeLook(node, store.images(), store.used())
            except UpgradeError as error:
                return NodeLook(node, error=error)

    return at_once(one, nodes, settings.parallel)


def judge(
    connections: Connections, looks: Sequence[NodeLook], backups: Sequence[Backup], keep: int
) -> Mapping[str, tuple[Verdict, ...]]:
    """What becomes of each node's images, as the clusters are now.

    A cluster's pods are asked after the nodes were: what has begun to run meanwhile is in use.  Every namespace
    counts, whatever the settings look at: another installation on the same nodes has a way back of its own.
    """
    apis = connections.apis.values()
    inventory = read_inventory([ClusterScope(api) for api in apis], connections.settings.overrides)
    use = ImageUse()
    for api in apis:
        use = use.joined(read_use(api))
    for look in looks:
        use = use.joined(look.used)
    held = {look.key: look.images for look in looks if look.error is None}
    return to_remove(held, use, what_stays(connections, inventory, backups, keep))


def what_stays(connections: Connections, inventory: Inventory, backups: Sequence[Backup], keep: int) -> Stay:
    """The present versions, and those that a rollback would set: by the ReplicaSets and by the backups."""
    present = frozenset(
        version
        for deployment in inventory.deployments
        for container in deployment.containers
        if (version := container.version)
    )
    needed = versions_of_backups(backups, present)
    for api in connections.apis.values():
        needed |= read_versions_before(api, inventory)
    return Stay(present, needed, repositories_of(inventory), keep)


def versions_of_backups(backups: Sequence[Backup], present: frozenset[Version]) -> dict[Version, str]:
    """The version of the newest proved backup of an older release, and of each that an unfinished run relies on.  Pure.

    `backups` are the newest first.  A database of a release goes back only together with that release's images.
    """
    needed: dict[Version, str] = {}
    oldest = min(present, default=None)
    older = [(b, v) for b in backups if (v := Version.find(b.version)) and oldest is not None and v < oldest]
    proved = next(((b, v) for b, v in older if b.proved), None)
    for backup, version in [*([proved] if proved else []), *((b, v) for b, v in older if b.needed)]:
        needed.setdefault(version, f"the backup {backup.archive.name} can be gone back to")
    return needed


def remove(
    settings: ImageSourceSettings, look: NodeLook, verdicts: Sequence[Verdict], *, stop: Stop = never
) -> Removed:
    """Remove from one node what the verdicts say, then ask it again; the error is in the result."""
    going = [verdict.image for verdict in verdicts if verdict.goes]
    if not going:
        return Removed(look.key)
    with closing(remote_for_node(settings, look.node, stop=stop)) as remote:
        try:
            store = store_of(settings, look.node, remote)
            before = _free(settings, look.node, remote)
            store.remove(going)
            left = still_there(store, going)
        except UpgradeError as error:
            return Removed(look.key, error=error)
        after = _free(settings, look.node, remote)
    names = tuple(name for image in going for name in image.tagged if name not in left)
    freed = None if before is None or after is None else max(0, after - before)
    return Removed(look.key, names, freed, _left(look.key, left) if left else None)


def _free(settings: ImageSourceSettings, node: NodeFacts, remote: Remote) -> int | None:
    """The room on the node's disk; nothing is removed or kept for it, so it need not be known."""
    try:
        return target_for_node(settings, node, remote=remote).look(()).free
    except UpgradeError:
        return None


def _left(node: str, names: Sequence[str]) -> UpgradeError:
    return UnprovenError(
        f"{node} still tells images that were to be removed.",
        observed=", ".join(names),
        safe="What was removed before this stays removed; nothing that is in use was.",
        next="Run apinizer-upgrade images prune again; see what made them anew if they stay.",
    )
