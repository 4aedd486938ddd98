"""Bad input against the real cluster: each a clear error and its exit code, and nothing is changed."""

import base64
import json
import os
import socket
from pathlib import Path

import pytest
import yaml

from .conftest import Cluster


@pytest.fixture(scope="module", autouse=True)
def fresh(kubeconfig: str) -> None:
    Cluster(kubeconfig, Path()).reset()


def refused(cluster: Cluster, code: int, *arguments: str, **environment: str) -> str:
    """The error's text, after the exit code, the four parts and an untouched world were asserted."""
    before = cluster.generations()
    found, text = cluster.run(*arguments, **environment)
    assert found == code, text
    assert "Traceback" not in text
    assert "Safe now: Nothing was changed." in text
    assert "Next: " in text
    assert cluster.generations() == before
    assert not list(cluster.backups.glob("backups/*"))
    return text


@pytest.mark.parametrize("version", ["latest", "v2025.07.0", "2025.13.0", "2025.07", ""])
def test_a_text_that_is_no_version(cluster: Cluster, version: str) -> None:
    assert "is not a version of Apinizer" in refused(cluster, 2, "upgrade", "--to", version)


def test_a_version_below_the_current_one(cluster: Cluster) -> None:
    assert "downgrading is not supported" in refused(cluster, 3, "upgrade", "--to", "2024.11.1")


def test_no_kubeconfig(cluster: Cluster) -> None:
    text = refused(cluster, 2, "upgrade", "--to", "2025.07.0", KUBECONFIG=str(cluster.backups / "none"))
    assert "there is no such file" in text


def test_an_api_that_cannot_be_reached(cluster: Cluster) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        config = yaml.safe_load(Path(cluster.kubeconfig).read_text())
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{unused.getsockname()[1]}"
        other = cluster.backups / "other"
        other.write_text(yaml.safe_dump(config))
        refused(cluster, 1, "upgrade", "--to", "2025.07.0", KUBECONFIG=str(other))


def test_an_account_without_rights(cluster: Cluster) -> None:
    name = "nobody-e2e"
    cluster.kubectl("delete", "serviceaccount", "-n", "default", name, "--ignore-not-found")
    cluster.kubectl("create", "serviceaccount", "-n", "default", name)
    path = f"/api/v1/namespaces/default/serviceaccounts/{name}/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}
    token = json.loads(cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(request)))["status"][
        "token"
    ]
    config = yaml.safe_load(Path(cluster.kubeconfig).read_text())
    config["users"][0]["user"] = {"token": token}
    other = cluster.backups / "nobody"
    other.write_text(yaml.safe_dump(config))
    text = refused(cluster, 1, "upgrade", "--to", "2025.07.0", KUBECONFIG=str(other))
    assert "forbidden" in text.lower()
    assert token not in text


def test_no_apinizer_where_it_is_looked_for(cluster: Cluster) -> None:
    assert "No Apinizer was found" in refused(cluster, 1, "upgrade", "--to", "2025.07.0", "-n", "default")


def test_a_wrong_database_password(cluster: Cluster) -> None:
    secret = cluster.get("secret", "-n", "apinizer", "mongo-db-credentials")
    uri = base64.b64decode(secret["data"]["dbUrl"]).decode()
    head, _, tail = uri.partition("@")
    wrong = f"{head}wrong@{tail}"
    patch = {"data": {"dbUrl": base64.b64encode(wrong.encode()).decode()}}
    cluster.kubectl("patch", "secret", "-n", "apinizer", "mongo-db-credentials", "-p", json.dumps(patch))
    try:
        text = refused(cluster, 1, "upgrade", "--to", "2025.07.0")
        assert head.rpartition(":")[2] not in text
    finally:
        patch = {"data": {"dbUrl": secret["data"]["dbUrl"]}}
        cluster.kubectl("patch", "secret", "-n", "apinizer", "mongo-db-credentials", "-p", json.dumps(patch))


@pytest.mark.part
def test_a_database_that_is_down(cluster: Cluster) -> None:
    config = cluster.backups / "site.yaml"
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        config.write_text(f"database: {{host: '127.0.0.1:{unused.getsockname()[1]}', password: hunter2hunter2}}\n")
        text = refused(cluster, 1, "upgrade", "--to", "2025.07.0", "--config", str(config))
    assert "hunter2hunter2" not in text
    assert os.environ["REALCLUSTER_MONGO_URI"].partition("@")[0].rpartition(":")[2] not in text
