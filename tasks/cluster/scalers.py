"""What would scale a Deployment up again by itself: autoscalers and GitOps controllers.  Pure, over plain JSON objects.

Whoever acts at 0 replicas is blocking, with the commands that pause it and let it go on; who acts only later, or only
when a person does something, is a warning.  What may not be read is a warning too, never silence.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.cluster.answers import JsonObject
from tasks.cluster.rollout_view import name
from tasks.domain.discovery import kept_by
from tasks.domain.finding import Finding, Severity, blocking, info, warning
from tasks.domain.inventory import DeploymentKey

PAUSED = "autoscaling.keda.sh/paused"
PAUSED_REPLICAS = "autoscaling.keda.sh/paused-replicas"
ARGO_TRACKING, ARGO_INSTANCE = "argocd.argoproj.io/tracking-id", "argocd.argoproj.io/instance"
FLUX = {"kustomize.toolkit.fluxcd.io": "kustomization", "helm.toolkit.fluxcd.io": "helmrelease"}


@dataclass(frozen=True, slots=True)
class Keeper:
    """The object of a GitOps controller that a Deployment's marks name.

    `kind` is "application" (Argo CD), "kustomization" or "helmrelease" (Flux); `namespace` is "" where the mark does not
    say it.
    """

    kind: str
    namespace: str
    name: str


def keeper(deployment: JsonObject) -> Keeper | None:
    """Which object keeps the Deployment, by the marks that `discovery.kept_by` goes by; None for Helm and for nobody.

    Argo CD's tracking id is APPLICATION:GROUP/KIND:NAMESPACE/NAME, the application with its namespace in front
    (NAMESPACE_NAME) where applications may be in any namespace.
    """
    meta = deployment.get("metadata", {})
    labels: Mapping[str, str] = meta.get("labels") or {}
    annotations: Mapping[str, str] = meta.get("annotations") or {}
    if tracking := annotations.get(ARGO_TRACKING) or labels.get(ARGO_INSTANCE):
        space, _, application = tracking.partition(":")[0].rpartition("_")
        return Keeper("application", space, application)
    for prefix, kind in FLUX.items():
        if f"{prefix}/name" in labels:
            return Keeper(kind, labels.get(f"{prefix}/namespace", ""), labels[f"{prefix}/name"])
    return None


def findings(
    key: DeploymentKey,
    deployment: JsonObject,
    autoscalers: Iterable[JsonObject] = (),
    scaled_objects: Iterable[JsonObject] = (),
    kept: JsonObject | None = None,
    unread: str = "",
) -> tuple[Finding, ...]:
    """What would scale one Deployment up again.

    `autoscalers` are the HorizontalPodAutoscalers (autoscaling/v1 and v2 alike) and `scaled_objects` KEDA's
    ScaledObjects of its namespace; `kept` is the object of its `keeper`, None where it could not be read, for the
    reason `unread`.
    """
    return in_order(
        (
            *(f for a in autoscalers if _targets(a, key) and not _of_keda(a) for f in _autoscaler(key, a)),
            *(f for s in scaled_objects if _targets(s, key) for f in _scaled_object(key, s)),
            *_keeper(key, deployment, kept, unread),
        )
    )


def in_order(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Each once, the blocking ones first."""
    order = list(Severity)
    return tuple(sorted(dict.fromkeys(found), key=lambda f: order.index(f.severity)))


def unseen(what: str, why: str, question: str) -> Finding:
    """The warning that something could not be looked at."""
    return warning(
        "scalers-unseen",
        f"Whether {what} could not be seen: {why}",
        f"Look yourself: {question}. The number of pods is watched, and the run stops when somebody changes it.",
    )


def _targets(scaler: JsonObject, key: DeploymentKey) -> bool:
    """Whether its spec.scaleTargetRef names the Deployment; KEDA's kind is Deployment where none is given."""
    target = (scaler.get("spec") or {}).get("scaleTargetRef") or {}
    group = str(target.get("apiVersion") or "apps/v1").partition("/")[0]
    return (
        target.get("name") == key.name
        and target.get("kind", "Deployment") == "Deployment"
        and group in ("apps", "extensions")  # an old autoscaler may still name extensions/v1beta1
        and scaler.get("metadata", {}).get("namespace") == key.namespace
    )


