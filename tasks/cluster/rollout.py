"""Wait until one Deployment's rollout is proven ready, woken by watch events.

The loop holds no rule: `verdict.judge` decides, `diagnosis` tells.  What ends a wait badly is looked at once more with
fresh reads first, since a cache may be behind (the API server was away, the connection is half open).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tasks.cluster.answers import JsonObject
from tasks.cluster.api import KubernetesApi
from tasks.cluster.diagnosis import diagnose, read_symptoms
from tasks.cluster.image_change import deployment_path
from tasks.cluster.pod_state import PodLine
from tasks.cluster.rollout_view import RolloutView, generation_of, select
from tasks.cluster.verdict import Counts, State, Verdict, Wanted, judge, remember, stale_evidence
from tasks.cluster.watch import PATHS, View, WatchHub
from tasks.domain.discovery import selector_text
from tasks.domain.errors import NotFoundError, StoppedError, TemporaryError, UpgradeError
from tasks.domain.inventory import DeploymentKey
from tasks.domain.step import RolloutStep

LISTEN = 0.5  # seconds between two looks at `stop`
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class RolloutProgress:
    """How a rollout stands now; `text` is one line for people, e.g. `2 of 3 pods updated, 1 ready, 1 old leaving`."""

    key: DeploymentKey
    counts: Counts
    state: State
    reason: str
    text: str
    pods: tuple[PodLine, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class RolloutEvidence:
    """What was seen when the rollout was proven ready; `seconds` is how long it was waited for."""

    key: DeploymentKey
    uid: str
    generation: int
    counts: Counts
    pods: tuple[PodLine, ...]
    seconds: float


def wait_ready(
    hub: WatchHub,
    step: RolloutStep,
    *,
    deadline_seconds: float,
    fresh: bool = True,
    progress: Callable[[RolloutProgress], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    stop: Callable[[], bool] = lambda: False,
) -> RolloutEvidence:
    """Block until the step's images run in ready pods.

    `fresh` is False where the images were set by a former run: pods that it left in trouble are given the kubelet's
    next try, since the cause may be mended by now.
    `progress` is called at each change of its text (counts, the state of a pod that is in the way).  `stop` is asked at least each second.
    Raises `RolloutError` as soon as it is hopeless or, at `deadline_seconds`, slow; `DriftError` when somebody
    else changed the Deployment; `StoppedError`; `ForbiddenError` or `UnauthorizedError` of the watches.
    """
    begin = clock()
    with hub.view(step.key.namespace) as view:  # the lists run while the Deployment is read
        wanted = _wanted(hub.api.patient(min(PATIENCE, deadline_seconds)), step)
        return _Wait(hub.api, view, step, wanted, begin, deadline_seconds, clock, fresh).run(progress, stop)


def _wanted(api: KubernetesApi, step: RolloutStep) -> Wanted:
    """What to wait for, from a fresh read: a shared cache may still show the Deployment before the change."""
    try:
        found = api.get(deployment_path(step.key))
        generation = generation_of(found)
    except NotFoundError:
        generation = 0  # the verdict says that it is gone
    images = {change.container: change.new for change in step.changes}
    return Wanted(step.uid, generation, images, patient=step.is_manager)


@dataclass
class _Wait:
    """One wait: the objects it reads, what it remembers, when it ends."""

    api: KubernetesApi
    view: View
    step: RolloutStep
    wanted: Wanted
    begin: float
    deadline_seconds: float
    clock: Callable[[], float]
    fresh: bool = True
    memory: dict[str, float] = field(default_factory=dict)
    told: str = ""
    served: bool = False

    def run(self, progress: Callable[[RolloutProgress], None], stop: Callable[[], bool]) -> RolloutEvidence:
        end = self.begin + self.deadline_seconds
        while True:
            version = self.view.version
            verdict = self._verdict()
            if verdict is not None:
                self._tell(verdict, progress)
                if verdict.state is State.READY:
                    return self._evidence(verdict)
                if verdict.state is not State.PROGRESSING:
                    self._confirm_end()
            now = self.clock()
            if stop():
                raise self._stopped()
            if now >= end:
                raise self._slow(verdict)
            wake = min(end, now + LISTEN, verdict.wake if verdict and verdict.wake else end)
            self.view.wait(version, max(0.01, wake - now))

    def _verdict(self) -> Verdict | None:
        """The verdict on the cache, or None before the first lists are in."""
        if not self.view.synced():
            return None
        return self._judge(self._select(*(self.view.objects(kind) for kind in PATHS)))

    def _select(
        self, deployments: tuple[JsonObject, ...], sets: tuple[JsonObject, ...], pods: tuple[JsonObject, ...]
    ) -> RolloutView:
        name = self.step.key.name
        deployment = next((d for d in deployments if d.get("metadata", {}).get("name") == name), None)
        return select(deployment, sets, pods)

    def _judge(self, view: RolloutView) -> Verdict:
        now = self.clock()
        if not self.fresh:
            self.fresh = True
            self.wanted = replace(self.wanted, stale=stale_evidence(view))
        self.memory = remember(self.memory, view, now)
        verdict = judge(view, self.wanted, now, self.memory)
        self.served = self.served or verdict.counts.ready > 0
        return verdict

    def _confirm_end(self) -> None:
        """Look again with fresh reads; raises the diagnosis where it stands, returns where it does not."""
        namespace = self.step.key.namespace
        hasty = self.api.patient(2)
        try:
            deployment: JsonObject | None = hasty.get(deployment_path(self.step.key))
        except NotFoundError:
            deployment = None
        except TemporaryError:
            return  # the API server is away: nothing that the cache says is fresh
        try:
            selector = selector_text((deployment or {}).get("spec", {}).get("selector") or {})
            sets = hasty.list(PATHS["replicasets"].format(namespace), labels=selector).items
            pods = hasty.list(PATHS["pods"].format(namespace), labels=selector).items
        except TemporaryError:
            return
        verdict = self._judge(select(deployment, sets, pods))
        if verdict.state in (State.HOPELESS, State.DRIFTED):
            symptoms = read_symptoms(self.api, namespace, verdict)
            raise diagnose(self.step, verdict, symptoms, self.clock() - self.begin, served=self.served)

    def _tell(self, verdict: Verdict, progress: Callable[[RolloutProgress], None]) -> None:
        if verdict.state is State.DRIFTED:
            return  # its counts are of nothing: the error that comes says what was found
        text = _text(verdict)
        state = f"{verdict.state} {text}"
        if state == self.told:
            return
        self.told = state
        seconds = self.clock() - self.begin
        progress(
            RolloutProgress(self.step.key, verdict.counts, verdict.state, verdict.reason, text, verdict.pods, seconds)
        )

    def _evidence(self, verdict: Verdict) -> RolloutEvidence:
        seconds = self.clock() - self.begin
        return RolloutEvidence(
            self.step.key, self.wanted.uid, self.wanted.generation, verdict.counts, verdict.pods, seconds
        )

    def _slow(self, verdict: Verdict | None) -> UpgradeError:
        trouble = self.view.trouble()
        if verdict is None or (trouble and verdict.state is not State.PROGRESSING):
            said = "the cluster could not be watched" + (f": {trouble}" if trouble else "")
            verdict = Verdict(State.PROGRESSING, "NotSeen", said)
        return diagnose(
            self.step,
            verdict,
            read_symptoms(self.api, self.step.key.namespace, verdict),
            self.clock() - self.begin,
        )

    def _stopped(self) -> StoppedError:
        return StoppedError(
            f"The wait for {self.step.key} was ended.",
            observed=self.told and "It was not Ready yet.",
            safe="Its images are set; the rollout goes on in the cluster.",
            next="Go on when you are ready: what is done already is found done.",
        )


def _text(verdict: Verdict) -> str:
    counts = verdict.counts
    if counts.desired == 0:
        return f"scaled to 0, {counts.old + counts.updated} pods left"
    text = f"{counts.updated} of {counts.desired} pods updated, {counts.ready} ready"
    if counts.old:
        leaving = any(pod.terminating for pod in verdict.pods)
        text += f", {counts.old} old " + ("leaving" if leaving else "left")
    waiting = next(
        (p for p in verdict.pods if p.new and not p.ready and p.state not in ("Pending", "NotReadyYet")), None
    )
    if waiting is not None and verdict.state is not State.READY:
        text += f" ({waiting.name}: {waiting.state})"
    return text
