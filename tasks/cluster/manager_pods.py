"""No manager may run while its database is put back: judged from the cluster's objects, and watched meanwhile."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from tasks.cluster.answers import JsonObject
from tasks.cluster.lookout import PATIENCE, SYNC_SECONDS, Lookout, Place, short_watches
from tasks.cluster.planning import Connections
from tasks.cluster.pod_state import terminating
from tasks.cluster.remaining import components_of, over
from tasks.cluster.rollout_view import name, replicas_of, select, uid
from tasks.cluster.scaling import wants
from tasks.cluster.watch import View, WatchHub
from tasks.domain.component import Component
from tasks.domain.errors import BlockedError, DriftError, TemporaryError, UsageError
from tasks.domain.inventory import DeploymentFacts


def managers_alive(
    managers: Iterable[str],
    deployments: Sequence[JsonObject],
    replicasets: Sequence[JsonObject],
    pods: Sequence[JsonObject],
) -> list[str]:
    """A sentence for each manager that runs, ends or is wanted in one namespace; empty where there is none.  Pure.

    `managers` are the uids of its known manager Deployments.  Besides their pods a pod counts whoever made it
    where a container of it runs a manager's image, and so does a Deployment that was made meanwhile.  A pod
    counts until it is gone or `over`: one that is terminating may still write.
    """
    known = set(managers)
    wanted = [d for d in deployments if uid(d) in known or _runs_a_manager(d.get("spec", {}).get("template", {}))]
    told = [f"Deployment {name(d)} {wants(count)}" for d in wanted if (count := replicas_of(d)) > 0]
    alive = {uid(pod): pod for d in wanted for pod in select(d, replicasets, pods).pods}
    alive |= {uid(pod): pod for pod in pods if _runs_a_manager(pod)}
    for pod in alive.values():
        if not over(pod):
            phase = pod.get("status", {}).get("phase", "Pending")
            told.append(f"pod {name(pod)} is {'terminating' if terminating(pod) else phase}")
    return sorted(told)


def _runs_a_manager(pod: JsonObject) -> bool:
    return Component.MANAGER in components_of(pod)


def watch_managers(connections: Connections) -> "ManagerWatch":
    """The watch over every manager of an installation; raise `UsageError` where none is found to be watched.

    Its watches are short: a dead connection must not hide for long that a manager started.
    """
    managers = connections.inventory().of(Component.MANAGER)
    if not managers:
        raise UsageError(
            "No manager was found, so it cannot be seen that none runs.",
            observed="No Deployment that may be read runs a manager's image.",
            next="Check the context and the namespaces. If there is none on purpose, say so: --no-cluster.",
        )
    return ManagerWatch(short_watches(connections.apis), managers)


class ManagerWatch(Lookout):
    """While the context lasts, `check()` answers at once whether a manager exists or existed since it began.

    Entering raises `BlockedError` where one does, `TemporaryError` where the cluster gives no word.
    """

    def __init__(
        self,
        hubs: Mapping[str, WatchHub],
        managers: Sequence[DeploymentFacts],
        *,
        patience: float = PATIENCE,
        sync_seconds: float = SYNC_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        places = [(m.key.cluster, m.key.namespace) for m in managers]
        known = [m.uid for m in managers]
        super().__init__(hubs, places, known, patience=patience, sync_seconds=sync_seconds, clock=clock)
        self._managers = managers

    def _judge(self, place: Place, view: View) -> list[str]:
        known = [m.uid for m in self._managers if (m.key.cluster, m.key.namespace) == place]
        return managers_alive(known, view.objects("deployments"), view.objects("replicasets"), view.objects("pods"))

    def _there(self, told: Sequence[str]) -> BlockedError:
        commands = [f"kubectl scale deployment {m.key.name} -n {m.key.namespace} --replicas=0" for m in self._managers]
        return BlockedError(
            "The manager runs, so its database cannot be put back.",
            observed="\n".join(told),
            next="\n".join(("Scale it to 0, wait until its pods are gone, then restore:", *commands)),
        )

    def _appeared(self, told: Sequence[str]) -> DriftError:
        return DriftError(
            "A manager appeared while its database is being put back.",
            observed="\n".join(told),
            next="See who starts it (a deployment tool, an autoscaler, a colleague), scale it to 0, and run the restore "
            "again: it goes on where it ended.",
        )

    def _deaf(self, trouble: str) -> TemporaryError:
        return TemporaryError(
            "The cluster cannot be asked whether a manager runs.",
            observed=trouble,
            next="When its API answers again, run the restore again: it goes on where it ended.",
        )
