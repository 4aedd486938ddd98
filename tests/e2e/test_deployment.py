"""The upgrade as a deployment: a Prefect server, a process worker, a run created by REST as CI does."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from .conftest import COMMAND, SEVEN, Cluster

PREFECT = Path(sys.executable).parent / "prefect"
AUTH = ("ci", "a-password-of-the-test")
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@contextlib.contextmanager
def running(arguments: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(arguments, env=environment, stdout=output, stderr=output, cwd=log.parent)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Iterator[tuple[httpx.Client, dict[str, str]]]:
    """A Prefect server, the registered deployment, a worker; a client of the API and the environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")} | {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_API_AUTH_STRING": ":".join(AUTH),
        "PREFECT_SERVER_API_AUTH_STRING": ":".join(AUTH),
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    server = running([str(PREFECT), "server", "start", "--port", str(port)], environment, tmp_path / "server.log")
    with server, httpx.Client(base_url=environment["PREFECT_API_URL"], auth=AUTH, timeout=30) as client:
        until(lambda: client.get("/health").status_code == 200, 120)
        deploy = [str(COMMAND), "deploy", "--installation", "site", "--kubeconfig", cluster.kubeconfig]
        for _ in range(2):  # it may be run again
            subprocess.run(deploy, env=environment, check=True, timeout=120)
        worker = [str(PREFECT), "worker", "start", "--pool", "apinizer"]
        with running(worker, environment, tmp_path / "worker.log"):
            yield client, environment


def until(true: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(httpx.TransportError):
            if true():
                return
        time.sleep(0.5)
    raise AssertionError("it did not come about in time")


def test_a_run_by_rest_upgrades_real_pods_and_its_graph_shows_the_order(
    cluster: Cluster, site: tuple[httpx.Client, dict[str, str]], tmp_path: Path
) -> None:
    client, _ = site
    cluster.reset()
    cluster.import_images("2025.07.0")
    deployment = client.get("/deployments/name/upgrade/site").raise_for_status().json()
    wish = {
        "parameters": {"to": "2025.07.0", "backup_dir": str(tmp_path / "kept")},
        "idempotency_key": "release-2025.07.0",
    }
    create = f"/deployments/{deployment['id']}/create_flow_run"
    answer = client.post(create, json=wish)
    assert answer.status_code == 201, answer.text
    run = answer.json()["id"]
    again = client.post(create, json=wish)
    assert (again.status_code, again.json()["id"]) == (200, run)
    assert client.post(create, json={"parameters": {"to": "latest"}}).status_code == 409

    until(lambda: client.get(f"/flow_runs/{run}").json()["state_type"] in ENDED, 240)
    ended = client.get(f"/flow_runs/{run}").json()
    assert ended["state_type"] == "COMPLETED", ended["state"]
    assert cluster.versions() == {name: {"2025.07.0"} for name in SEVEN}

    nodes = client.get(f"/flow_runs/{run}/graph-v2").json()["nodes"]
    labels = {identity: node["label"] for identity, node in nodes}
    manager = {i for i, label in labels.items() if label.endswith("apinizer/manager")}
    others = {i: node for i, node in nodes if node["label"].startswith("set image: ") and i not in manager}
    assert len(others) == 6
    for identity, node in others.items():
        parents = {parent["id"] for parent in node["parents"]}
        assert parents & manager, f"no edge from the manager to {labels[identity]}"
    found = client.post("/artifacts/filter", json={"flow_runs": {"id": {"any_": [run]}}}).json()
    keys = {artifact["key"] for artifact in found}
    assert {"plan", "backup", "before-and-after", "report"} <= keys
    assert len([key for key in keys if key.startswith("progress-rollout-")]) == len(SEVEN)
    shown = str(ended["parameters"]) + str(found)
    assert os.environ["REALCLUSTER_MONGO_URI"].partition("@")[0].rpartition(":")[2] not in shown