def _of_keda(autoscaler: JsonObject) -> bool:
    owners = autoscaler.get("metadata", {}).get("ownerReferences") or ()
    return any(owner.get("kind") == "ScaledObject" for owner in owners)


def _autoscaler(key: DeploymentKey, scaler: JsonObject) -> Iterator[Finding]:
    """An HPA does nothing while its target has 0 replicas, unless its own minimum is 0 (HPAScaleToZero).

    Source: reconcileAutoscaler of pkg/controller/podautoscaler/horizontal.go: "Autoscaling is disabled for this
    resource" where scale.Spec.Replicas == 0 and minReplicas != 0.
    """
    given = (scaler.get("spec") or {}).get("minReplicas")
    least, who = 1 if given is None else int(given), f"The autoscaler {name(scaler)}"
    if least == 0:
        patch = f"kubectl patch hpa {name(scaler)} -n {key.namespace} --type merge -p"
        one, none = (f"""'{{"spec":{{"minReplicas":{count}}}}}'""" for count in (1, 0))
        yield blocking(
            "autoscaler",
            f"{who} scales {key} from 0 up by itself: its minReplicas is 0.",
            f"With a minimum of 1 it does nothing while there are 0 pods: {patch} {one}. Afterwards: {patch} {none}.",
        )
    else:
        more = f" and brings it to {least} pods as soon as it has one" if least > 1 else ""
        yield warning(
            "autoscaler-later",
            f"{who} does nothing while {key} has 0 pods; it acts again when the first one is started{more}.",
        )


def _scaled_object(key: DeploymentKey, scaler: JsonObject) -> Iterator[Finding]:
    """KEDA scales 0 to its minimum at once, and 0 to 1 whenever a trigger is active.

    Source: pkg/scaling/executor/scale_scaledobjects.go (RequestScale) of kedacore/keda; the pause is an annotation,
    `paused-replicas` scales to that count and holds it there.
    """
    notes: Mapping[str, str] = scaler.get("metadata", {}).get("annotations") or {}
    held = notes.get(PAUSED_REPLICAS)
    one = f"scaledobject {name(scaler)} -n {key.namespace}"
    if held not in (None, "", "0"):
        yield blocking(
            "keda",
            f"KEDA's ScaledObject {name(scaler)} holds {key} at {held} pods (paused-replicas).",
            f"kubectl annotate {one} {PAUSED_REPLICAS}=0 --overwrite. Afterwards: ...{PAUSED_REPLICAS}={held} --overwrite.",
        )
    elif held == "0":
        yield warning(
            "keda-later",
            f"KEDA's ScaledObject {name(scaler)} holds {key} at 0 pods (paused-replicas), also when it is started again.",
            f"Before it is started: kubectl annotate {one} {PAUSED}=true {PAUSED_REPLICAS}- --overwrite.",
        )
    elif notes.get(PAUSED, "false").lower() == "true":
        yield info("keda-paused", f"KEDA's ScaledObject {name(scaler)} of {key} is paused.")
    else:
        yield blocking(
            "keda",
            f"KEDA's ScaledObject {name(scaler)} scales {key} up again.",
            f"Pause it: kubectl annotate {one} {PAUSED}=true. Afterwards: kubectl annotate {one} {PAUSED}-. "
            "See that its status says Paused: KEDA before 2.8 knows no pause, there the ScaledObject is to be removed "
            "for the time.",
        )


