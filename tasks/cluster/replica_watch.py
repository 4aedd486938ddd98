"""Deployments that were scaled to 0, watched: nobody may scale them up again unseen."""

from collections.abc import Mapping, Sequence

from tasks.cluster.lookout import Lookout, Place, short_watches
from tasks.cluster.planning import Connections
from tasks.cluster.remaining import remaining
from tasks.cluster.rollout_view import name, replicas_of, uid
from tasks.cluster.scaling import STOP_WHO, wants, who_scaled
from tasks.cluster.watch import View, WatchHub
from tasks.domain.errors import DriftError, TemporaryError, UpgradeError
from tasks.domain.inventory import DeploymentFacts


def watch_replicas(connections: Connections, deployments: Sequence[DeploymentFacts]) -> "ReplicaWatch":
    """The watch over Deployments that were scaled to 0 and whose pods are gone.

    A change of an image is a change too where it falls into a silence of the cluster: end the watch before setting one.
    """
    return ReplicaWatch(short_watches(connections.apis), deployments)


class ReplicaWatch(Lookout):
    """While the context lasts, `check()` answers whether one of the Deployments wants pods, or has one.

    Entering raises `DriftError` where that is so already.
    """

    def __init__(self, hubs: Mapping[str, WatchHub], deployments: Sequence[DeploymentFacts]) -> None:
        places = [(d.key.cluster, d.key.namespace) for d in deployments]
        super().__init__(hubs, places, [d.uid for d in deployments])
        self._deployments = deployments

    def _judge(self, place: Place, view: View) -> list[str]:
        found = {name(d): d for d in view.objects("deployments")}
        sets, pods = view.objects("replicasets"), view.objects("pods")
        told = []
        for facts in self._deployments:
            if (facts.key.cluster, facts.key.namespace) != place:
                continue
            now = found.get(facts.key.name)
            if now is None or uid(now) != facts.uid:
                told.append(f"Deployment {facts.key.name} was deleted{'' if now is None else ' and made anew'}")
                continue
            if (count := replicas_of(now)) != 0:
                told.append(f"Deployment {facts.key.name} {wants(count)}. {who_scaled(now)}".strip())
            told += [f"pod {pod.name} appeared" for pod in remaining(now, facts.component, sets, pods)]
        return told

    def _there(self, told: Sequence[str]) -> UpgradeError:
        return self._appeared(told)

    def _appeared(self, told: Sequence[str]) -> DriftError:
        return DriftError(
            "Somebody else changed what was scaled to 0.",
            observed="\n".join(told),
            safe="It was left as found.",
            next=STOP_WHO,
        )

    def _deaf(self, trouble: str) -> TemporaryError:
        return TemporaryError(
            "The cluster cannot be asked whether somebody scaled a Deployment up again.",
            observed=trouble,
            safe="Nothing was changed since it last answered.",
            next="When its API answers again, go on: what is done already is found done.",
        )
