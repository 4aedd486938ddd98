"""What breaks while images travel: taken up again, or said with the manager untouched."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import yaml

from .conftest import Cluster
from .test_images_ways import NEW, NODES, REPOSITORIES, assert_upgraded, held, site

WIRE = Path(__file__).parents[1] / "bench" / "wire.py"


def through_the_wire(cluster: Cluster, cut: int) -> str:
    """A configuration that reaches the nodes through a line that is cut once, after so many bytes."""
    lines: list[str] = []
    named: list[dict[str, Any]] = []
    for letter in NODES:
        host, _, port = os.environ[f"REALCLUSTER_NODE_{letter}"].partition(":")
        name = f"node-{letter.lower()}"
        named.append({"name": name, "host": name})
        lines += [
            f"Host {name}",
            f"  HostName {host}",
            f"  Port {port}",
            "  User root",
            f"  HostKeyAlias [{host}]:{port}",
            f"  IdentityFile {os.environ['REALCLUSTER_SSH_KEY']}",
            f"  UserKnownHostsFile {os.environ['REALCLUSTER_KNOWN_HOSTS']}",
            f"  ProxyCommand {sys.executable} -S {WIRE} %h %p {cluster.backups / 'wire'} {cut}",
        ]
    ssh = cluster.backups / "ssh_config"
    ssh.write_text("\n".join(lines) + "\n")
    file = cluster.backups / "site.yaml"
    nodes = {"config_file": str(ssh), "named": named}
    file.write_text(yaml.safe_dump({"images": {"way": "docker-to-nodes", "nodes": nodes}}))
    return str(file)


def test_a_line_that_is_cut_in_the_middle(cluster: Cluster) -> None:
    cluster.reset()
    config = through_the_wire(cluster, 20_000_000)
    code, text = cluster.run("upgrade", "--to", NEW, "--together", "-f", config)
    assert (cluster.backups / "wire.cut").exists(), "the line was never cut"
    assert code == 0, text
    assert_upgraded(cluster, text)
    assert held(cluster, NEW) == {letter: set(REPOSITORIES) for letter in NODES}


def test_an_import_that_is_killed(cluster: Cluster) -> None:
    cluster.reset()
    killed = threading.Event()

    def kill() -> None:
        end = time.monotonic() + 120
        while time.monotonic() < end and not killed.is_set():
            # The bracket keeps pkill from finding the shell that runs it.
            if subprocess.run(["pkill", "-9", "-f", "[c]tr -a .*images import"], check=False).returncode == 0:
                killed.set()
            time.sleep(0.02)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    code, text = cluster.run("images", "stage", "--to", NEW, "-f", site(cluster, way="docker-to-nodes"))
    assert killed.is_set(), "no import was seen"
    thread.join(10)
    assert code == 0, text
    assert held(cluster, NEW) == {letter: set(REPOSITORIES) for letter in NODES}


def test_a_node_whose_disk_is_full_stops_it_before_the_manager(cluster: Cluster) -> None:
    """A small filesystem where the node's containerd takes things in; once it is gone, what is missing follows."""
    cluster.reset()
    root = Path(os.environ["KUBECONFIG"]).parent / "node-a" / "containerd" / "io.containerd.content.v1.content"
    cluster.on_node("A", f"mount -t tmpfs -o size=8m tmpfs {root}/ingest")
    before = cluster.generations()
    config = site(cluster, way="docker-to-nodes")
    try:
        code, text = cluster.run("upgrade", "--to", NEW, "-f", config)
    finally:
        cluster.on_node("A", f"umount {root}/ingest")
    assert code in (1, 3), text
    assert "node-a" in text
    assert "space" in text
    assert "Next:" in text
    assert "Traceback" not in text
    assert cluster.generations() == before
    assert held(cluster, NEW)["B"] == set(REPOSITORIES)
    code, text = cluster.run("images", "stage", "--to", NEW, "-f", config)
    assert code == 0, text
    assert held(cluster, NEW) == {letter: set(REPOSITORIES) for letter in NODES}


def test_a_registry_that_is_restarted_while_it_is_given_the_images(cluster: Cluster) -> None:
    cluster.reset()
    prefix = f"{os.environ['REALCLUSTER_REGISTRY']}/apinizercloud"
    config = site(cluster, way="docker-to-registry", kind="registry", prefix=prefix, insecure=True)
    run = cluster.start("images", "stage", "--to", NEW, "-f", config)
    run.at("images on registry")
    restarting = cluster.restart("registry", 2)
    code, _ = run.wait()
    assert restarting.wait(60) == 0
    assert code == 0, run.text
    for name in REPOSITORIES:
        # Without the header the registry hides a manifest in OCI's form.
        answer = httpx.head(
            f"http://{os.environ['REALCLUSTER_REGISTRY']}/v2/apinizercloud/{name}/manifests/{NEW}",
            headers={"Accept": "application/vnd.oci.image.manifest.v1+json"},
        )
        assert answer.status_code == 200, name