def _keeper(key: DeploymentKey, deployment: JsonObject, kept: JsonObject | None, unread: str) -> Iterator[Finding]:
    by, who = keeper(deployment), kept_by(deployment.get("metadata", {}))
    if by is None:
        if who:
            yield warning(
                "kept-by-helm",
                f"{key} is of {who}: `helm upgrade` or `helm rollback` would scale it up. Nothing does so by itself.",
                "See that no pipeline or colleague does meanwhile.",
            )
        return
    pause = _pause(by)
    if kept is None:
        yield warning(
            "keeper-unseen",
            f"{key} is kept by {who}, which may scale it up again by itself; whether it does could not be read: {unread}",
            f"Pause it: {pause} The number of pods is watched, and the run stops when somebody changes it.",
        )
    elif by.kind == "application":
        yield from _application(key, by, kept.get("spec") or {}, pause)
    else:
        yield from _flux(key, deployment, by, kept.get("spec") or {}, pause)


def _application(key: DeploymentKey, by: Keeper, spec: Mapping[str, Any], pause: str) -> Iterator[Finding]:
    """Argo CD reverts drift where automated sync self-heals; `enabled: false` switches both off.

    Source: argo-cd.readthedocs.io, Automated Sync Policy.
    """
    automated = (spec.get("syncPolicy") or {}).get("automated")
    if automated is None or automated.get("enabled") is False:
        yield info("argocd-paused", f"The Argo CD application {by.name} of {key} does not synchronise by itself.")
    elif automated.get("selfHeal") and not _ignores_replicas(spec):
        yield blocking(
            "argocd", f"The Argo CD application {by.name} heals itself: it would scale {key} up again at once.", pause
        )
    else:
        yield warning(
            "argocd-later",
            f"The Argo CD application {by.name} of {key} synchronises by itself when its source changes, and may then "
            "scale it up.",
            pause,
        )


def _ignores_replicas(spec: Mapping[str, Any]) -> bool:
    """Whether a difference of spec.replicas counts as none for Deployments (spec.ignoreDifferences)."""
    return any(
        rule.get("kind") in ("Deployment", "*")
        and (
            "/spec/replicas" in (rule.get("jsonPointers") or ())
            or ".spec.replicas" in (rule.get("jqPathExpressions") or ())
        )
        and not rule.get("name")
        for rule in spec.get("ignoreDifferences") or ()
    )


def _flux(
    key: DeploymentKey, deployment: JsonObject, by: Keeper, spec: Mapping[str, Any], pause: str
) -> Iterator[Finding]:
    """A Kustomization puts back at each interval what it applies; a HelmRelease only where it detects drift.

    Source: fluxcd.io, Kustomization and HelmRelease (spec.suspend, spec.driftDetection.mode, the annotation
    kustomize.toolkit.fluxcd.io/reconcile: disabled).
    """
    notes: Mapping[str, str] = deployment.get("metadata", {}).get("annotations") or {}
    if spec.get("suspend") or notes.get("kustomize.toolkit.fluxcd.io/reconcile") == "disabled":
        yield info("flux-paused", f"Flux's {by.kind} {by.name} of {key} is suspended.")
    elif by.kind == "kustomization" or (spec.get("driftDetection") or {}).get("mode") == "enabled":
        every = f" every {spec['interval']}" if spec.get("interval") else ""
        yield blocking("flux", f"Flux's {by.kind} {by.name} applies {key} again{every}, and would scale it up.", pause)
    else:
        yield warning(
            "flux-later",
            f"Flux's {by.kind} {by.name} of {key} scales it up when its chart or its values change.",
            pause,
        )


def _pause(by: Keeper) -> str:
    """The commands that pause a keeper, and those that let it go on."""
    if by.kind == "application":
        where = f" -n {by.namespace}" if by.namespace else " -n argocd"
        patch = f"kubectl patch application {by.name}{where} --type merge -p"
        off, on = (
            f"""'{{"spec":{{"syncPolicy":{{"automated":{{"selfHeal":{word}}}}}}}}}'""" for word in ("false", "true")
        )
        return (
            f"argocd app set {by.name} --self-heal=false, or {patch} {off} (not where an ApplicationSet writes it: "
            f"there). Afterwards: --self-heal, or {patch} {on}."
        )
    where = f" -n {by.namespace}" if by.namespace else ""
    return f"flux suspend {by.kind} {by.name}{where}. Afterwards: flux resume {by.kind} {by.name}{where}."
