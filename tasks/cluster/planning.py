"""From an installation's settings and a wish to a plan: reads the world, asks the pure rules."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from blocks.cluster_client import open_client
from blocks.settings import InstallationSettings
from tasks.cluster.api import KubernetesApi
from tasks.cluster.inventory import ClusterScope, read_inventory
from tasks.cluster.named_nodes import require_named_known
from tasks.cluster.node_images import held_on_nodes
from tasks.cluster.running_version import ask_running_version
from tasks.cluster.verification import verify
from tasks.domain.component import Component, repositories
from tasks.domain.inventory import Inventory
from tasks.domain.plan import Plan, PlanRequest, make_plan, new_image
from tasks.images.registry import holds, registry_of


@dataclass(frozen=True, slots=True)
class Connections:
    """An installation's settings and an open client for each of its clusters, by the cluster's name."""

    settings: InstallationSettings
    apis: Mapping[str, KubernetesApi] = field(default_factory=dict)

    @classmethod
    def open(cls, settings: InstallationSettings, *, patience: float | None = None) -> "Connections":
        """Open every cluster; raise `UsageError` where a kubeconfig cannot be used.  Nothing is asked yet.

        `patience` is for how many seconds a read is tried again while a server is away.
        """
        apis = {c.name: KubernetesApi(open_client(c), c.name) for c in settings.clusters}
        return cls(settings, apis if patience is None else {n: a.patient(patience) for n, a in apis.items()})

    def inventory(self) -> Inventory:
        """What the installation is made of now."""
        scopes = [ClusterScope(self.apis[c.name], c.namespaces) for c in self.settings.clusters]
        return read_inventory(scopes, self.settings.overrides)


def read_plan(connections: Connections, inventory: Inventory, request: PlanRequest) -> Plan:
    """The plan for what was read; asks the running manager its version and the world about disputed names.

    Raise `UsageError` where a node is expected that no cluster has.
    """
    require_named_known(connections.apis, connections.settings.images.nodes)
    manager = inventory.manager
    running = ask_running_version(connections.apis[manager.key.cluster], manager) if manager else None
    return make_plan(inventory, request, held=held_repositories(connections, inventory, request), running=running)


def prove_there(connections: Connections, plan: Plan) -> dict[str, list[str]]:
    """Ask every pod of what is at the target already; the versions that each Deployment's pods answered.

    Raise `UnprovenError` where one answers another or none: an image's tag alone proves nothing.
    """
    answered = {}
    for step in plan.there:
        if step.serves:
            api = connections.apis[step.key.cluster]
            answers = verify(api, step.key, step.uid, step.component, plan.to, container=step.container)
            answered[str(step.key)] = [answer.version for answer in answers]
    return answered


def held_repositories(connections: Connections, inventory: Inventory, request: PlanRequest) -> dict[str, bool]:
    """Which of the disputed repositories hold the target: first the nodes are asked, then the registry."""
    held: dict[str, bool] = {}
    registries = {registry_of(c.image) for d in inventory.deployments for c in d.containers}
    for component in Component:
        candidates = repositories(component, request.to)
        deployments = inventory.of(component)
        if len(candidates) == 1 or not deployments or component in request.repositories:
            continue
        for api in connections.apis.values():
            held |= held_on_nodes(api, candidates, request.to.text)
        if any(name in held for name in candidates):
            continue
        for name in candidates:
            image = new_image(deployments[0].main, request, name)
            answer = holds(image, connections.settings.images, registries=registries)
            if answer is not None:
                held[name] = answer
    return held
