"""Ask every pod of a Deployment for its version and health, through the API server's proxy.

The proxy needs no route from here to the pods: `/api/v1/namespaces/NS/pods/[https:]POD:PORT/proxy/...`
(kubernetes.io/docs/tasks/access-application-cluster/access-cluster-services).
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tasks.cluster.answers import JsonObject
from tasks.cluster.api import KubernetesApi
from tasks.cluster.image_change import deployment_path
from tasks.cluster.pod_state import finished, ready, terminating
from tasks.cluster.retry import Retry
from tasks.cluster.rollout_view import name, new_replicaset, pods_of, select, uid
from tasks.cluster.running_image import runs_other
from tasks.cluster.version_answer import healthy, verified
from tasks.cluster.watch import PATHS
from tasks.domain.component import DEFAULT_PORT, Component, component_of
from tasks.domain.discovery import selector_text
from tasks.domain.errors import DriftError, NotFoundError, TemporaryError, UnprovenError, UpgradeError
from tasks.domain.inventory import DeploymentKey
from tasks.domain.reference import ImageReference
from tasks.domain.version import Version

VERSION_PATH = "apinizer/management/version"
HEALTH_PATH = "apinizer/management/health"
PATIENCE = 30.0
AT_ONCE = 4
SUCCESSOR_SECONDS = 5.0
PASSING = ("gone:", "only ")


@dataclass(frozen=True, slots=True)
class PodAnswer:
    """One pod's answer: `version` as it answered, `endpoint` the scheme and port that did (`http:8080`)."""

    pod: str
    node: str
    version: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One way to ask a pod."""

    scheme: str
    port: int

    def path(self, namespace: str, pod: str, what: str) -> str:
        """The proxy's path in the API."""
        target = f"https:{pod}:{self.port}" if self.scheme == "https" else f"{pod}:{self.port}"
        return f"/api/v1/namespaces/{namespace}/pods/{target}/proxy/{what}"

    def __str__(self) -> str:
        return f"{self.scheme}:{self.port}"


Ways = Callable[[JsonObject], tuple[Endpoint, ...]]


class _UnansweredError(TemporaryError):
    """A pod did not answer (yet)."""


class _PodGoneError(UpgradeError):
    """A pod was deleted while it was asked: the others of its Deployment are looked up again."""


def endpoints(pod: JsonObject, component: Component, container: str = "") -> tuple[Endpoint, ...]:
    """Where the management endpoints of the pod's `container` may be, likeliest first.  Pure.

    The readiness probe's own port, then the component's usual port where it is declared, the other declared ports,
    the usual port undeclared; each with the probe's scheme, at last all of them with the other one.
    """
    found = _container(pod, component, container)
    declared = [
        int(port["containerPort"])
        for port in found.get("ports") or ()
        if port.get("protocol", "TCP") == "TCP" and port.get("containerPort")
    ]
    named = {port.get("name"): port.get("containerPort") for port in found.get("ports") or () if port.get("name")}
    probe: JsonObject = next(
        (
            get
            for kind in ("readinessProbe", "startupProbe", "livenessProbe")
            if (get := (found.get(kind) or {}).get("httpGet"))
        ),
        {},
    )
    asked = named.get(probe.get("port"), probe.get("port"))
    usual = DEFAULT_PORT[component]
    ports = [int(asked)] if isinstance(asked, int) else []
    ports += [usual] if usual in declared else []
    ports += [*declared, usual]
    first = "https" if str(probe.get("scheme", "")).upper() == "HTTPS" else "http"
    second = "http" if first == "https" else "https"
    unique = list(dict.fromkeys(ports))
    return tuple(Endpoint(scheme, port) for scheme in (first, second) for port in unique)


def _container(pod: JsonObject, component: Component, named: str) -> JsonObject:
    """The container of that name, else the one that runs the component, else the pod's first."""
    found: list[JsonObject] = pod.get("spec", {}).get("containers") or []
    for container in found:
        if named and container.get("name") == named:
            return container
    for container in found:
        reference = ImageReference.find(str(container.get("image") or ""))
        if reference is not None and component_of(reference.repository) is component:
            return container
    return found[0] if found else {}


def verify(
    api: KubernetesApi,
    key: DeploymentKey,
    uid_wanted: str,
    component: Component,
    wanted: Version,
    *,
    container: str = "",
    images: Mapping[str, frozenset[str]] = {},
    retry: Retry | None = None,
) -> tuple[PodAnswer, ...]:
    """Every pod of the Deployment's present template has answered `wanted` and is well.

    `images`: the digests that a container's image may be reported under, by the container's name, where known.
    Raises `UnprovenError` naming each pod that answers another version or none, or runs another image, `DriftError`
    where the Deployment is another than `uid_wanted`, `ForbiddenError` without the permission `get pods/proxy`.  Temporary failures
    are tried again for `retry` (30 s).  A Deployment scaled to 0 has nothing to prove: ().
    """
    patience = retry or Retry(PATIENCE, base=0.3, cap=3.0)
    for last in (False, False, True):
        pods, desired = _pods(api, key, uid_wanted)
        if others := [f"pod {name(pod)}: {other}" for pod in pods if (other := runs_other(pod, images))]:
            raise _other_image(key, others)
        answers = (
            [_short(len(pods), desired)]
            if len(pods) < desired
            else _ask_all(api, key, pods, lambda pod: endpoints(pod, component, container), wanted, patience)
        )
        failed = [answer for answer in answers if isinstance(answer, str)]
        if not failed:
            return tuple(answer for answer in answers if isinstance(answer, PodAnswer))
        # A pod that is gone, or one too few, is an autoscaler's or a node's doing: its successor is asked.
        if last or not any(answer.startswith(PASSING) for answer in failed):
            raise _unproven(key, wanted, failed)
        patience.sleep(min(SUCCESSOR_SECONDS, patience.patience))
    raise AssertionError("the last pass returns or raises")


