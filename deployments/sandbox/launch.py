"""Start and stop a sandbox, and make things go wrong in it. Standard library only: importing this costs nothing.

with Sandbox() as sandbox:
    subprocess.run(["kubectl", "get", "deployments", "-A"], env=os.environ | sandbox.env())
"""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

JsonObject = dict[str, Any]
VERSIONS = ("2025.04.3", "2025.07.0", "2025.08.0", "2025.11.1")
_ROOT = Path(__file__).resolve().parents[2]


class SandboxError(RuntimeError):
    """The sandbox cannot be started, or refused an order; the text says why."""


class Sandbox:
    """An installation at `version`; `speed` divides every wait of the cluster; `directory` keeps its files (a temporary one
    otherwise, removed at the end); `prefix` stands before the repositories' names in the images.

    Raises SandboxError when it cannot be started.
    """

    def __init__(
        self,
        version: str = "2025.04.3",
        speed: float = 1.0,
        directory: Path | None = None,
        prefix: str = "apinizercloud",
    ) -> None:
        if version not in VERSIONS:
            raise SandboxError(f"the sandbox has no release {version}; it has {', '.join(VERSIONS)}")
        self.version, self.speed, self.prefix = version, speed, prefix
        self._given = directory
        self._directory: Path | None = None
        self._process: subprocess.Popen[str] | None = None
        self._token = ""
        self.api_url = ""
        self.mongo_uri = ""
        self._mongo_uri = ""

    # ------------------------------------------------------------------- life
    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, timeout: float = 90.0) -> None:
        """Start it and return when the API answers and the database is filled (about two seconds)."""
        self.begin()
        self.wait(timeout)

    def begin(self) -> None:
        """Start it without waiting: the caller may load its own libraries meanwhile, then `wait`."""
        if self._process is not None:
            raise SandboxError("this sandbox is already started")
        if self._given:
            self._given.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self._given / "mongo", ignore_errors=True)
        self._directory = (self._given or Path(tempfile.mkdtemp(prefix="apinizer-sandbox-"))).resolve()
        self._token = secrets.token_hex(16)
        orders = {
            "directory": str(self._directory),
            "token": self._token,
            "version": self.version,
            "speed": self.speed,
            "prefix": self.prefix,
        }
        with (self._directory / "api.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "deployments.sandbox.serve"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=_ROOT,
                start_new_session=True,  # Ctrl-C of a terminal is the parent's business: the child ends when its stdin closes.
            )
        self._order(json.dumps(orders))

    def wait_api(self, timeout: float = 90.0) -> None:
        """Return when the Kubernetes API answers; the database may still be a second away."""
        if not self.api_url:
            answer = self._told(timeout, "url")
            self.api_url, self._mongo_uri = answer["url"], answer["mongo_uri"]

    def wait(self, timeout: float = 90.0) -> None:
        """Return when all of it is usable."""
        self.wait_api(timeout)
        if not self.mongo_uri:
            self._told(timeout, "database")
            self.mongo_uri = self._mongo_uri

    def _told(self, timeout: float, key: str) -> JsonObject:
        """The child's next line, which has `key`; raises SandboxError with its log when there is none in time."""
        told: list[str] = []
        process = self._running()

        def listen() -> None:
            if process.stdout is not None:
                told.append(process.stdout.readline())

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        listener.join(timeout)
        answer: JsonObject = json.loads(told[0]) if told and told[0].strip() else {}
        if key not in answer:
            log = (self.directory / "api.log").read_text(errors="replace")[-2000:]
            self.stop()
            raise SandboxError(answer.get("error") or f"the sandbox did not start in {timeout:.0f} s:\n{log}")
        return answer

    def stop(self) -> None:
        """End its processes and remove what it wrote, unless a directory was given."""
        process, self._process = self._process, None
        if process is not None:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()
            try:
                process.wait(10)  # Its stdin is closed: it ends the database, then itself.
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._directory is not None and self._given is None:
            for _ in range(3):  # The database, ending in the same moment, may still write a file.
                shutil.rmtree(self._directory, ignore_errors=True)
                if not self._directory.exists():
                    break
        self._directory, self.api_url, self.mongo_uri = None, "", ""

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise SandboxError("this sandbox is not started")
        return self._process

    def _order(self, line: str) -> None:
        stream = self._running().stdin
        if stream is not None:
            stream.write(line + "\n")
            stream.flush()

    # --------------------------------------------------------------- what it is
    @property
    def directory(self) -> Path:
        if self._directory is None:
            raise SandboxError("this sandbox is not started")
        return self._directory

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    def env(self) -> dict[str, str]:
        """What a process needs in its environment to use this cluster."""
        return {"KUBECONFIG": str(self.kubeconfig)}

    # ------------------------------------------------------------------ control
    def control(self, path: str, body: JsonObject | None = None) -> JsonObject:
        """Ask `/sandbox/PATH`: GET without a body, POST with one. Raises SandboxError when it is refused."""
        connection = self._connection()
        try:
            headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
            connection.request(
                "GET" if body is None else "POST",
                f"/sandbox/{path}",
                None if body is None else json.dumps(body),
                headers,
            )
            answer = connection.getresponse()
            found: JsonObject = json.loads(answer.read() or b"{}")
        finally:
            connection.close()
        if answer.status >= 400:
            raise SandboxError(str(found.get("message", found)))
        return found

    def _connection(self) -> http.client.HTTPSConnection:
        """A connection to the API, which may be down for some seconds on purpose: nothing is sent before it stands."""
        url = urlsplit(self.api_url)
        context = ssl.create_default_context(cafile=str(self.directory / "api.crt"))
        end = time.monotonic() + 60
        while True:
            connection = http.client.HTTPSConnection(url.hostname or "", url.port, timeout=60, context=context)
            try:
                connection.connect()
            except (ConnectionError, ssl.SSLEOFError):
                connection.close()
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
            else:
                return connection

    def faults(self, **fields: object) -> JsonObject:
        """Set fields of `faults.Faults` (and read them all): `faults(latency_seconds=0.2, half_open_watches=True)`."""
        return self.control("faults", fields or None)

    def do(self, action: str, **arguments: object) -> JsonObject:
        return self.control("do", {"action": action, **arguments})

    def audit(self, after: int = 0) -> list[JsonObject]:
        """Every write over the API since write number `after`: method, path, agent, body, status, generation (`audit.Audit`)."""
        writes: list[JsonObject] = self.control(f"audit?after={after}")["writes"]
        return writes

    def drop_watches(self) -> None:
        """End every open watch cleanly, now."""
        self.do("drop_watches")

    def compact(self) -> None:
        """Make every known resourceVersion and continue token too old: 410 to who resumes from one."""
        self.do("compact")

    def api_down(self, seconds: float) -> None:
        """Break every connection and refuse new ones for so many real seconds."""
        self.do("api_down", seconds=seconds)
        url, end = urlsplit(self.api_url), time.monotonic() + seconds
        # The answer leaves before the door shuts: who asked is told only when it has.
        while time.monotonic() < end and _accepts(url.hostname or "", url.port or 443):
            time.sleep(0.01)

    def fail_requests(
        self,
        code: int = 503,
        path: str = ".*",
        count: int = -1,
        probability: float = 1.0,
        methods: tuple[str, ...] = (),
        retry_after: int = 1,
        *,
        landed: bool = False,
    ) -> None:
        """Answer matching requests with an error: the next `count` (-1: until `faults(answers=[])`). A watch's path ends in `?watch`.

        With `landed` they are carried out all the same, and only their answers are lost.
        """
        fault = {
            "code": code,
            "path": path,
            "count": count,
            "probability": probability,
            "methods": list(methods),
            "retry_after": retry_after,
            "landed": landed,
        }
        self.faults(answers=[*self.faults()["answers"], fault])

    def lose_image(self, image: str, *nodes: str) -> None:
        """No registry gives `image` to these nodes (all when none is named), and they do not hold it."""
        self.faults(missing_images={**self.faults()["missing_images"], image: list(nodes)})
        for node in nodes or ("node-a", "node-b"):
            self.do("remove_image", node=node, image=image)

    def load_image(self, image: str, node: str) -> None:
        """Put `image` on a node, as an import does."""
        self.do("add_image", node=node, image=image)

    def lose_node(self, node: str) -> None:
        """Cut a node off: it is NotReady, its containers run on, its pods that are deleted stay Terminating."""
        self.do("lose_node", node=node)

    def find_node(self, node: str) -> None:
        """The node is heard of again, and ends what was to end meanwhile."""
        self.do("find_node", node=node)

    def restricted_token(self, user: str, namespace: str, rules: list[JsonObject]) -> str:
        """A bearer token of a user who may do only what these RBAC rules say, in one namespace or everywhere ("")."""
        return str(self.do("token", user=user, namespace=namespace, rules=rules)["token"])

    def restricted_kubeconfig(self, path: Path, user: str, namespace: str, rules: list[JsonObject]) -> Path:
        """A kubeconfig with such a token, written to `path`."""
        config = json.loads(self.kubeconfig.read_text())
        config["users"][0]["user"]["token"] = self.restricted_token(user, namespace, rules)
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        return path

    def stop_database(self) -> None:
        """Kill the database's process."""
        self.do("stop_database")

    def start_database(self) -> None:
        """Start it again, with what was in it."""
        self.do("start_database")

    def set_speed(self, speed: float) -> None:
        self.do("speed", speed=speed)


def _accepts(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=5):
            return True
    except OSError:
        return False
