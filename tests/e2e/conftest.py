"""The real cluster: what $KUBECONFIG and the REALCLUSTER_* variables name, reset as each test asks."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

NEEDED = ("KUBECONFIG", "REALCLUSTER_COMMAND", "REALCLUSTER_IMAGES", "REALCLUSTER_SSH_KEY", "REALCLUSTER_KNOWN_HOSTS")
COMMAND = Path(sys.executable).parent / "apinizer-upgrade"
RBAC = Path(__file__).parents[2] / "deployments" / "rbac.yaml"
SEVEN = {
    "apinizer/manager",
    "prod/worker-prod",
    "prod/cache-prod",
    "test/worker",
    "test/cache",
    "portal/apinizer-portal",
    "integration/apinizer-integration",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(item.path).is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.e2e)


@dataclass
class Run:
    """A command line that runs: its lines as they come, each with the seconds since the start."""

    process: "subprocess.Popen[str]"
    lines: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._begin = time.monotonic()
        self._new = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._new:
                self.lines.append((time.monotonic() - self._begin, line.rstrip("\n")))
                self._new.notify_all()

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def at(self, text: str, *, timeout: float = 120) -> float:
        """The second at which a line that holds `text` came; waits for it."""
        end = time.monotonic() + timeout
        with self._new:
            while True:
                found = next((second for second, line in self.lines if text in line), None)
                if found is not None:
                    return found
                left = end - time.monotonic()
                if left <= 0 or (self.process.poll() is not None and not self._reader.is_alive()):
                    raise AssertionError(f"no line with {text!r} in:\n{self.text}")
                self._new.wait(min(left, 0.5))

    def wait(self, timeout: float = 240) -> tuple[int, float]:
        """Exit code, and the second at which it ended."""
        code = self.process.wait(timeout)
        ended = time.monotonic() - self._begin
        self._reader.join(10)
        return code, ended


@dataclass(frozen=True)
class Cluster:
    """The cluster and the tools to look at it that are none of this project's."""

    kubeconfig: str
    backups: Path

    def reset(self, version: str = "2025.04.3") -> None:
        subprocess.run([os.environ["REALCLUSTER_COMMAND"], "reset", version], check=True, timeout=240)

    def restart(self, part: str, seconds: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([os.environ["REALCLUSTER_COMMAND"], "restart", part, str(seconds)])

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            ["kubectl", "--kubeconfig", self.kubeconfig, *arguments],
            input=stdin, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def import_images(self, version: str, nodes: Sequence[str] = ("A", "B")) -> None:
        """Bring a release to nodes, as the published procedure does."""
        archive = Path(os.environ["REALCLUSTER_IMAGES"]) / f"apinizer-{version}.tar"
        for node in nodes:
            self.on_node(node, "ctr -n k8s.io images import -", archive)

    def on_node(self, node: str, command: str, stdin: Path = Path("/dev/null")) -> str:
        host, _, port = os.environ[f"REALCLUSTER_NODE_{node}"].partition(":")
        with stdin.open("rb") as source:
            done = subprocess.run(
                ["ssh", "-i", os.environ["REALCLUSTER_SSH_KEY"], "-o", "BatchMode=yes",
                 "-o", f"UserKnownHostsFile={os.environ['REALCLUSTER_KNOWN_HOSTS']}", "-p", port, f"root@{host}", command],
                stdin=source, capture_output=True, timeout=240, check=False,
            )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def images(self) -> dict[str, str]:
        """The image of each Deployment's only container, by namespace/name."""
        return {
            f"{d['metadata']['namespace']}/{d['metadata']['name']}": d["spec"]["template"]["spec"]["containers"][0][
                "image"
            ]
            for d in self.get("deployments", "-A")["items"]
        }

    def generations(self) -> dict[str, int]:
        return {
            f"{d['metadata']['namespace']}/{d['metadata']['name']}": d["metadata"]["generation"]
            for d in self.get("deployments", "-A")["items"]
        }

    def versions(self) -> dict[str, set[str]]:
        """What each running pod answers, asked by kubectl, by the pod's namespace/app."""
        answers: dict[str, set[str]] = {}
        for pod in self.get("pods", "-A")["items"]:
            meta = pod["metadata"]
            name = f"{meta['namespace']}/{meta['labels'].get('app', '')}"
            if name not in SEVEN or meta.get("deletionTimestamp"):
                continue
            path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}:8080/proxy/apinizer/management/version"
            answers.setdefault(name, set()).add(json.loads(self.kubectl("get", "--raw", path))["version"])
        return answers

    def limited_kubeconfig(self) -> str:
        """A kubeconfig of the account that the project's own RBAC manifest makes, and no more rights than that."""
        account = "apinizer-upgrade"
        self.kubectl("apply", "-f", str(RBAC))
        path = f"/api/v1/namespaces/{account}/serviceaccounts/{account}/token"
        request = json.dumps(
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}
        )
        answer = json.loads(self.kubectl("create", "--raw", path, "-f", "-", stdin=request))
        config = yaml.safe_load(Path(self.kubeconfig).read_text())
        config["users"][0]["user"] = {"token": answer["status"]["token"]}
        limited = self.backups / "limited.kubeconfig"
        limited.write_text(yaml.safe_dump(config))
        return str(limited)

    def start(self, *arguments: str, **environment: str) -> Run:
        """`apinizer-upgrade` with these arguments."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        return Run(
            subprocess.Popen(
                [str(COMMAND), *arguments],
                env={**env, "KUBECONFIG": self.kubeconfig, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=self.backups,
            )
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        run = self.start(*arguments, **environment)
        code, _ = run.wait()
        return code, run.text


@pytest.fixture(scope="session")
def kubeconfig() -> str:
    missing = [name for name in NEEDED if not os.environ.get(name)]
    if missing:
        pytest.exit(f"the end-to-end tests need a real cluster; not set: {', '.join(missing)}", returncode=2)
    return os.environ["KUBECONFIG"]


@pytest.fixture
def cluster(kubeconfig: str, tmp_path: Path) -> Iterator[Cluster]:
    yield Cluster(kubeconfig, tmp_path)
    subprocess.run(
        ["kubectl", "--kubeconfig", kubeconfig, "uncordon", "node-a", "node-b"], capture_output=True, check=False
    )
