"""Scaling down and up again as Prefect tasks: what would work against it, no pod left, nobody scales it up meanwhile."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from prefect import task

from tasks.cluster.emptying import EmptyingProgress, wait_no_pods
from tasks.cluster.recorded_scaling import Scaled, scale_recorded, scale_up_recorded
from tasks.cluster.replica_watch import ReplicaWatch, watch_replicas
from tasks.cluster.scaler_reading import read_scalers
from tasks.cluster.session import connected, hub
from tasks.cluster.steps import progress_of
from tasks.domain.errors import StoppedError
from tasks.domain.finding import Finding
from tasks.domain.inventory import DeploymentFacts
from tasks.domain.step import RolloutStep
from tasks.record import stopping
from tasks.record.feed import State
from tasks.record.run_record import held_record
from tasks.record.task_rules import LOOKS
from tasks.record.telling import failure_told, tell


class _Watches(ExitStack):
    """One run's watches over what it scaled to 0."""

    def __init__(self) -> None:
        super().__init__()
        self.open: dict[tuple[str, ...], ReplicaWatch] = {}


_watches: dict[str, _Watches] = {}


@contextmanager
def replicas_watched(installation: str) -> Iterator[None]:
    """While the context lasts, what `no_pods_left` found empty is watched; `ask_replicas` answers."""
    with _Watches() as watches:
        _watches[installation] = watches
        try:
            yield
        finally:
            del _watches[installation]


def ask_replicas(installation: str) -> None:
    """Raise `DriftError` where something that was scaled to 0 was scaled up again, `TemporaryError` where the cluster
    was silent for too long: a guard to be asked before every write to the database.
    """
    watches = _watches.get(installation)
    if watches is None:
        # The run ended while this thread was still waiting for an answer: nothing may be written any more.
        raise StoppedError("The run has ended.", observed="Its watch over the replicas is closed.")
    for watch in tuple(watches.open.values()):
        watch.check()


@task(name="scalers", task_run_name="scalers", **LOOKS)
def find_scalers(installation: str, deployments: Sequence[DeploymentFacts]) -> tuple[Finding, ...]:
    """What would scale the Deployments up again, and what cannot be seen of that; blocking findings first."""
    found = read_scalers(connected(installation), deployments)
    for finding in found:
        tell("scalers", State.LOG, f"{finding.severity}: {finding.what}")
    return found


@task(name="scale down", task_run_name="scale to 0: {deployment.key}", **LOOKS)
def scale_down(installation: str, deployment: DeploymentFacts) -> int:
    """Scale to 0 what has the count that was seen, unless it is there already; the count that it had just before."""
    name, key = str(deployment.key), deployment.key
    if stopping.asked():
        raise StoppedError(f"{name} was not scaled: the run is to stop.", observed="It has its pods.")
    tell(name, State.RUNNING, "scaling to 0")
    with failure_told(name):
        what = Scaled(key, deployment.uid, deployment.component)
        evidence = scale_recorded(connected(installation).apis[key.cluster], what, 0, held_record(installation))
    tell(name, State.RUNNING, "scaled to 0" if evidence.changed else "it is scaled to 0 already")
    return evidence.replicas_before


@task(name="no pods left", task_run_name="no pods left", **LOOKS)
def no_pods_left(installation: str, deployments: Sequence[DeploymentFacts], deadline: int) -> tuple[str, ...]:
    """Wait until no pod of the Deployments is left, at most `deadline` seconds; the names of those that went.

    From then on they are watched where `replicas_watched` is open.
    """

    def progress(now: EmptyingProgress) -> None:
        tell(str(now.key), State.RUNNING, now.text)

    subject = ", ".join(str(d.key) for d in deployments)
    with failure_told(subject):
        hubs = {d.key.cluster: hub(installation, d.key.cluster) for d in deployments}
        found = wait_no_pods(hubs, deployments, deadline_seconds=deadline, progress=progress, stop=stopping.asked)
        watches, key = _watches.get(installation), tuple(d.uid for d in deployments)
        if watches is not None and key not in watches.open:
            watches.open[key] = watches.enter_context(watch_replicas(connected(installation), deployments))
    tell(subject, State.RUNNING, "no pod left")
    return tuple(name for one in found for name in one.went)


@task(name="scale up", task_run_name="scale up: {step.key}", **LOOKS)
def scale_up(installation: str, step: RolloutStep, replicas: int, deadline: int) -> int:
    """One pod of the step's images, Ready, then all `replicas`, Ready; the count that it has then.

    `deadline` in seconds is of each of the two waits.
    """
    name = str(step.key)
    if stopping.asked():
        raise StoppedError(f"{name} was not scaled up: the run is to stop.", observed="It is as it was.")
    tell(name, State.RUNNING, "starting one pod" if replicas else "it had no pods before")
    with failure_told(name):
        count = scale_up_recorded(
            hub(installation, step.key.cluster),
            step,
            replicas,
            held_record(installation),
            deadline_seconds=deadline,
            progress=progress_of(step, "scale up"),
            stop=stopping.asked,
            say=lambda text: tell(name, State.LOG, text),
        )
    tell(
        name, State.RUNNING, f"{count} pod{'s' if count != 1 else ''} Ready" if count else "scaled to 0, as before", 1.0
    )
    return count
