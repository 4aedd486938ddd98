"""Which images a cluster uses, now or as soon as somebody scales something up, and to which it may have to go back."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from tasks.cluster.answers import JsonObject
from tasks.cluster.api import KubernetesApi
from tasks.cluster.rollout_view import controller, name
from tasks.domain.errors import ForbiddenError, NotFoundError
from tasks.domain.inventory import Inventory
from tasks.domain.reference import ImageReference
from tasks.domain.version import Version
from tasks.images.node_listing import use_of
from tasks.images.prune import ImageUse

REVISION = "deployment.kubernetes.io/revision"

# Whatever makes pods from a template, and where the template is in it.
_MAKERS: Mapping[str, tuple[str, ...]] = {
    "/apis/apps/v1/deployments": ("spec", "template"),
    "/apis/apps/v1/statefulsets": ("spec", "template"),
    "/apis/apps/v1/daemonsets": ("spec", "template"),
    "/apis/batch/v1/jobs": ("spec", "template"),
    "/apis/batch/v1/cronjobs": ("spec", "jobTemplate", "spec", "template"),
    "/apis/batch/v1beta1/cronjobs": ("spec", "jobTemplate", "spec", "template"),
}
_PODS = "/api/v1/pods"
_REPLICASETS = "/apis/apps/v1/replicasets"


def read_use(api: KubernetesApi) -> ImageUse:
    """What pods run and templates name, in all namespaces.

    Raise `ForbiddenError` where any of them may not be listed: what cannot be seen might be in use.
    """
    use = pods_use(_all(api, _PODS))
    served = _served(api)
    for path, place in _MAKERS.items():
        if path in served:
            use = use.joined(templates_use(_all(api, path), place))
    # A Deployment's ReplicaSet without pods is history; one with them is in the pods, or is about to be.
    return use.joined(templates_use([rs for rs in _all(api, _REPLICASETS) if _wanted(rs)], ("spec", "template")))


def pods_use(pods: Iterable[JsonObject]) -> ImageUse:
    """What the containers of pods were made from, ended ones included: until the pod is gone they may start again."""
    use = ImageUse()
    for pod in pods:
        who = f"the pod {pod['metadata'].get('namespace', '')}/{name(pod)} uses it"
        use = use.joined(use_of([*_images(pod.get("spec") or {}), *_ran(pod.get("status") or {})], who))
    return use


def templates_use(objects: Iterable[JsonObject], place: Sequence[str]) -> ImageUse:
    """What pod templates name, `place` being where the template is."""
    use = ImageUse()
    for thing in objects:
        template = thing
        for part in place:
            template = template.get(part) or {}
        who = f"{thing['metadata'].get('namespace', '')}/{name(thing)} names it"
        use = use.joined(use_of(_images(template.get("spec") or {}), who))
    return use


def versions_before(inventory: Inventory, replicasets: Iterable[JsonObject]) -> dict[Version, str]:
    """For each Deployment the version that it had before the present one, by its ReplicaSets, with the reason.

    That is what `kubectl rollout undo` or a rollback would set; the older ones among its history are not counted.
    """
    owned: dict[str, list[JsonObject]] = {}
    for rs in replicasets:
        owned.setdefault(str(controller(rs).get("uid") or ""), []).append(rs)
    found: dict[Version, str] = {}
    for deployment in inventory.deployments:
        present = deployment.version
        history = sorted(owned.get(deployment.uid, ()), key=_revision, reverse=True)
        versions = (_version(rs, deployment.main.name) for rs in history)
        before = next((v for v in versions if v and present and v < present), None)
        if before:
            found.setdefault(before, f"{deployment.key} had it before: a way back needs it")
    return found


def read_versions_before(api: KubernetesApi, inventory: Inventory) -> dict[Version, str]:
    """The same for one cluster, asked of it."""
    return versions_before(inventory, _all(api, _REPLICASETS))


def _all(api: KubernetesApi, path: str) -> list[JsonObject]:
    try:
        return api.list(path).items
    except ForbiddenError as error:
        raise ForbiddenError(
            error.happened,
            observed=f"{error.observed}\nWhat cannot be listed might use an image that would be removed.",
            safe="No image was removed.",
            next=f"{error.next} It takes a ClusterRole that may list it in all namespaces (deployments/rbac.yaml).",
        ) from None


def _served(api: KubernetesApi) -> frozenset[str]:
    """The paths of `_MAKERS` that this API server has: CronJobs are batch/v1 since 1.21, v1beta1 until 1.24."""
    found: set[str] = set()
    for group in {path.rpartition("/")[0] for path in _MAKERS}:
        try:
            resources = api.get(group).get("resources") or ()
        except NotFoundError:
            continue
        found |= {f"{group}/{resource['name']}" for resource in resources}
    return frozenset(found & _MAKERS.keys())


def _images(spec: JsonObject) -> Iterator[str]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from (c.get("image") or "" for c in spec.get(kind) or ())


def _ran(status: JsonObject) -> Iterator[str]:
    """The runtime's own words: the name it resolved, and the digest (`docker-pullable://name@sha256:…` in old ones)."""
    for kind in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        for container in status.get(kind) or ():
            yield container.get("image") or ""
            yield container.get("imageID") or ""


def _wanted(replicaset: JsonObject) -> bool:
    if not controller(replicaset):
        return True  # somebody's own, who scales it up again as they would a Deployment
    spec, status = replicaset.get("spec") or {}, replicaset.get("status") or {}
    return bool(spec.get("replicas", 1) or status.get("replicas", 0))


def _revision(replicaset: JsonObject) -> int:
    text = str((replicaset["metadata"].get("annotations") or {}).get(REVISION) or "")
    return int(text) if text.isdigit() else 0


def _version(replicaset: JsonObject, container: str) -> Version | None:
    spec = replicaset["spec"]["template"]["spec"]
    every = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    image = next((c.get("image") or "" for c in every if c["name"] == container), "")
    reference = ImageReference.find(image)
    return Version.find(reference.tag) if reference else None
