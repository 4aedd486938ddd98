"""Reads what an installation is made of, in every cluster and every namespace that may be seen."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.cluster.api import KubernetesApi
from tasks.domain.component import OF_ENVIRONMENT, Component
from tasks.domain.discovery import Correction, JsonObject, deployment_facts, lookalikes
from tasks.domain.errors import ForbiddenError, NotFoundError
from tasks.domain.inventory import DeploymentFacts, Inventory, sorted_deployments


@dataclass(frozen=True, slots=True)
class ClusterScope:
    """A cluster to look at; without `namespaces` all that are allowed.  `own` is the context's namespace."""

    api: KubernetesApi
    namespaces: tuple[str, ...] = ()
    own: str = "default"


def read_inventory(scopes: Sequence[ClusterScope], corrections: Sequence[Correction] = ()) -> Inventory:
    """Every Deployment with a container that runs an Apinizer image.

    Raise `NotFoundError` where none is found, and what the API raises where a cluster cannot be asked.
    A namespace that is forbidden is said in `unseen`, as is a container that only looks like a component.
    """
    found: list[DeploymentFacts] = []
    unseen: list[str] = []
    for scope in scopes:
        objects, unread = _deployments(scope)
        facts = [deployment_facts(o, scope.api.name, corrections) for o in objects]
        found += [f for f in facts if f is not None]
        unseen += [*unread, *lookalikes(objects, corrections)]
    if not found:
        raise _nothing(scopes, unseen)
    return Inventory(deployments=sorted_deployments(found), unseen=(*unseen, *_half_environments(found)))


def read_again(api: KubernetesApi, known: DeploymentFacts, corrections: Sequence[Correction] = ()) -> DeploymentFacts:
    """One Deployment's facts as they are now."""
    path = f"/apis/apps/v1/namespaces/{known.key.namespace}/deployments/{known.key.name}"
    return deployment_facts(api.get(path), api.name, corrections) or known


def _deployments(scope: ClusterScope) -> tuple[list[JsonObject], list[str]]:
    if not scope.namespaces:
        try:
            return scope.api.list("/apis/apps/v1/deployments").items, []
        except ForbiddenError as forbidden:
            return _allowed(scope, _namespace_names(scope), forbidden)
    return _allowed(scope, scope.namespaces, None)


def _namespace_names(scope: ClusterScope) -> tuple[str, ...]:
    try:
        return tuple(n["metadata"]["name"] for n in scope.api.list("/api/v1/namespaces").items)
    except ForbiddenError:
        return (scope.own,)


def _allowed(
    scope: ClusterScope, namespaces: Sequence[str], forbidden: ForbiddenError | None
) -> tuple[list[JsonObject], list[str]]:
    """What the namespaces that may be read hold; raise where none of them may."""
    items: list[JsonObject] = []
    unread: list[str] = []
    for namespace in namespaces:
        try:
            items += scope.api.list(f"/apis/apps/v1/namespaces/{namespace}/deployments").items
        except ForbiddenError as error:
            forbidden = error
            unread.append(f"The namespace {namespace} may not be read; what runs there is not known.")
    if forbidden and len(unread) == len(namespaces):
        raise forbidden
    return items, unread


def _half_environments(found: Sequence[DeploymentFacts]) -> list[str]:
    """An environment is a worker and a cache; one without the other usually means that the other was not seen."""
    parts: dict[tuple[str, str], set[Component]] = {}
    for d in found:
        if d.environment:
            parts.setdefault((d.key.cluster, d.key.namespace), set()).add(d.component)
    return [
        f"The environment {namespace} shows no {missing}."
        for (_, namespace), kinds in sorted(parts.items())
        for missing in sorted(OF_ENVIRONMENT - kinds)
    ]


def _nothing(scopes: Sequence[ClusterScope], unseen: Sequence[str]) -> NotFoundError:
    where = ", ".join(
        f"{s.api.server} ({'namespaces ' + ', '.join(s.namespaces) if s.namespaces else 'all namespaces'})"
        for s in scopes
    )
    return NotFoundError(
        "No Apinizer was found.",
        observed="\n".join((f"No Deployment in {where} runs an image of a component.", *unseen)),
        next="Check the context and the namespaces: kubectl get deployments -Ao wide. Images that were given names of "
        "your own need an override in the configuration.",
    )
