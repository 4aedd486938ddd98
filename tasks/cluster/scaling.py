"""Scale one Deployment, only while it has the count that was seen.

The patch names metadata.uid and metadata.resourceVersion, so the API server refuses it (409) when anybody wrote in
between; then the object is read and decided again.  It is a patch of the Deployment and not of its scale subresource:
that needs no other right than setting an image does, and is answered with the generation to be waited for.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tasks.cluster.answers import JsonObject, ServerAwayError
from tasks.cluster.api import KubernetesApi
from tasks.cluster.image_change import PATIENCE, TRIES, Sent, deployment_path, write
from tasks.cluster.rollout_view import uid as uid_of
from tasks.domain.errors import ConflictError, DriftError, NotFoundError, UpgradeError
from tasks.domain.inventory import DeploymentKey

UNKNOWN = "Whether the number of its pods was changed is not known; run again: it looks before it acts."
UNTOLD = "or since then through its scale, which this API server does not record (kubectl scale, an autoscaler)"


@dataclass(frozen=True, slots=True)
class Patch:
    """Make this merge patch."""

    body: JsonObject


@dataclass(frozen=True, slots=True)
class AlreadyThere:
    """It has the wanted count: nothing to write."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The Deployment is not as it was seen; `why` in a part of a sentence."""

    why: str


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


def replicas_of(deployment: JsonObject) -> int:
    """The wanted count of a Deployment, which is 1 where none is given (apps/v1)."""
    count = (deployment.get("spec") or {}).get("replicas")
    return 1 if count is None else int(count)


def decide_scale(deployment: JsonObject, uid: str, replicas: int, expect: int) -> Patch | AlreadyThere | Refuse:
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

    `expect` is the count that was seen before, else the one that is found first.  `guard` is asked right before every
    request that writes, repeated ones too, and what it raises ends it; `sent` tells afterwards whether one of them may
    have been made.  Raises `DriftError` where somebody else changed the Deployment (it is left as
    found), `ConflictError` when others write to it faster than it can be decided, and the errors of `KubernetesApi`.
    A patch whose answer was lost is not repeated blindly: the object is read, and says whether it was made.
    """
    sent = sent or Sent()
    try:
        return _scale(api, key, uid, replicas, guard, expect, sent)
    except UpgradeError as error:
        if sent.perhaps:
            raise error.with_safe(UNKNOWN) from None
        raise


def _scale(
    api: KubernetesApi,
    key: DeploymentKey,
    uid: str,
    replicas: int,
    guard: Callable[[], None],
    expect: int | None,
    sent: Sent,
) -> ScaleEvidence:
    patient, path = api.patient(PATIENCE), deployment_path(key)
    first: JsonObject | None = None
    last: ConflictError | ServerAwayError | None = None
    for _ in range(TRIES):
        try:
            found = patient.get(path)
        except NotFoundError as error:
            raise _drifted(key, "it is gone", "") from error
        first = first or found
        decision = decide_scale(found, uid, replicas, replicas_of(first) if expect is None else expect)
        match decision:
            case Refuse():
                raise _drifted(key, decision.why, who_scaled(found))
            case AlreadyThere():
                return _evidence(key, first, found)
            case Patch():
                try:
                    return _evidence(key, first, write(patient, path, decision.body, "merge", guard, sent))
                except (ConflictError, ServerAwayError) as error:
                    last = error  # read again, decide again; a lost answer is found done as AlreadyThere
    if last is None:
        raise AssertionError("no try was made")
    raise last


def who_scaled(deployment: JsonObject) -> str:
    """Who wrote spec.replicas last and when, by metadata.managedFields; "" where the server keeps none.

    An entry is of one writer: its own name, or the subresource it wrote through.  Servers before Kubernetes 1.22 name no
    subresource (later ones do for the status, which every Deployment has) and keep the old writer when a count comes
    through the scale, which is how kubectl scale and autoscalers write: measured on 1.20.
    """
    kept = deployment.get("metadata", {}).get("managedFields") or ()
    entries = [entry for entry in kept if "f:replicas" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})]
    last = max(entries, key=lambda entry: str(entry.get("time") or ""), default=None)
    if last is None:
        return ""
    through = " through its scale" if last.get("subresource") == "scale" else ""
    who, when = last.get("manager") or "an unnamed writer", last.get("time") or "an unknown time"
    told = f"The number of its pods was last written by {who}{through} at {when}"
    return f"{told}." if any(entry.get("subresource") for entry in kept) else f"{told}, {UNTOLD}."


def _evidence(key: DeploymentKey, before: JsonObject, after: JsonObject) -> ScaleEvidence:
    return ScaleEvidence(
        key=key,
        uid=uid_of(after),
        changed=replicas_of(before) != replicas_of(after),
        replicas_before=replicas_of(before),
        replicas_after=replicas_of(after),
        generation_before=int(before["metadata"].get("generation") or 0),
        generation_after=int(after["metadata"].get("generation") or 0),
    )


def _drifted(key: DeploymentKey, why: str, who: str) -> DriftError:
    return DriftError(
        f"Deployment {key} cannot be scaled: {why}.",
        observed=who or "The API server does not tell who changed it.",
        safe="It was left as found.",
        next="See who changed it (a colleague, an autoscaler, a deployment tool), then run again: it looks before it acts.",
    )
