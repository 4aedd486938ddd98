"""Which Deployments belong to an installation, by the images they run and never by their names.  Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tasks.domain.component import Component, component_of
from tasks.domain.inventory import ComponentContainer, DeploymentFacts, DeploymentKey, Facts
from tasks.domain.reference import ImageReference
from tasks.domain.version import Version

JsonObject = dict[str, Any]


class Correction(Facts):
    """What the operator says about one Deployment or one container of it, against what its image suggests."""

    cluster: str = ""
    namespace: str
    deployment: str
    container: str = ""
    component: Component | None = None
    ignore: bool = False

    def covers(self, key: DeploymentKey, container: str) -> bool:
        """Whether it speaks of this container."""
        return (
            (self.namespace, self.deployment) == (key.namespace, key.name)
            and self.cluster in ("", key.cluster)
            and self.container in ("", container)
        )


def recognised(image: str) -> Component | None:
    """The component that an image is, behind whatever registry and folder, or None.

    `worker` and `cache` are everybody's words, so a part in front of them must say `apinizer`.
    """
    reference = ImageReference.find(image)
    if reference is None or "apinizer" not in reference.prefix.lower():
        return None
    return component_of(reference.repository)


def resembles(image: str) -> bool:
    """Whether an image has a component's name and a version's form, but nothing that says whose it is."""
    reference = ImageReference.find(image)
    return bool(
        reference
        and recognised(image) is None
        and component_of(reference.repository)
        and Version.find(reference.tag) is not None
    )


def deployment_facts(
    deployment: JsonObject, cluster: str, corrections: Sequence[Correction] = ()
) -> DeploymentFacts | None:
    """The facts of a Deployment object (apps/v1), or None where no container of it is a component."""
    meta, spec = deployment["metadata"], deployment["spec"]
    status = deployment.get("status") or {}
    key = DeploymentKey(cluster=cluster, namespace=meta["namespace"], name=meta["name"])
    containers = tuple(_containers(spec["template"]["spec"], key, corrections))
    if not containers:
        return None
    return DeploymentFacts(
        key=key,
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        containers=containers,
        replicas=spec.get("replicas", 1),
        ready=status.get("readyReplicas", 0),
        updated=status.get("updatedReplicas", 0),
        available=status.get("availableReplicas", 0),
        strategy=(spec.get("strategy") or {}).get("type", "RollingUpdate"),
        paused=bool(spec.get("paused")),
        settled=_settled(meta, spec, status),
        kept_by=kept_by(meta),
        selector=selector_text(spec.get("selector") or {}),
    )


def _containers(pod: JsonObject, key: DeploymentKey, corrections: Sequence[Correction]) -> Iterable[ComponentContainer]:
    alone = len(pod.get("containers") or ()) == 1
    for kind in ("containers", "initContainers"):
        for container in pod.get(kind) or ():
            said = [c for c in corrections if c.covers(key, container["name"])]
            if any(c.ignore for c in said):
                continue
            image = container.get("image", "")
            # A correction of the whole Deployment speaks of its components, not of every sidecar beside them.
            meant = _could_be(image) or (alone and kind == "containers")
            named = next((c.component for c in said if c.component and (c.container or meant)), None)
            component = named or recognised(image)
            if component is not None and ImageReference.find(image):
                ports = (p["containerPort"] for p in container.get("ports") or () if p.get("protocol", "TCP") == "TCP")
                yield ComponentContainer(
                    name=container["name"],
                    init=kind == "initContainers",
                    component=component,
                    image=image,
                    ports=tuple(ports),
                    named=named is not None,
                )


def _could_be(image: str) -> bool:
    reference = ImageReference.find(image)
    return reference is not None and Version.find(reference.tag) is not None


def _settled(meta: JsonObject, spec: JsonObject, status: JsonObject) -> bool:
    """As `kubectl rollout status` says "successfully rolled out" (polymorphichelpers/rollout_status.go)."""
    wanted = spec.get("replicas", 1)
    updated = status.get("updatedReplicas", 0)
    return bool(
        status.get("observedGeneration", 0) >= meta.get("generation", 1)
        and updated >= wanted
        and status.get("replicas", 0) == updated
        and status.get("availableReplicas", 0) >= updated
    )


def kept_by(meta: JsonObject) -> str:
    """What else writes this object, by the marks that Helm, Argo CD and Flux leave, or ""."""
    labels: Mapping[str, str] = meta.get("labels") or {}
    annotations: Mapping[str, str] = meta.get("annotations") or {}
    if "argocd.argoproj.io/tracking-id" in annotations or "argocd.argoproj.io/instance" in labels:
        return "Argo CD"
    for prefix in ("kustomize.toolkit.fluxcd.io", "helm.toolkit.fluxcd.io"):
        if f"{prefix}/name" in labels:
            return f"Flux ({labels[f'{prefix}/name']})"
    if "meta.helm.sh/release-name" in annotations:
        return f"the Helm release {annotations['meta.helm.sh/release-name']}"
    return "Helm" if labels.get("app.kubernetes.io/managed-by") == "Helm" else ""


def selector_text(selector: JsonObject) -> str:
    """A LabelSelector (apimachinery meta/v1) as the text that the API takes in `labelSelector`."""
    parts = [f"{k}={v}" for k, v in sorted((selector.get("matchLabels") or {}).items())]
    for rule in selector.get("matchExpressions") or ():
        values = ",".join(rule.get("values") or ())
        forms = {
            "In": f"{rule['key']} in ({values})",
            "NotIn": f"{rule['key']} notin ({values})",
            "Exists": rule["key"],
            "DoesNotExist": f"!{rule['key']}",
        }
        parts.append(forms[rule["operator"]])
    return ",".join(parts)


def lookalikes(deployments: Iterable[JsonObject], corrections: Sequence[Correction]) -> list[str]:
    """Sentences about containers that an upgrade leaves alone and a person should look at: they may be components
    behind a prefix that does not say so.
    """
    sentences = []
    for deployment in deployments:
        where = f"{deployment['metadata']['namespace']}/{deployment['metadata']['name']}"
        pod = deployment["spec"]["template"]["spec"]
        regular = _unsaid(deployment, pod.get("containers") or (), corrections)
        sentences += [
            f"{where} runs {image}, which looks like a component behind a folder of another name; if it is one, say "
            "so with an override."
            for image in regular
            if resembles(image)
        ]
    return sentences


def _unsaid(deployment: JsonObject, containers: Iterable[JsonObject], corrections: Sequence[Correction]) -> list[str]:
    """The images of the containers that no correction speaks of, in whatever cluster."""
    meta = deployment["metadata"]
    return [
        container.get("image", "")
        for container in containers
        if not any(
            c.covers(
                DeploymentKey(cluster=c.cluster, namespace=meta["namespace"], name=meta["name"]), container["name"]
            )
            for c in corrections
        )
    ]
