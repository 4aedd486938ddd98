"""Which node is to hold what, asked of the clusters: their nodes, and the pods that are to run there."""

from dataclasses import replace

from blocks.image_settings import ImageSourceSettings
from tasks.cluster.nodes import pod_specs, read_nodes
from tasks.cluster.planning import Connections
from tasks.domain.errors import ForbiddenError
from tasks.domain.finding import Finding, warning
from tasks.domain.inventory import DeploymentKey, Inventory
from tasks.domain.placement import NodeFacts
from tasks.domain.plan import Plan
from tasks.images.demand import Circumstances, Demand, demand_of
from tasks.images.model import JsonObject
from tasks.images.references import kept_names, wishes_of


def demand_for(
    connections: Connections, inventory: Inventory, plan: Plan, settings: ImageSourceSettings, *, every: bool = False
) -> Demand:
    """Which node is to hold what, as the clusters are now; `every`: also for Deployments that are at the target already.

    Raise `BlockedError` where a finding forbids to go on, and what `read_demand` raises.
    """
    demand = read_demand(connections, inventory, plan, settings, every=every)
    demand.require_allowed()
    return demand


def read_demand(
    connections: Connections, inventory: Inventory, plan: Plan, settings: ImageSourceSettings, *, every: bool = False
) -> Demand:
    """The same for a look: what forbids to go on is among the findings.

    Raise `ForbiddenError` where the way leads to nodes, those of a cluster may not be listed, and the settings do not
    name them.
    """
    wishes = wishes_of(
        (*plan.steps, *plan.there) if every else plan.steps,
        inventory,
        prefix=settings.source.prefix,
        own_names=settings.way.source != "registry",
    )
    keys = dict.fromkeys(user for wish in wishes for user in wish.users)
    replaced = frozenset(step.key for step in plan.steps if step.replicas > 0)
    clusters = dict.fromkeys(key.cluster for key in keys)
    unread = frozenset(connections.apis) - clusters.keys()
    given = Circumstances(settings, replaced=replaced, several=len(connections.apis) > 1, unread=unread)
    nodes: list[NodeFacts] = []
    specs: dict[DeploymentKey, JsonObject] = {}
    unlisted: list[Finding] = []
    for cluster in clusters:
        api = connections.apis[cluster]
        specs.update(pod_specs(api, [key for key in keys if key.cluster == cluster]))
        try:
            nodes += read_nodes(api)
        except ForbiddenError as error:
            named = bool(given.stand_in(cluster))
            if given.to_nodes and not named:
                raise _untold(error, cluster) from None
            given = replace(given, unlisted=given.unlisted | {cluster})
            unlisted.append(_unlisted(cluster, named=named))
    demand = demand_of(wishes, specs, nodes, given)
    kept = kept_names(wishes, settings.wanted_prefix) if every else ()
    return replace(demand, findings=(*unlisted, *kept, *demand.findings))


def _untold(error: ForbiddenError, cluster: str) -> ForbiddenError:
    """Without a word on the nodes nothing can be brought to them."""
    where = f", each with cluster: {cluster}" if cluster else ""
    return ForbiddenError(
        error.happened,
        observed=error.observed,
        safe=error.safe,
        next=f"{error.next} Or name its nodes in the configuration: images.nodes.named{where}.",
    )


def _unlisted(cluster: str, *, named: bool) -> Finding:
    where = f" of {cluster}" if cluster else ""
    return warning(
        "nodes-unlisted",
        f"The nodes{where} may not be listed, so "
        + (
            "those that the configuration names for it get all of its images."
            if named
            else "nobody can say what they hold."
        ),
        "deployments/rbac.yaml has the right that it takes.",
    )
