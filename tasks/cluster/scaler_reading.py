"""Reads what would scale Deployments up again, in each of their clusters; the judgement is in `scalers`."""

from collections.abc import Mapping, Sequence

from tasks.cluster.answers import JsonObject
from tasks.cluster.api import KubernetesApi
from tasks.cluster.image_change import deployment_path
from tasks.cluster.planning import Connections
from tasks.cluster.rollout_view import name
from tasks.cluster.scalers import Keeper, findings, in_order, keeper, unseen
from tasks.domain.errors import ForbiddenError, NotFoundError
from tasks.domain.finding import Finding
from tasks.domain.inventory import DeploymentFacts, DeploymentKey

KEDA, ARGO = "keda.sh", "argoproj.io"
GROUPS: Mapping[str, tuple[str, str]] = {
    "application": (ARGO, "applications"),
    "kustomization": ("kustomize.toolkit.fluxcd.io", "kustomizations"),
    "helmrelease": ("helm.toolkit.fluxcd.io", "helmreleases"),
}
_Objects = list[JsonObject]


def read_scalers(connections: Connections, deployments: Sequence[DeploymentFacts]) -> tuple[Finding, ...]:
    """What would scale the Deployments up again, the blocking findings first.

    What may not be read is a warning; raises what the API raises where it cannot be asked.
    """
    readers: dict[str, _Reader] = {}
    found: list[Finding] = []
    for facts in deployments:
        reader = readers.setdefault(facts.key.cluster, _Reader(connections.apis[facts.key.cluster]))
        found += reader.findings(facts.key)
    return in_order(found)


class _Reader:
    """One cluster: which groups it serves, and the lists that were read already."""

    def __init__(self, api: KubernetesApi) -> None:
        self._api = api
        self._versions = _served(api)
        self._lists: dict[str, tuple[_Objects, str]] = {}

    def findings(self, key: DeploymentKey) -> tuple[Finding, ...]:
        try:
            deployment = self._api.get(deployment_path(key))
        except NotFoundError:
            return ()  # there is nothing that could be scaled
        space = key.namespace
        autoscalers, no_autoscalers = self._autoscalers(space)
        scaled, no_scaled = self._list(KEDA, "scaledobjects", space)
        by = keeper(deployment)
        kept, unread = self._keeper(by) if by else (None, "")
        ask = f"kubectl get {{}} -n {space}"
        blind = [
            *([unseen(f"an autoscaler scales {space}", no_autoscalers, ask.format("hpa"))] if no_autoscalers else ()),
            *([unseen(f"KEDA scales {space}", no_scaled, ask.format("scaledobjects"))] if no_scaled else ()),
        ]
        return (*findings(key, deployment, autoscalers, scaled, kept, unread), *blind)

    def _autoscalers(self, space: str) -> tuple[_Objects, str]:
        """By autoscaling/v1, which every release up to now serves and which has all that is asked here; else by v2."""
        for version in ("v1", "v2"):
            path = f"/apis/autoscaling/{version}/namespaces/{space}/horizontalpodautoscalers"
            items, why, there = self._read(path)
            if there:
                return items, why
        return [], "The cluster serves no autoscaling/v1 and no autoscaling/v2."

    def _list(self, group: str, plural: str, space: str) -> tuple[_Objects, str]:
        """All objects of a kind in one namespace ("" for all), or why they could not be read.  Not served: none."""
        version = self._versions.get(group)
        if version is None:
            return [], ""
        where = f"namespaces/{space}/" if space else ""
        items, why, _ = self._read(f"/apis/{group}/{version}/{where}{plural}")
        return items, why

    def _keeper(self, by: Keeper) -> tuple[JsonObject | None, str]:
        """The keeper's object, or why it could not be read: it may be in another cluster than what it keeps."""
        group, plural = GROUPS[by.kind]
        if group not in self._versions:
            return None, f"this cluster does not serve {group}."
        items, why = self._list(group, plural, by.namespace)
        same = [item for item in items if name(item) == by.name]
        if len(same) == 1:
            return same[0], ""
        return None, why or f"{len(same)} objects of this cluster are called {by.name}."

    def _read(self, path: str) -> tuple[_Objects, str, bool]:
        """The items at `path`, why they may not be read, and whether the path is served."""
        if path not in self._lists:
            try:
                self._lists[path] = self._api.list(path).items, ""
            except ForbiddenError as error:
                self._lists[path] = [], error.happened
            except NotFoundError:
                return [], "", False
        return (*self._lists[path], True)


def _served(api: KubernetesApi) -> dict[str, str]:
    """The API groups of a cluster with the version that it prefers."""
    try:
        groups = api.get("/apis").get("groups") or ()
    except ForbiddenError:
        # Hardly ever forbidden (system:discovery); then the versions of today are tried.
        return {KEDA: "v1alpha1", ARGO: "v1alpha1", "kustomize.toolkit.fluxcd.io": "v1", "helm.toolkit.fluxcd.io": "v2"}
    return {str(group["name"]): str(group["preferredVersion"]["version"]) for group in groups}
