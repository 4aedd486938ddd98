"""The sandbox seen from outside: its objects over its own API, read and changed with the admin's token."""

import base64
import http.client
import json
import os
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

from deployments.sandbox.launch import Sandbox

JsonObject = dict[str, Any]
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
SECRET = "/api/v1/namespaces/apinizer/secrets/mongo-db-credentials"
MANAGER = "apinizer/manager"
WORKERS = ("test/worker", "prod/worker-prod")
ALL = frozenset(
    {
        MANAGER,
        "prod/worker-prod",
        "prod/cache-prod",
        "test/worker",
        "test/cache",
        "portal/apinizer-portal",
        "integration/apinizer-integration",
    }
)
OLD, NEW = "2025.04.3", "2025.07.0"


class World:
    """What is in a sandbox now; Deployments by `namespace/name`."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        config = json.loads(sandbox.kubeconfig.read_text())
        self._token = config["users"][0]["user"]["token"]
        self._context = ssl.create_default_context(cafile=config["clusters"][0]["cluster"]["certificate-authority"])

    def ask(
        self, method: str, path: str, body: JsonObject | None = None, kind: str = "application/json"
    ) -> tuple[int, bytes]:
        """Status and body of one request."""
        connection = self.connect()
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, self.headers(kind))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def connect(self) -> http.client.HTTPSConnection:
        url = urlsplit(self.sandbox.api_url)
        return http.client.HTTPSConnection(url.hostname or "", url.port, timeout=60, context=self._context)

    def headers(self, kind: str = "application/json") -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}", "Content-Type": kind}

    def get(self, path: str) -> JsonObject:
        status, body = self.ask("GET", path)
        assert status == 200, body
        found: JsonObject = json.loads(body)
        return found

    def change(self, path: str, body: JsonObject, kind: str = MERGE) -> JsonObject:
        status, answer = self.ask("PATCH", path, body, kind)
        assert status == 200, answer
        found: JsonObject = json.loads(answer)
        return found

    def deployments(self) -> dict[str, JsonObject]:
        items = self.get("/apis/apps/v1/deployments")["items"]
        return {f"{d['metadata']['namespace']}/{d['metadata']['name']}": d for d in items}

    def images(self) -> dict[str, str]:
        return {key: d["spec"]["template"]["spec"]["containers"][0]["image"] for key, d in self.deployments().items()}

    def tags(self) -> dict[str, str]:
        return {key: image.rpartition(":")[2] for key, image in self.images().items()}

    def at(self, version: str) -> set[str]:
        """The Deployments whose image has this tag."""
        return {key for key, tag in self.tags().items() if tag == version}

    def generations(self) -> dict[str, int]:
        return {key: d["metadata"]["generation"] for key, d in self.deployments().items()}

    def written(self) -> dict[str, str]:
        """What a write by anybody but the controllers would change: uid, generation, annotations of every Deployment."""
        return {
            key: json.dumps([d["metadata"]["uid"], d["metadata"]["generation"], d["metadata"].get("annotations")])
            for key, d in self.deployments().items()
        }

    def pods(self) -> list[JsonObject]:
        items = self.get("/api/v1/pods")["items"]
        return [p for p in items if f"{p['metadata']['namespace']}" in {k.partition("/")[0] for k in ALL}]

    def answered(self) -> dict[str, str]:
        """What every pod that is not being deleted answers for its version, through the proxy."""
        answers = {}
        for pod in self.pods():
            if "deletionTimestamp" in pod["metadata"]:
                continue
            space, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
            port = pod["spec"]["containers"][0]["ports"][0]["containerPort"]
            status, body = self.ask(
                "GET", f"/api/v1/namespaces/{space}/pods/{name}:{port}/proxy/apinizer/management/version"
            )
            answers[f"{space}/{name}"] = body.decode() if status == 200 else f"HTTP {status}"
        return answers

    def settled(self) -> bool:
        """Whether every Deployment's status shows its present spec rolled out and available."""
        return all(
            (status := d.get("status", {})).get("observedGeneration", 0) >= d["metadata"]["generation"]
            and status.get("updatedReplicas", 0)
            == status.get("replicas", 0)
            == status.get("availableReplicas", 0)
            == d["spec"]["replicas"]
            for d in self.deployments().values()
        )

    def path(self, key: str) -> str:
        space, _, name = key.partition("/")
        return f"/apis/apps/v1/namespaces/{space}/deployments/{name}"

    def set_image(self, key: str, image: str) -> None:
        """As somebody else's `kubectl set image` does."""
        name = self.get(self.path(key))["spec"]["template"]["spec"]["containers"][0]["name"]
        pod = {"containers": [{"name": name, "image": image}]}
        self.change(self.path(key), {"spec": {"template": {"spec": pod}}}, STRATEGIC)

    def delete_pod(self, pod: JsonObject) -> None:
        meta = pod["metadata"]
        status, answer = self.ask("DELETE", f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}")
        assert status == 200, answer

    def database_url(self) -> str:
        return base64.b64decode(self.get(SECRET)["data"]["dbUrl"]).decode()

    def set_database_url(self, url: str) -> None:
        self.change(SECRET, {"data": {"dbUrl": base64.b64encode(url.encode()).decode()}})

    def secrets(self) -> tuple[str, ...]:
        """Texts that no output may hold."""
        password = urlsplit(self.database_url()).password or ""
        assert len(password) > 8
        return (password, quote(password), self._token)


