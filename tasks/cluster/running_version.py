"""What the running manager itself says its version is, for a plan: asked once, and no answer is an answer."""

from tasks.cluster.api import KubernetesApi
from tasks.cluster.pod_state import ready, terminating
from tasks.cluster.rollout_view import name
from tasks.cluster.verification import VERSION_PATH, endpoints
from tasks.cluster.version_answer import versions_in
from tasks.cluster.watch import PATHS
from tasks.domain.errors import UpgradeError
from tasks.domain.inventory import DeploymentFacts
from tasks.domain.version import Version


def ask_running_version(api: KubernetesApi, deployment: DeploymentFacts) -> Version | None:
    """The one version that a Ready pod of the Deployment answers; None where none does (stopped, no permission)."""
    hasty = api.patient(0)
    namespace = deployment.key.namespace
    try:
        pods = hasty.list(PATHS["pods"].format(namespace), labels=deployment.selector).items
        for pod in pods:
            if not ready(pod) or terminating(pod):
                continue
            for endpoint in endpoints(pod, deployment.component, deployment.main.name):
                answer = hasty.answer(endpoint.path(namespace, name(pod), VERSION_PATH))
                found = versions_in(answer.text) if answer.status < 300 else ()
                if len(found) == 1:
                    return found[0]
    except UpgradeError:
        return None  # the image's tag is the other witness
    return None
