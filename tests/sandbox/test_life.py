"""Starting and ending a sandbox."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pymongo
import pytest

from deployments.sandbox.launch import Sandbox, SandboxError

from .client import Client

ROOT = Path(__file__).parents[2]


def listens(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=1).close()
    except OSError:
        return False
    return True


def test_it_starts_as_an_installation_that_is_ready_and_leaves_nothing(tmp_path: Path) -> None:
    with Sandbox() as sandbox, Client(sandbox) as client:
        directory, urls = sandbox.directory, (sandbox.api_url, sandbox.mongo_uri)
        found = client.see("/apis/apps/v1/deployments")["items"]
        ready = {
            f"{one['metadata']['namespace']}/{one['metadata']['name']}": one["status"]["readyReplicas"] for one in found
        }
        assert ready == {
            "apinizer/manager": 1,
            "prod/worker-prod": 2,
            "prod/cache-prod": 1,
            "test/worker": 1,
            "test/cache": 1,
            "portal/apinizer-portal": 1,
            "integration/apinizer-integration": 1,
        }
        assert all(listens(url) for url in urls)
        with pymongo.MongoClient[dict[str, object]](sandbox.mongo_uri, serverSelectionTimeoutMS=5000) as database:
            assert database.apinizerdb.apinizer_schema.find_one() == {"_id": "schema", "version": "2025.04.3"}
            assert database.apinizerdb.api_proxy.count_documents({}) == 120
    assert not directory.exists()
    assert not any(listens(url) for url in urls)


def test_the_database_asks_who_it_is() -> None:
    with Sandbox() as sandbox:
        port = urlsplit(sandbox.mongo_uri).port
        with (
            pymongo.MongoClient[dict[str, object]]("127.0.0.1", port, directConnection=True) as stranger,
            pytest.raises(pymongo.errors.OperationFailure),
        ):
            stranger.apinizerdb.apinizer_schema.find_one()


@pytest.mark.parametrize(
    ("version", "portal", "manager"), [("2025.07.0", "apiportal", "manager"), ("2025.11.1", "apiportal", "apimanager")]
)
def test_other_releases_have_their_own_names(version: str, portal: str, manager: str) -> None:
    with Sandbox(version, prefix="nexus.local:8082/apinizer") as sandbox, Client(sandbox) as client:
        pods = client.see("/api/v1/pods")["items"]
        images = {pod["spec"]["containers"][0]["image"] for pod in pods}
        assert f"nexus.local:8082/apinizer/{portal}:{version}" in images
        assert f"nexus.local:8082/apinizer/{manager}:{version}" in images
        answer = client.see("/api/v1/namespaces/apinizer/services/manager:8080/proxy/apinizer/management/version")
        assert answer == {"version": version}


def test_a_release_that_there_is_not() -> None:
    with pytest.raises(SandboxError, match=r"no release 2019\.01\.0"):
        Sandbox("2019.01.0")


def test_two_at_once_and_a_directory_that_stays(tmp_path: Path) -> None:
    with Sandbox(directory=tmp_path / "kept") as one, Sandbox() as two:
        assert one.api_url != two.api_url
        assert listens(one.api_url)
        assert listens(two.api_url)
        assert (tmp_path / "kept" / "kubeconfig").stat().st_mode & 0o077 == 0
    assert (tmp_path / "kept" / "api.log").exists()
    with Sandbox(directory=tmp_path / "kept") as again:
        assert listens(again.mongo_uri)


def test_nothing_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = "import sys, time; from deployments.sandbox.launch import Sandbox; s = Sandbox(); s.start(); print(s.api_url, s.mongo_uri, s.directory, flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        api, mongo, directory = parent.stdout.readline().split()
        assert listens(api)
        assert listens(mongo)
        parent.kill()
    end = time.monotonic() + 20
    while (listens(api) or listens(mongo)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not listens(api)
    assert not listens(mongo)
    subprocess.run(["rm", "-r", directory], check=True)


def test_in_the_foreground_until_it_is_told_to_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deployments.sandbox", "--speed", "5", "--directory", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        assert f"export KUBECONFIG={tmp_path / 'kubeconfig'}" in lines[2]
        url = json.loads((tmp_path / "kubeconfig").read_text())["clusters"][0]["cluster"]["server"]
        assert listens(url)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert not listens(url)


def test_without_its_database_it_says_what_to_install(tmp_path: Path) -> None:
    hiding = tmp_path / "sitecustomize.py"
    hiding.write_text(
        "import importlib.util as u\nold = u.find_spec\nu.find_spec = lambda name, *a: None if name == 'secantus' else old(name, *a)\n"
    )
    program = "from deployments.sandbox.launch import Sandbox, SandboxError\ntry:\n    Sandbox().start()\nexcept SandboxError as error:\n    print(error)"
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=True
    )
    assert 'pip install "apinizer-upgrade[sandbox]"' in done.stdout


def test_importing_it_costs_nothing() -> None:
    program = "import sys, deployments.sandbox.launch; print(sorted(set(sys.modules) & {'uvicorn', 'pymongo', 'kubernetes', 'prefect', 'httpx', 'asyncio', 'yaml'}))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_world_can_be_read_before_the_database_is_there() -> None:
    sandbox = Sandbox()
    sandbox.begin()
    try:
        sandbox.wait_api()
        with Client(sandbox) as client:
            assert len(client.see("/apis/apps/v1/deployments")["items"]) == 7
        assert sandbox.mongo_uri == ""
        sandbox.wait()
        assert listens(sandbox.mongo_uri)
    finally:
        sandbox.stop()
    with pytest.raises(SandboxError, match="not started"):
        sandbox.wait()
