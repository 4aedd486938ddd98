"""Scale one Deployment, only while it has the count that was seen.

It is a patch of the Deployment and not of its scale subresource: that needs no other right than setting an image does,
and is answered with the generation to be waited for.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tasks.cluster.answers import JsonObject
from tasks.cluster.api import KubernetesApi
from tasks.cluster.conditional_write import AlreadyThere, Change, Decision, Patch, Refuse, Sent, write_as_judged
from tasks.cluster.image_change import deployment_path
from tasks.cluster.last_write import last_write, writer_of
from tasks.cluster.rollout_view import generation_of, replicas_of
from tasks.cluster.rollout_view import uid as uid_of
from tasks.domain.errors import DriftError
from tasks.domain.inventory import DeploymentKey

__all__ = ["STOP_WHO", "ScaleEvidence", "decide_scale", "replicas_of", "scale", "wants", "who_scaled"]

UNKNOWN = "Whether the number of its pods was changed is not known; run again: it looks before it acts."
STOP_WHO = (
    "See who scales it (a deployment tool, an autoscaler, a colleague) and stop that, then go on: what is done already is "
    "found done."
)
"""What to do where somebody scales up again what was scaled to 0."""
UNTOLD = "or since then through its scale, which this API server does not record (kubectl scale, an autoscaler)"


@dataclass(frozen=True, slots=True)
class ScaleEvidence:
    """What a scale found and left.  `changed` is False where nothing was to do.

    `generation_after` is the smallest metadata.generation that has the wanted count.
    """

    key: DeploymentKey
    uid: str
    changed: bool
    replicas_before: int
    replicas_after: int
    generation_before: int
    generation_after: int

    def told(self) -> dict[str, str | int]:
        """For the journal."""
        return {
            "uid": self.uid,
            "changed": "yes" if self.changed else "no",
            "replicas before": self.replicas_before,
            "replicas after": self.replicas_after,
            "generation": self.generation_after,
        }


def wants(count: int) -> str:
    """`wants 2 pods`."""
    return f"wants {count} pod{'' if count == 1 else 's'}"


def decide_scale(deployment: JsonObject, uid: str, replicas: int, expect: int) -> Decision:
    """What to do with the Deployment as it is now, to have `replicas` where `expect` were seen.  Pure."""
    meta = deployment.get("metadata", {})
    if uid_of(deployment) != uid:
        return Refuse("it was deleted and made anew")
    if meta.get("deletionTimestamp"):
        return Refuse("it is being deleted")
    now = replicas_of(deployment)
    if now == replicas:
        return AlreadyThere()
    if now != expect:
        return Refuse(f"somebody else scaled it to {now}, seen was {expect}")
    return Patch({"metadata": {"uid": uid, "resourceVersion": meta["resourceVersion"]}, "spec": {"replicas": replicas}})


def scale(
    api: KubernetesApi,
    key: DeploymentKey,
    uid: str,
    replicas: int,
    *,
    guard: Callable[[], None],
    expect: int | None = None,
    sent: Sent | None = None,
) -> ScaleEvidence:
    """Have the Deployment `uid` want `replicas` pods; wait for none of them.

    `expect` is the count that was seen before, else the one that is found first.  It is written as `write_as_judged`
    does; raises what that raises.
    """

    def decide(now: JsonObject, first: JsonObject) -> Decision:
        return decide_scale(now, uid, replicas, replicas_of(first) if expect is None else expect)

    change = Change(
        deployment_path(key),
        "merge",
        decide=decide,
        drifted=lambda refusal, found: _drifted(key, refusal, who_scaled(found)),
        unknown=UNKNOWN,
    )
    return _evidence(key, *write_as_judged(api, change, guard, sent))


def who_scaled(deployment: JsonObject) -> str:
    """Who wrote spec.replicas last and when; "" where the server does not tell.

    Servers before Kubernetes 1.22 name no subresource (later ones do for the status, which every Deployment has) and
    keep the old writer when a count comes through the scale, which is how kubectl scale and autoscalers write: measured
    on 1.20.
    """
    last = last_write(deployment, lambda e: "f:replicas" in ((e.get("fieldsV1") or {}).get("f:spec") or {}))
    if last is None:
        return ""
    through = " through its scale" if last.get("subresource") == "scale" else ""
    who, when = writer_of(last)
    told = f"The number of its pods was last written by {who}{through} at {when}"
    records_scale = last_write(deployment, lambda e: bool(e.get("subresource"))) is not None
    return f"{told}." if records_scale else f"{told}, {UNTOLD}."


def _evidence(key: DeploymentKey, before: JsonObject, after: JsonObject) -> ScaleEvidence:
    return ScaleEvidence(
        key=key,
        uid=uid_of(after),
        changed=replicas_of(before) != replicas_of(after),
        replicas_before=replicas_of(before),
        replicas_after=replicas_of(after),
        generation_before=generation_of(before),
        generation_after=generation_of(after),
    )


def _drifted(key: DeploymentKey, refusal: Refuse, who: str) -> DriftError:
    return DriftError(
        f"Deployment {key} cannot be scaled: {refusal.why}.",
        observed=who or "The API server does not tell who changed it.",
        safe="It was left as found.",
        next="See who changed it (a colleague, an autoscaler, a deployment tool), then run again: it looks before it acts.",
    )