def _short(found: int, desired: int) -> str:
    return f"only {found} of {desired} pods are ready to be asked"


def _ask_all(
    api: KubernetesApi, key: DeploymentKey, pods: list[JsonObject], ways: Ways, wanted: Version, retry: Retry
) -> list[PodAnswer | str]:
    """Each pod's answer, or a sentence about why there is none."""

    def ask(pod: JsonObject) -> PodAnswer | str:
        try:
            return retry.call(lambda: _ask(api, key.namespace, pod, ways(pod), wanted))
        except _PodGoneError:
            return f"gone: pod {name(pod)} was deleted while it was asked"
        except _UnansweredError as error:
            return f"pod {name(pod)}: {error.observed}"

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="verify") as pool:
        return list(pool.map(ask, pods))


def _pods(api: KubernetesApi, key: DeploymentKey, uid_wanted: str) -> tuple[list[JsonObject], int]:
    """The ready pods of the present template, and how many there should be."""
    deployment = api.get(deployment_path(key))
    if uid(deployment) != uid_wanted:
        raise DriftError(
            f"Deployment {key} was deleted and made anew by somebody else.",
            observed=f"Its uid is {uid(deployment)}, not {uid_wanted}.",
            safe="It was left as found.",
            next="Go on: it plans from the present state.",
        )
    spec = deployment.get("spec", {})
    selector = selector_text(spec.get("selector") or {})
    sets = api.list(PATHS["replicasets"].format(key.namespace), labels=selector).items
    pods = api.list(PATHS["pods"].format(key.namespace), labels=selector).items
    view = select(deployment, sets, pods)
    new = pods_of(view, new_replicaset(view))
    desired = 1 if spec.get("replicas") is None else int(spec["replicas"])
    return [pod for pod in new if ready(pod) and not terminating(pod) and not finished(pod)], desired


def _ask(api: KubernetesApi, namespace: str, pod: JsonObject, ways: tuple[Endpoint, ...], wanted: Version) -> PodAnswer:
    """One pass over the pod's endpoints; raises `_UnansweredError` where none proves the version."""
    why: list[str] = []
    for endpoint, status, body in _answers(api, namespace, name(pod), ways, why):
        said = verified(body, wanted) if status < 300 else f"HTTP {status}"
        if said:
            why.append(f"{endpoint}: {said}")
            continue
        try:
            health = api.answer(endpoint.path(namespace, name(pod), HEALTH_PATH))
            ill = healthy(health.status, health.text)
        except (TemporaryError, NotFoundError) as error:
            ill = f"its health could not be asked: {error.observed}"
        if ill:
            raise _UnansweredError("A pod is not well.", observed=ill)
        return PodAnswer(name(pod), str(pod["spec"].get("nodeName") or ""), str(wanted), str(endpoint))
    raise _UnansweredError("A pod did not prove its version.", observed="; ".join(_telling(why)))


def _answers(
    api: KubernetesApi, namespace: str, pod: str, ways: tuple[Endpoint, ...], why: list[str]
) -> Iterator[tuple[Endpoint, int, str]]:
    """Each endpoint that answers; what the others say goes to `why`."""
    for endpoint in ways:
        try:
            answer = api.answer(endpoint.path(namespace, pod, VERSION_PATH))
        except (TemporaryError, NotFoundError) as error:
            if 'pods "' in error.observed and isinstance(error, NotFoundError):
                raise _PodGoneError("A pod is gone.", observed=error.observed) from None
            # 503 of the proxy: nothing listens on that port (yet).
            why.append(f"{endpoint}: {error.observed}")
            continue
        yield endpoint, answer.status, answer.text


def _telling(why: list[str]) -> list[str]:
    """What was answered, if anything was; the ports where nothing listens only when nothing else can be told."""
    spoken = [text for text in why if "answers" in text or "answer names" in text]
    return spoken or why[:4]


def _other_image(key: DeploymentKey, others: list[str]) -> UpgradeError:
    return UnprovenError(
        f"{key} runs another image than the one that was proved.",
        observed="\n".join(others),
        safe="Its images are set; nothing after this step was touched.",
        next="The node keeps another image under that name and did not pull it again. Remove it there (ctr -n k8s.io "
        "images rm NAME, or docker rmi NAME), delete the pod, and go on.",
    )


def _unproven(key: DeploymentKey, wanted: Version, failed: list[str]) -> UpgradeError:
    return UnprovenError(
        f"{key} is not proven to run {wanted}.",
        observed="\n".join(failed),
        safe="Its pods are Ready and its images are set; nothing after this step was touched.",
        next=f"Ask a pod by hand: kubectl -n {key.namespace} get --raw "
        f"/api/v1/namespaces/{key.namespace}/pods/POD:PORT/proxy/{VERSION_PATH}. A wrong answer means that the image's "
        "tag does not hold what its name says.",
    )
