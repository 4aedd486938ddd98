"""A small HTTP client of a sandbox, which shares nothing with it."""

import json
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from deployments.sandbox.launch import Sandbox

JsonObject = dict[str, Any]


class Client(httpx.Client):
    def __init__(self, sandbox: Sandbox, token: str = "") -> None:
        config = json.loads(sandbox.kubeconfig.read_text())
        context = ssl.create_default_context(cafile=config["clusters"][0]["cluster"]["certificate-authority"])
        token = token or config["users"][0]["user"]["token"]
        super().__init__(
            base_url=sandbox.api_url, verify=context, headers={"Authorization": f"Bearer {token}"}, timeout=30
        )

    def see(self, path: str, **query: Any) -> JsonObject:
        answer = self.get(path, params=query)
        answer.raise_for_status()
        return answer.json()  # type: ignore[no-any-return]

    def events(self, path: str, seconds: float = 10, **query: Any) -> Iterator[JsonObject]:
        """The events of one watch until it ends."""
        given = {"watch": "true", "timeoutSeconds": seconds, **query}
        with self.stream("GET", path, params=given, timeout=httpx.Timeout(30)) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                yield json.loads(line)

    def until(self, path: str, holds: Callable[[JsonObject], object], seconds: float = 30) -> JsonObject:
        """Read until something holds; fails with what was last seen."""
        end = time.monotonic() + seconds
        while True:
            seen = self.see(path)
            if holds(seen):
                return seen
            assert time.monotonic() < end, json.dumps(seen)[:3000]
            time.sleep(0.05)

    def set_image(self, namespace: str, deployment: str, container: str, image: str) -> JsonObject:
        patch = {"spec": {"template": {"spec": {"containers": [{"name": container, "image": image}]}}}}
        answer = self.patch(
            f"/apis/apps/v1/namespaces/{namespace}/deployments/{deployment}",
            content=json.dumps(patch),
            headers={"Content-Type": "application/strategic-merge-patch+json"},
        )
        answer.raise_for_status()
        return answer.json()  # type: ignore[no-any-return]

    def roll_out(self, namespace: str, deployment: str, seconds: float = 30) -> JsonObject:
        return self.until(f"/apis/apps/v1/namespaces/{namespace}/deployments/{deployment}", is_rolled_out, seconds)

    def waiting(self, namespace: str, reason: str, seconds: float = 30) -> JsonObject:
        """The first container status of the namespace that waits for `reason`, once there is one."""
        seen = self.until(f"/api/v1/namespaces/{namespace}/pods", lambda pods: statuses(pods, reason), seconds)
        return statuses(seen, reason)[0]


def statuses(pods: JsonObject, reason: str) -> list[JsonObject]:
    found = [one for pod in pods["items"] for one in pod["status"].get("containerStatuses", [])]
    return [one for one in found if one["state"].get("waiting", {}).get("reason") == reason]


def is_rolled_out(deployment: JsonObject) -> bool:
    """As `kubectl rollout status` judges."""
    status, wanted = deployment["status"], deployment["spec"]["replicas"]
    return (
        status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
        and status.get("updatedReplicas", 0) == wanted
        and status.get("replicas", 0) == wanted
        and status.get("availableReplicas", 0) == wanted
    )
