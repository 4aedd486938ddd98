"""What `never_started` judges, taken from a watch of the manager's namespace."""

from tasks.cluster.never_started import Sight
from tasks.cluster.rollout_view import uid
from tasks.cluster.watch import View

KINDS = ("deployments", "replicasets", "pods")


def sight_of(view: View, deployment_uid: str) -> Sight:
    """The namespace as `view` shows it now; `view` is of all of `KINDS` and stays open from the first sight to the last.

    The pods that ended in between are known only so: what a list no longer has does not say how it ended.
    """
    lists = view.lists("pods")  # first: a list that comes meanwhile makes the two sights differ
    found = next((d for d in view.objects("deployments") if uid(d) == deployment_uid), None)
    return Sight(found, view.objects("replicasets"), view.objects("pods"), view.gone("pods"), lists)
