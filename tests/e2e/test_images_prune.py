"""Old releases removed from real nodes: what is in use, installed or needed stays, whoever names it.

Images of a folder of their own; nothing that the installation runs is touched.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import Cluster

FOLDER = "docker.io/apinizer-prune"
OLDEST, OLD, BEFORE, NEWER = "2024.01.6", "2024.05.0", "2025.01.0", "2031.01.0"
# Different contents, so that no two of them are one image on a node.
CONTENT = {OLDEST: "2025.11.1", OLD: "2025.08.0", BEFORE: "2025.07.0", NEWER: "2025.11.1"}
REPOSITORY = {OLDEST: "worker", OLD: "worker", BEFORE: "worker", NEWER: "cache"}


def name_of(version: str) -> str:
    return f"{FOLDER}/{REPOSITORY[version]}:{version}"


@pytest.fixture(scope="module")
def installed(kubeconfig: str) -> None:
    """A fresh installation, which no test here changes."""
    Cluster(kubeconfig, Path()).reset()


@pytest.fixture
def held(cluster: Cluster, installed: None, tmp_path: Path) -> Iterator[Path]:
    """A configuration that reaches the nodes, which hold four releases of the folder."""
    for version, content in CONTENT.items():
        archive = tmp_path / f"{version}.tar"
        short = name_of(version).removeprefix("docker.io/")
        subprocess.run(["docker", "tag", f"apinizercloud/{REPOSITORY[version]}:{content}", short], check=True)
        subprocess.run(["docker", "save", "-o", str(archive), short], check=True)
        subprocess.run(["docker", "rmi", short], check=True, capture_output=True)
        for node in "AB":
            cluster.on_node(node, "ctr -n k8s.io images import -", archive)
    named = []
    for node in "AB":
        host, _, port = os.environ[f"REALCLUSTER_NODE_{node}"].partition(":")
        named.append({"name": f"node-{node.lower()}", "host": host, "port": int(port)})
    access = {
        "user": "root",
        "identity_file": os.environ["REALCLUSTER_SSH_KEY"],
        "known_hosts": os.environ["REALCLUSTER_KNOWN_HOSTS"],
        "named": named,
    }
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"images": {"way": "docker-to-nodes", "nodes": access}}))
    yield config
    cluster.kubectl("delete", "pod", "prune-user", "-n", "default", "--ignore-not-found", "--grace-period=0", "--force")
    for node in "AB":
        cluster.on_node(
            node,
            f"for digest in $(ctr -n k8s.io images ls name~={FOLDER} | awk 'NR>1 {{print $3}}'); do "
            "ctr -n k8s.io images ls | awk -v d=$digest '$3 == d {print $1}'; done | sort -u | "
            "xargs -r ctr -n k8s.io images rm",
        )


def present(cluster: Cluster, node: str) -> set[str]:
    """The versions of the folder that a node's containerd tells."""
    listed = cluster.on_node(node, f"ctr -n k8s.io images ls -q name~={FOLDER}")
    return {line.rpartition(":")[2] for line in listed.splitlines()}


@pytest.fixture
def prune(cluster: Cluster, held: Path) -> Callable[..., dict[str, dict[str, Any]]]:
    def run(*arguments: str) -> dict[str, dict[str, Any]]:
        """Each node's part of the document, by the node's name."""
        done = subprocess.run(
            [str(Path(sys.executable).parent / "apinizer-upgrade"), "images", "prune", "-f", str(held), "-o", "json", "-y", *arguments],
            capture_output=True, text=True, timeout=300, check=False, cwd=held.parent,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return {node["node"]: node for node in json.loads(done.stdout)["nodes"]}

    return run


def both(fate: dict[str, bool]) -> dict[str, dict[str, bool]]:
    return {"node-a": fate, "node-b": fate}


def fates(node: dict[str, Any]) -> dict[str, bool]:
    return {
        image["names"][0].rpartition(":")[2]: image["goes"]
        for image in node["images"]
        if image["names"][0].startswith(FOLDER)
    }


def test_old_releases_go_and_the_rest_stays(cluster: Cluster, prune: Callable[..., dict[str, dict[str, Any]]]) -> None:
    expected = {OLDEST: True, OLD: True, BEFORE: False, NEWER: False}
    kept = prune("--dry-run", "--keep", "1")
    assert {name: fates(node) for name, node in kept.items()} == both({**expected, OLD: False})
    assert present(cluster, "A") == present(cluster, "B") == set(CONTENT), "a look removes nothing"

    pods = {p["metadata"]["uid"] for p in cluster.get("pods", "-A")["items"]}
    nodes = prune()
    assert {name: fates(node) for name, node in nodes.items()} == both(expected)
    for name, node in nodes.items():
        assert set(node["removed"]) == {name_of(OLDEST), name_of(OLD)}, name
        stays = {image["names"][0]: image["because"] for image in node["images"] if not image["goes"]}
        assert any(n.startswith("docker.io/apinizercloud/") and "uses it" in why for n, why in stays.items())
    for node_letter in "AB":
        assert present(cluster, node_letter) == {BEFORE, NEWER}
        # The kubelet's own names of what went are gone as well: the content could be collected.
        broken = cluster.on_node(node_letter, "ctr -n k8s.io images check | grep -c incomplete || true").strip()
        assert broken == "0"
    assert pods <= {p["metadata"]["uid"] for p in cluster.get("pods", "-A")["items"]}
    assert all(not node["removed"] for node in prune().values()), "nothing is left to remove"


def test_an_old_release_that_a_pod_of_somebody_runs_stays(
    cluster: Cluster, prune: Callable[..., dict[str, dict[str, Any]]]
) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "prune-user", "namespace": "default"},
        "spec": {
            "nodeName": "node-a",
            "automountServiceAccountToken": False,
            "containers": [{"name": "c", "image": name_of(OLDEST), "imagePullPolicy": "Never"}],
        },
    }
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    nodes = prune()
    for name in ("node-a", "node-b"):
        assert fates(nodes[name]) == {OLDEST: False, OLD: True, BEFORE: False, NEWER: False}
        oldest = next(i for i in nodes[name]["images"] if name_of(OLDEST) in i["names"])
        assert "the pod default/prune-user uses it" in oldest["because"]
    assert OLDEST in present(cluster, "A")
    assert OLD not in present(cluster, "A")
