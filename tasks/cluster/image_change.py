"""Set the images of one Deployment, only while it is as it was judged.

The patch names metadata.uid and metadata.resourceVersion, so the API server refuses it (409) when anybody wrote in
between; then the object is read and decided again.  An edit of somebody else's is never overwritten.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from tasks.cluster.answers import JsonObject, ServerAwayError
from tasks.cluster.api import KubernetesApi, PatchType
from tasks.cluster.rollout_view import containers, uid
from tasks.domain.errors import ConflictError, DriftError, NotFoundError, TemporaryError, UpgradeError
from tasks.domain.inventory import DeploymentKey
from tasks.domain.step import RolloutStep

CHANGE_CAUSE = "kubernetes.io/change-cause"
TRIES = 6
UNKNOWN = "Whether the Deployment's images were changed is not known; going on looks before it acts."
PATIENCE = 60.0  # an API server that restarts is back by then


@dataclass(slots=True)
class Sent:
    """Of the writes of one change, how many may have been made: those that were not answered by a refusal.

    Only a write's own answer tells: what a later look is refused says nothing of it.
    """

    perhaps: int = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Around one write, which is not repeated inside."""
        self.perhaps += 1
        try:
            yield
        except UpgradeError as error:
            if not isinstance(error, ServerAwayError) or error.unsent:
                self.perhaps -= 1
            raise


@dataclass(frozen=True, slots=True)
class Patch:
    """Make this strategic-merge patch."""

    body: JsonObject


@dataclass(frozen=True, slots=True)
class AlreadyThere:
    """Every image is already the wanted one: nothing to write."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The Deployment is not as it was planned; `why` in a sentence, `next` what to do."""

    why: str
    next: str


Decision = Patch | AlreadyThere | Refuse


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
    """Make the step's images those of the Deployment.

    `guard` is asked right before every request that writes, repeated ones too, and raises where it must not be sent;
    `sent` tells afterwards whether one of them may have been made.
    Raises `DriftError` where somebody else changed it since it was judged (it is left as found), `ConflictError`
    when others write to it faster than it can be decided, and the errors of `KubernetesApi`.  A patch whose
    answer was lost is not repeated blindly: the object is read, and says whether it was made.
    """
    sent = sent or Sent()
    try:
        return _set_images(api, step, cause, guard, sent)
    except UpgradeError as error:
        if sent.perhaps:
            raise error.with_safe(UNKNOWN) from None
        raise


def _set_images(
    api: KubernetesApi, step: RolloutStep, cause: str, guard: Callable[[], None], sent: Sent
) -> ChangeEvidence:
    patient, path = api.patient(PATIENCE), deployment_path(step.key)
    first: JsonObject | None = None
    last: ConflictError | ServerAwayError | None = None
    for _ in range(TRIES):
        try:
            found = patient.get(path)
        except NotFoundError as error:
            raise _drifted(step, "it is gone", "See who deleted it.", "") from error
        first = first or found
        decision = decide(found, step, cause)
        match decision:
            case Refuse():
                raise _drifted(step, decision.why, decision.next, _who(found))
            case AlreadyThere():
                return _evidence(step, first, found)
            case Patch():
                try:
                    return _evidence(step, first, write(patient, path, decision.body, "strategic", guard, sent))
                except (ConflictError, ServerAwayError) as error:
                    last = error  # read again, decide again; a lost answer is found done as AlreadyThere
    if last is None:
        raise AssertionError("no try was made")
    raise last


def write(
    patient: KubernetesApi, path: str, body: JsonObject, how: PatchType, guard: Callable[[], None], sent: Sent
) -> JsonObject:
    """Patch, and again while it surely never arrived, as long as `patient` is; `guard` is asked before every request."""
    once = patient.patient(0)

    def one() -> JsonObject:
        guard()
        with sent.one():
            return once.patch(path, body, how)

    return patient.retry.call(one, again=_never_arrived)


def _never_arrived(error: TemporaryError) -> bool:
    return isinstance(error, ServerAwayError) and error.unsent


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
    """Who wrote the spec last and when, by metadata.managedFields; "" where the server keeps none."""
    entries = [
        entry
        for entry in deployment.get("metadata", {}).get("managedFields") or ()
        if "f:spec" in (entry.get("fieldsV1") or {}) and entry.get("subresource") in (None, "")
    ]
    last = max(entries, key=lambda entry: str(entry.get("time") or ""), default=None)
    if last is None:
        return ""
    return f"Its spec was last written by {last.get('manager') or 'an unnamed writer'} at {last.get('time') or '?'}."


def _drifted(step: RolloutStep, why: str, what_next: str, who: str) -> DriftError:
    return DriftError(
        f"Deployment {step.key} is not as it was planned: {why}.",
        observed=who or f"Planned on its version {step.resource_version}, uid {step.uid}.",
        safe="It was left as found.",
        next=what_next,
    )
