"""The Deployments that the tests make, and how they wait for them."""

from collections.abc import Callable
from dataclasses import dataclass

from .api import Api, JsonObject, eventually, path

PAUSE = "realcluster/pause:1"
"""An image that every node holds; it starts at once, says nothing and ends when it is asked to."""

REVISION = "deployment.kubernetes.io/revision"
RECREATE: JsonObject = {"type": "Recreate"}


def rolling(surge: int | str, unavailable: int | str) -> JsonObject:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}


def container(name: str, image: str = PAUSE, **more: object) -> JsonObject:
    return {"name": name, "image": image, "imagePullPolicy": "IfNotPresent", **more}


def deployment(name: str, *containers: JsonObject, replicas: int = 1, **spec: object) -> JsonObject:
    """A Deployment whose pods have the label ``app: NAME``; of one pause container unless others are given."""
    pod: JsonObject = {
        "dnsPolicy": "Default",
        "terminationGracePeriodSeconds": 2,
        "containers": list(containers) or [container("main")],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
            **spec,
        },
    }


def service(name: str, app: str, port: int) -> JsonObject:
    ports = [{"name": "http", "port": port, "targetPort": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": app}, "ports": ports},
    }


def configmap(name: str, data: dict[str, str] | None = None, **labels: str) -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"suite": "contract", **labels}},
        "data": data or {},
    }


def env_of(name: str, value: str, container_name: str = "main") -> JsonObject:
    """A strategic-merge patch that sets one variable of one container: a new template."""
    entry = {"name": container_name, "env": [{"name": name, "value": value}]}
    return {"spec": {"template": {"spec": {"containers": [entry]}}}}


def condition(obj: JsonObject, kind: str) -> JsonObject:
    """The condition of that type, or an empty object."""
    found = [each for each in obj.get("status", {}).get("conditions", ()) if each["type"] == kind]
    return found[0] if found else {}


def ready(pod: JsonObject) -> bool:
    return condition(pod, "Ready").get("status") == "True" and "deletionTimestamp" not in pod["metadata"]


def complete(obj: JsonObject) -> bool:
    """kubectl rollout status's rule, with all replicas available."""
    status, want = obj.get("status", {}), obj["spec"]["replicas"]
    counts = [status.get(field, 0) for field in ("replicas", "updatedReplicas", "availableReplicas")]
    return status.get("observedGeneration", 0) >= obj["metadata"]["generation"] and counts == [want] * 3


@dataclass(frozen=True)
class Namespace:
    """One test's own namespace."""

    api: Api
    name: str

    def path(self, resource: str, name: str | None = None, sub: str | None = None) -> str:
        return path(resource, self.name, name, sub)

    def create(self, resource: str, obj: JsonObject) -> JsonObject:
        if obj["kind"] == "Deployment" and obj["spec"].get("replicas"):
            # Pods are refused until the namespace has its default service account.
            account = self.path("serviceaccounts", "default")
            eventually(lambda: self.api.exists(account), "the default service account")
        return self.api.create(self.path(resource), obj)

    def get(self, resource: str, name: str, sub: str | None = None) -> JsonObject:
        return self.api.get(self.path(resource, name, sub))

    def roll_out(self, obj: JsonObject) -> JsonObject:
        """Create a Deployment and wait until it is complete."""
        self.create("deployments", obj)
        return self.settled(obj["metadata"]["name"])

    def observed(self, obj: JsonObject) -> JsonObject:
        """Create a Deployment and wait until its controller has taken note, so that it writes no more by itself."""
        self.create("deployments", obj)

        def noted(seen: JsonObject) -> bool:
            return (
                condition(seen, "Available") != {}
                and condition(seen, "Progressing").get("reason") == "NewReplicaSetAvailable"
            )

        return self.deployment_until(obj["metadata"]["name"], noted, "observed")

    def settled(self, name: str) -> JsonObject:
        return self.deployment_until(name, complete, "rolled out")

    def deployment_until(self, name: str, rule: Callable[[JsonObject], bool], what: str) -> JsonObject:
        return self.until("deployments", name, rule, what)

    def pods(self, app: str) -> list[JsonObject]:
        return self.api.items(self.path("pods"), labelSelector=f"app={app}")

    def pod(self, app: str) -> JsonObject:
        """The only pod of that app, once it is there."""
        (only,) = eventually(lambda: self.pods(app), f"a pod of {app}")
        return only

    def pod_until(self, app: str, rule: Callable[[JsonObject], bool], what: str) -> JsonObject:
        return self.until("pods", self.pod(app)["metadata"]["name"], rule, what)

    def replicasets(self, app: str) -> dict[str, JsonObject]:
        """By revision."""
        found = self.api.items(self.path("replicasets"), labelSelector=f"app={app}")
        return {each["metadata"]["annotations"][REVISION]: each for each in found}

    def events(self, **fields: str) -> list[JsonObject]:
        """The events whose involvedObject has those fields."""
        selector = ",".join(f"involvedObject.{key}={value}" for key, value in fields.items())
        return self.api.items(self.path("events"), fieldSelector=selector)

    def event(self, reason: str, **fields: str) -> JsonObject:
        def look() -> JsonObject | None:
            return next((each for each in self.events(**fields) if each["reason"] == reason), None)

        return eventually(look, f"an event {reason} of {fields}")

    def until(self, resource: str, name: str, rule: Callable[[JsonObject], bool], what: str) -> JsonObject:
        seen: list[JsonObject] = [{}]

        def look() -> JsonObject | None:
            seen[0] = self.get(resource, name)
            return seen[0] if rule(seen[0]) else None

        try:
            return eventually(look, f"{resource}/{name} {what}")
        except AssertionError as late:
            raise AssertionError(f"{late}; status {seen[0].get('status')}") from None


def waiting_for(reason: str, position: int = 0) -> Callable[[JsonObject], bool]:
    """A rule for pods: that container waits for that reason."""

    def rule(pod: JsonObject) -> bool:
        statuses = pod["status"].get("containerStatuses", [])
        if len(statuses) <= position:
            return False
        return bool(statuses[position]["state"].get("waiting", {}).get("reason") == reason)

    return rule
