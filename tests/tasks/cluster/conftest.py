"""A small API server over real HTTP whose every misbehaviour is scripted, and a client of it; an installation to scale."""

import contextlib
import copy
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from blocks.settings import ClusterSettings, InstallationSettings
from deployments.sandbox.launch import Sandbox
from tasks.cluster.api import KubernetesApi
from tasks.cluster.planning import Connections
from tasks.cluster.retry import Retry
from tasks.domain.component import Component
from tasks.domain.inventory import DeploymentFacts, DeploymentKey
from tasks.domain.step import ImageChange, RolloutStep

OLD, NEW = "apinizercloud/worker:2025.04.3", "apinizercloud/worker:2025.07.0"
Json = dict[str, Any]


class ScriptedApi:
    """Objects by kind, a history that watches are served from, and faults that the next requests meet.

    `watch_faults[kind]` and `faults` are queues: each request takes one. A fault is an HTTP status, or one of
    close, gone, error-event, malformed, cut, silent (for watches), lost (answered by a closed connection, done),
    drip (a byte now and then).
    """

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.objects: dict[str, dict[str, Json]] = {"deployments": {}, "replicasets": {}, "pods": {}, "events": {}}
        self.history: list[tuple[int, str, str, Json]] = []
        self.version = 10
        self.expired = 0  # versions up to this are 410
        self.faults: deque[int | str] = deque()
        self.watch_faults: dict[str, deque[int | str]] = {kind: deque() for kind in self.objects}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: dict[str, Callable[[dict[str, str]], tuple[int, bytes]]] = {}
        self.before_patch: Callable[[], None] = lambda: None
        self.watchers: list[str] = []
        self.mute: set[str] = set()  # kinds whose watches hear nothing for now
        self.sockets: set[socket.socket] = set()
        self.port = 0
        self.up = threading.Event()
        self.start()

    def start(self) -> None:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                owner.sockets.add(self.connection)

            def finish(self) -> None:
                owner.sockets.discard(self.connection)
                super().finish()

            def handle_any(self) -> None:
                try:
                    owner.handle(self)
                except (ConnectionError, ValueError, OSError):
                    self.close_connection = True

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_: object) -> None:
                pass  # the cut connections are the tests' own doing

        self.server = Server(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_port
        self.up.set()
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Killed: every connection breaks, new ones are refused."""
        self.up.clear()
        self.server.shutdown()
        self.server.server_close()
        for open_socket in list(self.sockets):
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
        with self.lock:
            self.lock.notify_all()

    def put(self, kind: str, thing: Json) -> Json:
        """Add or change an object, as a controller would."""
        with self.lock:
            thing = copy.deepcopy(thing)
            known = thing["metadata"]["name"] in self.objects[kind]
            self.version += 1
            thing["metadata"]["resourceVersion"] = str(self.version)
            self.objects[kind][thing["metadata"]["name"]] = thing
            self.history.append((self.version, kind, "MODIFIED" if known else "ADDED", thing))
            self.lock.notify_all()
            return thing

    def drop(self, kind: str, name: str) -> None:
        with self.lock:
            self.version += 1
            thing = copy.deepcopy(self.objects[kind].pop(name))
            thing["metadata"]["resourceVersion"] = str(self.version)
            self.history.append((self.version, kind, "DELETED", thing))
            self.lock.notify_all()

    def forget(self) -> None:
        """Compaction: what has happened so far can no longer be watched from."""
        with self.lock:
            self.expired = self.version
            self.version += 1

    def count(self, method: str, kind: str, *, watch: bool = False) -> int:
        return sum(m == method and p.endswith(kind) and ("watch" in q) == watch for m, p, q in list(self.requests))

    def handle(self, http: BaseHTTPRequestHandler) -> None:
        url = urlsplit(http.path)
        query = dict(parse_qsl(url.query))
        length = int(http.headers.get("Content-Length") or 0)
        body = json.loads(http.rfile.read(length)) if length else None
        self.requests.append((http.command, url.path, query))
        self.headers.append(dict(http.headers.items()))
        parts = url.path.strip("/").split("/")
        kind = next((part for part in parts if part in self.objects), "")
        name = parts[parts.index(kind) + 1] if kind and parts[-1] != kind else ""
        if "watch" in query:
            self.watch(http, kind, query)
            return
        fault = self.faults.popleft() if self.faults else None
        if isinstance(fault, int):
            self.send(http, fault, {"kind": "Status", "code": fault, "message": f"scripted {fault}"}, after="0")
        elif fault == "drip":
            self.drip(http)
        elif url.path in self.answers:
            status, data = self.answers[url.path](query)
            self.send(http, status, data)
        elif "/proxy/" in url.path:
            refused = "error trying to reach service: dial tcp: connect: connection refused"
            self.send(http, 503, {"kind": "Status", "code": 503, "message": refused})
        elif http.command == "PATCH":
            self.patch(http, kind, name, body, lost=fault == "lost")
        elif name:
            found = self.objects[kind].get(name)
            self.send(
                http, 200 if found else 404, found or {"kind": "Status", "code": 404, "message": f"{name} not found"}
            )
        elif kind:
            self.list(http, kind, query)
        else:
            self.send(http, 404, {"kind": "Status", "code": 404, "message": "no such path"})

    def send(self, http: BaseHTTPRequestHandler, status: int, body: Json | bytes, after: str = "") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        http.send_response(status)
        if after and status in (429, 503):
            http.send_header("Retry-After", after)
        http.send_header("Content-Length", str(len(data)))
        http.end_headers()
        http.wfile.write(data)

    def drip(self, http: BaseHTTPRequestHandler) -> None:
        http.send_response(200)
        http.send_header("Content-Length", "1000")
        http.end_headers()
        for _ in range(1000):
            http.wfile.write(b" ")
            http.wfile.flush()
            time.sleep(0.05)

    def list(self, http: BaseHTTPRequestHandler, kind: str, query: dict[str, str]) -> None:
        items = [self.objects[kind][name] for name in sorted(self.objects[kind])]
        limit, begin = int(query.get("limit", "500")), int(query.get("continue") or 0)
        meta: Json = {"resourceVersion": str(self.version)}
        if begin + limit < len(items):
            meta["continue"] = str(begin + limit)
        self.send(http, 200, {"items": items[begin : begin + limit], "metadata": meta})

    def patch(self, http: BaseHTTPRequestHandler, kind: str, name: str, body: Json, *, lost: bool) -> None:
        self.before_patch()
        with self.lock:
            found = self.objects[kind].get(name)
            want = body.get("metadata", {}).get("resourceVersion")
            if found is None or want not in (None, found["metadata"]["resourceVersion"]):
                self.send(
                    http,
                    409,
                    {"kind": "Status", "code": 409, "reason": "Conflict", "message": "object has been modified"},
                )
                return
            thing = copy.deepcopy(found)
            for key, patches in body["spec"]["template"]["spec"].items():
                for patch in patches:
                    next(c for c in thing["spec"]["template"]["spec"][key] if c["name"] == patch["name"]).update(patch)
            thing["metadata"].setdefault("annotations", {}).update(body["metadata"].get("annotations", {}))
            thing["metadata"]["generation"] += 1
        thing = self.put(kind, thing)
        if lost:
            http.close_connection = True
            http.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send(http, 200, thing)

    def watch(self, http: BaseHTTPRequestHandler, kind: str, query: dict[str, str]) -> None:
        queue = self.watch_faults[kind]
        fault = queue.popleft() if queue else None
        version = int(query.get("resourceVersion") or 0)
        if isinstance(fault, int):
            self.send(http, fault, {"kind": "Status", "code": fault, "message": f"scripted {fault}"}, after="0")
            return
        if version <= self.expired:
            self.send(
                http, 410, {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            )
            return
        http.send_response(200)
        http.send_header("Transfer-Encoding", "chunked")
        http.end_headers()

        def chunk(data: bytes) -> None:
            http.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            http.wfile.flush()

        chunks = {
            "gone": b'{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}\n',
            "error-event": b'{"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcdserver: leader changed"}}\n',
            "malformed": b'{"type":"ADDED","object":\n',
            "cut": b'{"type":"ADDED","object":{"metadata":{"name":"half","uid":"u"',
        }
        if fault in chunks:
            chunk(chunks[str(fault)])
        if fault == "silent":
            self.up.wait()
            time.sleep(30)
        if fault is not None:
            chunk(b"")
            return
        self.watchers.append(kind)
        end = time.monotonic() + float(query.get("timeoutSeconds", "30"))
        sent = version
        while self.up.is_set():
            with self.lock:
                events = [(v, t, o) for v, k, t, o in self.history if k == kind and v > sent and kind not in self.mute]
                if not events:
                    left = end - time.monotonic()
                    if left <= 0 or not self.lock.wait(min(left, 0.5)):
                        events = []
            for at, event, thing in events:
                chunk(json.dumps({"type": event, "object": thing}).encode() + b"\n")
                sent = at
            if time.monotonic() > end:
                chunk(
                    json.dumps(
                        {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self.version)}}}
                    ).encode()
                    + b"\n"
                )
                chunk(b"")
                return


@pytest.fixture
def server() -> Iterator[ScriptedApi]:
    scripted = ScriptedApi()
    yield scripted
    if scripted.up.is_set():
        scripted.stop()


@pytest.fixture
def api(server: ScriptedApi) -> KubernetesApi:
    from kubernetes.client import ApiClient, Configuration

    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{server.port}"
    configuration.api_key = {"authorization": "Bearer very-secret-token"}
    return KubernetesApi(ApiClient(configuration), "prod", timeout=10, retry=Retry(5.0, base=0.05, cap=0.5))


def deployment(image: str = OLD, *, replicas: int = 1, generation: int = 3) -> Json:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "gw", "namespace": "prod", "uid": "d-1", "generation": generation},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "gw"}},
            "template": {
                "metadata": {"labels": {"app": "gw"}},
                "spec": {
                    "containers": [{"name": "gateway", "image": image}, {"name": "proxy", "image": "istio/proxyv2:1"}]
                },
            },
        },
        "status": {},
    }


@pytest.fixture
def step() -> RolloutStep:
    return RolloutStep(
        key=DeploymentKey(cluster="", namespace="prod", name="gw"),
        uid="d-1",
        resource_version="11",
        component=Component.WORKER,
        changes=(ImageChange(container="gateway", old=OLD, new=NEW),),
        replicas=1,
    )


class Controllers:
    """Plays the controllers and the kubelet, one deed a call."""

    def __init__(self, server: ScriptedApi) -> None:
        self.server = server

    def deployment(self, **status: Any) -> None:
        thing = copy.deepcopy(self.server.objects["deployments"]["gw"])
        thing["status"] = {
            "observedGeneration": thing["metadata"]["generation"],
            "conditions": [
                {"type": "Available", "status": "True"},
                {"type": "Progressing", "status": "True", "reason": "x"},
            ],
            **status,
        }
        self.server.put("deployments", thing)

    def replicaset(self, hash_: str) -> None:
        template = copy.deepcopy(self.server.objects["deployments"]["gw"]["spec"]["template"])
        template["metadata"]["labels"]["pod-template-hash"] = hash_
        owner = {"kind": "Deployment", "name": "gw", "uid": "d-1", "controller": True}
        meta = {"name": f"gw-{hash_}", "uid": f"rs-{hash_}", "ownerReferences": [owner]}
        self.server.put("replicasets", {"metadata": meta, "spec": {"template": template}})

    def pod(self, name: str, hash_: str, *, ready: bool = False, **status: Any) -> None:
        template = self.server.objects["replicasets"][f"gw-{hash_}"]["spec"]["template"]
        owner = {"kind": "ReplicaSet", "name": f"gw-{hash_}", "uid": f"rs-{hash_}", "controller": True}
        containers = [
            {
                "name": c["name"],
                "ready": ready,
                "restartCount": 0,
                "imageID": "sha256:1",
                "state": {"running": {}},
                **status,
            }
            for c in template["spec"]["containers"]
        ]
        self.server.put(
            "pods",
            {
                "metadata": {"name": name, "uid": f"p-{name}", "labels": {"app": "gw"}, "ownerReferences": [owner]},
                "spec": {"nodeName": "node-b", **copy.deepcopy(template["spec"])},
                "status": {
                    "phase": "Running",
                    "conditions": [{"type": "Ready", "status": str(ready)}, {"type": "PodScheduled", "status": "True"}],
                    "containerStatuses": containers,
                },
            },
        )

    def complete(self, hash_: str = "new") -> None:
        self.replicaset(hash_)
        self.pod(f"gw-{hash_}-1", hash_, ready=True)
        self.deployment(replicas=1, updatedReplicas=1, readyReplicas=1, availableReplicas=1)


@pytest.fixture
def controllers(server: ScriptedApi) -> Controllers:
    server.put("deployments", deployment())
    return Controllers(server)


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """Wait for a fact, with a limit far above what it takes."""

    def wait(fact: Callable[[], object], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not fact():
            assert time.monotonic() < end, "it did not come true"
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """One installation for a module."""
    with Sandbox(speed=8.0) as running:
        yield running


@pytest.fixture
def connections(sandbox: Sandbox) -> Iterator[Connections]:
    settings = ClusterSettings(kubeconfig_path=str(sandbox.kubeconfig))
    yield Connections.open(InstallationSettings(clusters=(settings,)))
    sandbox.faults(answers=[])


@pytest.fixture
def worker(connections: Connections) -> DeploymentFacts:
    """The Deployment `worker-prod` as it is, with two pods."""
    path = "/apis/apps/v1/namespaces/prod/deployments/worker-prod"
    connections.apis[""].patch(path, {"spec": {"replicas": 2}}, "merge")
    return next(d for d in connections.inventory().of(Component.WORKER) if d.key.name == "worker-prod")
