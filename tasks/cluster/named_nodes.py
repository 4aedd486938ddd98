"""Nodes that somebody named for this run: one that no cluster has is a slip, told before anything is begun."""

from collections.abc import Mapping

from blocks.image_settings import NamedNode, NodeAccessSettings
from tasks.cluster.api import KubernetesApi
from tasks.cluster.nodes import read_nodes
from tasks.domain.errors import ForbiddenError, UsageError


def require_named_known(apis: Mapping[str, KubernetesApi], access: NodeAccessSettings) -> None:
    """Raise `UsageError` with the nodes' names where one that is `expected` is in none of its clusters.

    Clusters whose nodes may not be listed are believed to have it; without such a name nobody is asked.
    """
    known: dict[str, list[str] | None] = {}
    for named in (node for node in access.named if node.expected and not node.extra):
        places = (named.cluster,) if named.cluster else tuple(apis)
        for cluster in places:
            if cluster not in known:
                known[cluster] = _names(apis[cluster])
        if not any(names is None or named.name in names for names in (known[cluster] for cluster in places)):
            raise _unknown(named, {cluster: names for cluster in places if (names := known[cluster])})


def _names(api: KubernetesApi) -> list[str] | None:
    try:
        return [node.name for node in read_nodes(api)]
    except ForbiddenError:
        return None


def _unknown(named: NamedNode, known: Mapping[str, list[str]]) -> UsageError:
    there = (f"{', '.join(names)}{f' in {cluster}' if cluster else ''}" for cluster, names in known.items())
    return UsageError(
        f"No cluster has the node {named.name} that is named."
        if not named.cluster
        else f"The cluster {named.cluster} has no node {named.name}.",
        observed=f"The nodes are {'; '.join(there)}." if known else "It shows no node.",
        next="Name the node as the cluster does: --node NAME=HOST. A machine that is no node of it belongs into the "
        "configuration: images.nodes.named, with extra: true.",
    )