class Watching:
    """Every change of a Deployment while the context lasts, in the order of the API's own watch."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.seen: list[tuple[str, JsonObject]] = []

    def __enter__(self) -> Self:
        start = self._world.get("/apis/apps/v1/deployments")["metadata"]["resourceVersion"]
        self._connection = self._world.connect()
        self._connection.request(
            "GET",
            f"/apis/apps/v1/deployments?watch=true&timeoutSeconds=600&resourceVersion={start}",
            headers=self._world.headers(),
        )
        self._answer = self._connection.getresponse()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def _read(self) -> None:
        try:
            for line in self._answer:
                event = json.loads(line)
                meta = event["object"]["metadata"]
                if event["type"] == "MODIFIED":
                    self.seen.append((f"{meta['namespace']}/{meta['name']}", event["object"]))
        except (OSError, ValueError, http.client.HTTPException, AttributeError):
            return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        eventually(self._quiet, 5)
        self._world.sandbox.drop_watches()
        self._thread.join(10)
        self._connection.close()

    def _quiet(self) -> bool:
        count = len(self.seen)
        time.sleep(0.3)
        return len(self.seen) == count

    def first_touched(self, key: str, image_tag: str) -> int:
        """The position of the first change that shows the Deployment with an image of that tag."""
        return next(i for i, (k, d) in enumerate(self.seen) if k == key and tag_of(d) == image_tag)

    def first_ready(self, key: str, image_tag: str) -> int:
        """The position of the first change that shows its new pods available and no others."""
        return next(i for i, (k, d) in enumerate(self.seen) if k == key and tag_of(d) == image_tag and rolled(d))


def tag_of(deployment: JsonObject) -> str:
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"]).rpartition(":")[2]


def rolled(deployment: JsonObject) -> bool:
    status = deployment.get("status", {})
    wanted = deployment["spec"]["replicas"]
    return bool(
        status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
        and status.get("replicas") == wanted
        and status.get("updatedReplicas") == wanted
        and status.get("availableReplicas") == wanted
    )


def ready(pod: JsonObject) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions") or ())


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def archives(folder: Path) -> list[Path]:
    """Finished backups in a folder."""
    return sorted(folder.glob("*.archive"))


def leftovers(folder: Path) -> list[Path]:
    """What is in a backup folder beside finished archives, their manifests and the journals of their runs."""
    finished = {p.name for p in archives(folder)}
    expected = {name + end for name in finished for end in ("", ".json", ".journal.json")}
    return [p for p in folder.iterdir() if p.name not in expected] if folder.exists() else []


def journals(world: World) -> list[JsonObject]:
    """The journals of runs as the cluster keeps them, the oldest first."""
    labels = quote("app.kubernetes.io/managed-by=apinizer-upgrade,app.kubernetes.io/component=journal")
    items = world.get(f"/api/v1/namespaces/apinizer/configmaps?labelSelector={labels}")["items"]
    return sorted((json.loads(item["data"]["journal.json"]) for item in items), key=lambda j: str(j["begun"]))


def lock_holder(world: World) -> str:
    """Who holds the installation's lock; "" where nobody does."""
    status, body = world.ask("GET", "/apis/coordination.k8s.io/v1/namespaces/apinizer/leases/apinizer-upgrade")
    return str(json.loads(body)["spec"].get("holderIdentity") or "") if status == 200 else ""


def lock_run(world: World) -> str:
    """The run that the installation's lock is held for, as whoever asks is told."""
    found = world.get("/apis/coordination.k8s.io/v1/namespaces/apinizer/leases/apinizer-upgrade")
    return str((found["metadata"].get("annotations") or {}).get("apinizer-upgrade/run"))


def clean_environment() -> dict[str, str]:
    """This process's environment without what names a cluster, a Prefect server, or a setting of the command line."""
    names = ("PREFECT_", "KUBE", "APINIZER_UPGRADE_")
    return {k: v for k, v in os.environ.items() if not k.startswith(names)}


def needed(folder: Path) -> dict[str, list[str]]:
    """The backups that are marked as needed, and by which runs."""
    manifests = [json.loads(path.read_text()) for path in folder.glob("*.archive.json")]
    return {m["archive"]: [need["run"] for need in m["needed_by"]] for m in manifests if m["needed_by"]}
