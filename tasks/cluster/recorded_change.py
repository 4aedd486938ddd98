"""A Deployment's images set under the journal: what was there is written down before, what was seen after it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime

from tasks.cluster.answers import JsonObject
from tasks.cluster.api import KubernetesApi
from tasks.cluster.conditional_write import PATIENCE, Patch, Sent
from tasks.cluster.image_change import ChangeEvidence, changed_meanwhile, decide, deployment_path, set_images
from tasks.cluster.rollout_view import containers, generation_of, replicas_of, uid
from tasks.domain.discovery import selector_text
from tasks.domain.errors import NotFoundError, UpgradeError
from tasks.domain.journal import Before, Entry
from tasks.domain.step import RolloutStep
from tasks.record.run_record import Done, RunRecord


def change_recorded(api: KubernetesApi, step: RolloutStep, cause: str, record: RunRecord) -> ChangeEvidence:
    """`set_images` between two writes of the journal.

    The Deployment is read first: where its images are there already nothing is written but the end of an entry that
    another try left open, and where it is not as planned nothing at all.  Raises what `set_images` and the record raise.
    """
    patient = api.patient(PATIENCE)
    try:
        found = patient.get(deployment_path(step.key))
    except NotFoundError:
        found = {}
    if not found or not isinstance(decide(found, step, cause), Patch):
        evidence = set_images(api, step, cause, guard=changed_meanwhile(step.key))
        if not evidence.changed:
            record.found_done("set-image", step.key, _seen(evidence))
        return evidence
    labels = selector_text(found["spec"].get("selector") or {})
    pods = patient.list(f"/api/v1/namespaces/{step.key.namespace}/pods", labels=labels).items
    with journalled(record, entry_of(step, before_of(found, pods, step), record.now())) as (done, sent):
        evidence = set_images(api, step, cause, guard=record.require, sent=sent)
        done.evidence = _seen(evidence)
    return evidence


@contextmanager
def journalled(record: RunRecord, entry: Entry) -> Iterator[tuple[Done, Sent]]:
    """`record.changing`, told by `Sent` of a change that failed whether it surely was not made."""
    sent = Sent()
    with record.changing(entry) as done:
        try:
            yield done, sent
        except UpgradeError as error:
            if not sent.perhaps:
                done.refused = error.happened
            raise


def as_found(deployment: JsonObject, names: Iterable[str]) -> Before:
    """The Deployment as it is, with the images of those containers.  Pure."""
    spec, found = deployment["spec"], containers(deployment["spec"]["template"])
    return Before(
        uid=uid(deployment),
        generation=generation_of(deployment),
        replicas=replicas_of(deployment),
        strategy=(spec.get("strategy") or {}).get("type", "RollingUpdate"),
        images={name: str(found[name].get("image", "")) for name in names if name in found},
    )


def before_of(deployment: JsonObject, pods: Iterable[JsonObject], step: RolloutStep) -> Before:
    """The Deployment as it is, as far as the step changes it; `pods` are those of its selector.  Pure."""
    names = [change.container for change in step.changes]
    init = tuple(change.container for change in step.changes if change.init)
    return as_found(deployment, names).model_copy(update={"init": init, "ran": _ran(pods, names)})


def _ran(pods: Iterable[JsonObject], names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The image IDs that the kubelets report for these containers (core/v1 ContainerStatus)."""
    seen: dict[str, set[str]] = {name: set() for name in names}
    for pod in pods:
        status = pod.get("status") or {}
        for one in (*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())):
            if one.get("name") in seen and one.get("imageID"):
                seen[one["name"]].add(str(one["imageID"]))
    return {name: tuple(sorted(ids)) for name, ids in seen.items() if ids}


def entry_of(step: RolloutStep, before: Before, at: datetime) -> Entry:
    """What the journal says before the images are set.  Pure."""
    moves = ", ".join(f"{c.container} from {before.images.get(c.container, '?')} to {c.new}" for c in step.changes)
    return Entry(
        kind="set-image",
        subject=str(step.key),
        key=step.key,
        component=step.component.value,
        will=f"Set the images of {step.key}: {moves}.",
        undo=undo_of(step, before),
        before=before,
        images={change.container: change.new for change in step.changes},
        begun=at,
    )


def undo_of(step: RolloutStep, before: Before) -> str:
    """The command that puts the images back.

    A manager's goes with the database: its old image does not accept what the new one has made of that.
    """
    pairs = " ".join(f"{container}={image}" for container, image in before.images.items())
    command = f"kubectl -n {step.key.namespace} set image deployment/{step.key.name} {pairs}"
    return f"{command}   (after the database was put back: apinizer-upgrade rollback)" if step.is_manager else command


def _seen(evidence: ChangeEvidence) -> dict[str, str | int]:
    return {"generation": evidence.generation_after, "resourceVersion": evidence.resource_version_after}
