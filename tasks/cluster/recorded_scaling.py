"""A Deployment scaled under the journal: what was there is written down before, what was seen after it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from tasks.cluster.answers import JsonObject
from tasks.cluster.api import KubernetesApi
from tasks.cluster.conditional_write import PATIENCE, Patch
from tasks.cluster.image_change import changed_meanwhile, deployment_path
from tasks.cluster.recorded_change import as_found, journalled
from tasks.cluster.rollout import RolloutProgress, wait_ready
from tasks.cluster.rollout_view import containers, replicas_of
from tasks.cluster.scaling import ScaleEvidence, decide_scale, scale, who_scaled
from tasks.cluster.watch import WatchHub
from tasks.domain.component import Component
from tasks.domain.errors import NotFoundError
from tasks.domain.inventory import DeploymentKey
from tasks.domain.journal import Entry
from tasks.domain.step import RolloutStep
from tasks.record.run_record import RunRecord


@dataclass(frozen=True, slots=True)
class Scaled:
    """What is scaled: a Deployment as it was planned on."""

    key: DeploymentKey
    uid: str
    component: Component


def scale_recorded(
    api: KubernetesApi, what: Scaled, replicas: int, record: RunRecord, *, expect: int | None = None
) -> ScaleEvidence:
    """`scale` between two writes of the journal, which asks for the lock right before each write.

    The Deployment is read first: where it has that count already nothing is written but the end of an entry that
    another try left open.  Raises what `scale` and the record raise.
    """
    try:
        found = api.patient(PATIENCE).get(deployment_path(what.key))
    except NotFoundError:
        found = {}
    seen = replicas_of(found) if expect is None else expect
    if not found or not isinstance(decide_scale(found, what.uid, replicas, seen), Patch):
        evidence = scale(api, what.key, what.uid, replicas, guard=changed_meanwhile(what.key), expect=expect)
        record.found_done("scale", what.key, evidence.told())
        return evidence
    with journalled(record, scale_entry(what, found, replicas, record.now())) as (done, sent):
        evidence = scale(api, what.key, what.uid, replicas, guard=record.require, expect=seen, sent=sent)
        done.evidence = evidence.told()
    return evidence


def scale_entry(what: Scaled, deployment: JsonObject, replicas: int, at: datetime) -> Entry:
    """What the journal says before the Deployment as it is is scaled.  Pure."""
    before = replicas_of(deployment)
    return Entry(
        kind="scale",
        subject=str(what.key),
        key=what.key,
        component=what.component.value,
        will=f"Scale {what.key} from {before} to {replicas}.",
        undo=f"kubectl scale deployment {what.key.name} -n {what.key.namespace} --replicas={before}",
        before=as_found(deployment, containers(deployment["spec"]["template"])),
        replicas=replicas,
        begun=at,
    )


def scale_up_recorded(
    hub: WatchHub,
    step: RolloutStep,
    replicas: int,
    record: RunRecord,
    *,
    deadline_seconds: float,
    progress: Callable[[RolloutProgress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda _: None,
) -> int:
    """One pod of the step's images, Ready, then all `replicas`, Ready; the count that it has then.

    `deadline_seconds` is of each of the two waits.  What has pods already is not scaled down to one first: another try
    or an autoscaler brought it there; a count that somebody else chose meanwhile is left, and told by `say`.  Raises
    what `scale_recorded` and `wait_ready` raise.
    """
    what = Scaled(step.key, step.uid, step.component)
    api = hub.api.patient(PATIENCE)

    def ready(*, fresh: bool) -> None:
        wait_ready(hub, step, deadline_seconds=deadline_seconds, fresh=fresh, progress=progress, stop=stop)

    def count() -> tuple[int, str]:
        found = api.get(deployment_path(step.key))
        return replicas_of(found), who_scaled(found)

    if replicas == 0:
        return scale_recorded(hub.api, what, 0, record).replicas_after
    begun = count()[0] == 0
    if begun:
        scale_recorded(hub.api, what, 1, record, expect=0)
    ready(fresh=begun)
    now, who = count()
    if now == replicas or now != 1:
        if now != replicas:
            say(f"{step.key} wants {now} pods, not the {replicas} of before; it is left so. {who}".strip())
        record.found_done("scale", step.key, {"replicas after": now})
        return now
    scale_recorded(hub.api, what, replicas, record, expect=1)
    ready(fresh=True)
    return replicas
