"""Reads the nodes of a cluster, and the pod specs of Deployments as the scheduler gets them."""

from collections.abc import Iterable, Mapping, Sequence

from tasks.cluster.answers import JsonObject
from tasks.cluster.api import KubernetesApi
from tasks.domain.discovery import selector_text
from tasks.domain.errors import ForbiddenError, NotFoundError
from tasks.domain.inventory import DeploymentKey
from tasks.domain.placement import NodeFacts, node_facts


def read_nodes(api: KubernetesApi) -> tuple[NodeFacts, ...]:
    """All nodes, by name; raise `ForbiddenError` where this user may not list them."""
    try:
        found = api.list("/api/v1/nodes").items
    except ForbiddenError as error:
        raise ForbiddenError(
            error.happened,
            observed=f"{error.observed}\nWithout the nodes nobody can tell where a component may run.",
            safe=error.safe,
            next=f"{error.next} Nodes belong to no namespace: it takes a ClusterRole (deployments/rbac.yaml has it).",
        ) from None
    return tuple(sorted((node_facts(node, api.name) for node in found), key=lambda node: node.name))


def pod_specs(api: KubernetesApi, keys: Iterable[DeploymentKey]) -> Mapping[DeploymentKey, JsonObject]:
    """The pod template's spec of each Deployment that still exists, to be given to `placement.eligible`.

    Its tolerations are those of the template and of its present pods: admission plugins add some by namespace or by
    what is requested (PodTolerationRestriction, ExtendedResourceToleration), which would lead to a node more.
    """
    specs: dict[DeploymentKey, JsonObject] = {}
    for key in keys:
        try:
            deployment = api.get(f"/apis/apps/v1/namespaces/{key.namespace}/deployments/{key.name}")
        except NotFoundError:
            continue
        spec = deployment["spec"]["template"]["spec"]
        specs[key] = {**spec, "tolerations": _tolerations(spec, _pods(api, deployment))}
    return specs


def _pods(api: KubernetesApi, deployment: JsonObject) -> Sequence[JsonObject]:
    selector = selector_text(deployment["spec"].get("selector") or {})
    try:
        return api.list(f"/api/v1/namespaces/{deployment['metadata']['namespace']}/pods", labels=selector).items
    except ForbiddenError:
        return ()  # the template alone is right nearly everywhere


def _tolerations(spec: JsonObject, pods: Sequence[JsonObject]) -> list[JsonObject]:
    found: list[JsonObject] = []
    for each in (spec, *(pod.get("spec") or {} for pod in pods)):
        found += [t for t in each.get("tolerations") or () if t not in found]
    return found
