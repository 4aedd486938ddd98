"""Set the images of one Deployment, only while it is as it was judged."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tasks.cluster.answers import JsonObject
from tasks.cluster.api import KubernetesApi
from tasks.cluster.conditional_write import AlreadyThere, Change, Decision, Patch, Refuse, Sent, write_as_judged
from tasks.cluster.last_write import last_write, writer_of
from tasks.cluster.rollout_view import containers, uid
from tasks.domain.errors import DriftError
from tasks.domain.inventory import DeploymentKey
from tasks.domain.step import RolloutStep

CHANGE_CAUSE = "kubernetes.io/change-cause"
UNKNOWN = "Whether the Deployment's images were changed is not known; going on looks before it acts."


@dataclass(frozen=True, slots=True)
class ChangeEvidence:
    """What a set-image found and left; images by container name.  `changed` is False where nothing was to do.

    `generation_after` is the smallest metadata.generation that holds the wanted images.
    """

    key: DeploymentKey
    uid: str
    changed: bool
    resource_version_before: str
    resource_version_after: str
    generation_before: int
    generation_after: int
    images_before: dict[str, str]
    images_after: dict[str, str]


def deployment_path(key: DeploymentKey) -> str:
    """The Deployment's path in the API."""
    return f"/apis/apps/v1/namespaces/{key.namespace}/deployments/{key.name}"


def decide(deployment: JsonObject, step: RolloutStep, cause: str = "") -> Decision:
    """What to do with the Deployment as it is now.  Pure."""
    meta, spec = deployment.get("metadata", {}), deployment.get("spec", {})
    again = "See who changed it, and put it back or leave it, then go on: that plans from the present state."
    if uid(deployment) != step.uid:
        return Refuse("it was deleted and made anew since the plan", again)
    if meta.get("deletionTimestamp"):
        return Refuse("it is being deleted", again)
    template = spec.get("template") or {}
    found = containers(template)
    changes: dict[bool, list[JsonObject]] = {False: [], True: []}
    for change in step.changes:
        image = found.get(change.container, {}).get("image")
        if image is None:
            return Refuse(f"its container {change.container} is gone", again)
        if image not in (change.old, change.new):
            return Refuse(f"its container {change.container} runs {image}, planned was {change.old}", again)
        if image != change.new:
            init = change.container in {c.get("name") for c in template.get("spec", {}).get("initContainers") or ()}
            changes[init].append({"name": change.container, "image": change.new})
    if spec.get("paused"):
        return Refuse(
            "it is paused, so no change would be rolled out",
            f"Resume it: kubectl -n {step.key.namespace} rollout resume deployment/{step.key.name}, then go on.",
        )
    if not any(changes.values()):
        return AlreadyThere()
    return Patch(_body(deployment, changes, cause))


def _body(deployment: JsonObject, changes: dict[bool, list[JsonObject]], cause: str) -> JsonObject:
    """The patch: containers merge by name, so all others stay as they are."""
    meta = deployment["metadata"]
    pod: JsonObject = {}
    if changes[False]:
        pod["containers"] = changes[False]
    if changes[True]:
        pod["initContainers"] = changes[True]
    notes = {"annotations": {CHANGE_CAUSE: cause}} if cause else {}
    return {
        "metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"], **notes},
        "spec": {"template": {"spec": pod}},
    }


def set_images(
    api: KubernetesApi,
    step: RolloutStep,
    cause: str = "",
    *,
    guard: Callable[[], None] = lambda: None,
    sent: Sent | None = None,
) -> ChangeEvidence:
    """Make the step's images those of the Deployment, as `write_as_judged` does; raises what it raises."""
    change = Change(
        deployment_path(step.key),
        "strategic",
        decide=lambda now, _: decide(now, step, cause),
        drifted=lambda refusal, found: _drifted(step, refusal, _who(found)),
        unknown=UNKNOWN,
    )
    return _evidence(step, *write_as_judged(api, change, guard, sent))


def _evidence(step: RolloutStep, before: JsonObject, after: JsonObject) -> ChangeEvidence:
    names = [change.container for change in step.changes]

    def images(thing: JsonObject) -> dict[str, str]:
        found = containers(thing["spec"]["template"])
        return {container: str(found[container]["image"]) for container in names if container in found}

    def meta(thing: JsonObject, field: Literal["resourceVersion", "generation"]) -> str:
        return str(thing["metadata"].get(field) or 0)

    return ChangeEvidence(
        key=step.key,
        uid=step.uid,
        changed=images(before) != images(after),
        resource_version_before=meta(before, "resourceVersion"),
        resource_version_after=meta(after, "resourceVersion"),
        generation_before=int(meta(before, "generation")),
        generation_after=int(meta(after, "generation")),
        images_before=images(before),
        images_after=images(after),
    )


def changed_meanwhile(key: DeploymentKey) -> Callable[[], None]:
    """A guard for where the look before found nothing to write, so that no undo was written: it forbids each write."""

    def forbid() -> None:
        raise DriftError(
            f"Deployment {key} was changed between two looks at it.",
            observed="The first found nothing to be done, the second did.",
            safe="It was left as found.",
            next="See who changed it, and put it back or leave it, then go on: that plans from the present state.",
        )

    return forbid


def _who(deployment: JsonObject) -> str:
    """Who wrote the spec last and when; "" where the server does not tell."""
    last = last_write(deployment, lambda e: "f:spec" in (e.get("fieldsV1") or {}) and not e.get("subresource"))
    return "Its spec was last written by {} at {}.".format(*writer_of(last)) if last else ""


def _drifted(step: RolloutStep, refusal: Refuse, who: str) -> DriftError:
    return DriftError(
        f"Deployment {step.key} is not as it was planned: {refusal.why}.",
        observed=who or f"Planned on its version {step.resource_version}, uid {step.uid}.",
        safe="It was left as found.",
        next=refusal.next,
    )
