"""Each way that images come to an installation, followed by a real upgrade; what fails leaves the manager alone."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from .conftest import SEVEN, Cluster
from .test_upgrade import repository

OLD, NEW = "2025.04.3", "2025.07.0"
REPOSITORIES = ("manager", "worker", "cache", "apiportal", "integration")
NODES = ("A", "B")


def access(**more: Any) -> dict[str, Any]:
    """How both nodes are reached."""
    named = []
    for letter in NODES:
        host, _, port = os.environ[f"REALCLUSTER_NODE_{letter}"].partition(":")
        named.append({"name": f"node-{letter.lower()}", "host": host, "port": int(port)})
    key, known = os.environ["REALCLUSTER_SSH_KEY"], os.environ["REALCLUSTER_KNOWN_HOSTS"]
    return {"user": "root", "identity_file": key, "known_hosts": known, "named": named, **more}


def site(cluster: Cluster, **images: Any) -> str:
    """A configuration whose images come so; the path of the file."""
    file = cluster.backups / "site.yaml"
    file.write_text(yaml.safe_dump({"images": {"nodes": access(), **images}}))
    return str(file)


def held(cluster: Cluster, version: str) -> dict[str, set[str]]:
    """The repositories of the release that each node's runtime lists, asked by its own tool."""
    found = {}
    for letter in NODES:
        names = cluster.on_node(letter, "ctr -n k8s.io images ls -q").split()
        found[letter] = {n.rpartition("/")[2].partition(":")[0] for n in names if n.endswith(f":{version}")}
    return found


def assert_upgraded(cluster: Cluster, text: str, prefix: str = "") -> None:
    wanted = {name: repository(name, NEW) for name in SEVEN}
    if prefix:
        wanted = {name: f"{prefix}/{image.partition('/')[2]}" for name, image in wanted.items()}
    assert cluster.images() == wanted, text
    assert cluster.versions() == {name: {NEW} for name in SEVEN}, text


def test_docker_to_nodes_in_one_command(cluster: Cluster) -> None:
    cluster.reset()
    code, text = cluster.run("upgrade", "--to", NEW, "--together", "-f", site(cluster, way="docker-to-nodes"))
    assert code == 0, text
    assert_upgraded(cluster, text)
    assert held(cluster, NEW) == {letter: set(REPOSITORIES) for letter in NODES}


@pytest.mark.part
def test_containerd_to_nodes_staged_before(cluster: Cluster) -> None:
    """One node's containerd is the source: it was given the release, the other was not."""
    cluster.reset()
    cluster.import_images(NEW, ["A"])
    host, _, port = os.environ["REALCLUSTER_NODE_A"].partition(":")
    source = {"containerd": {"ssh": f"root@{host}", "port": int(port)}}
    config = site(cluster, way="containerd-to-nodes", source=source)
    before = cluster.generations()
    code, text = cluster.run("images", "stage", "--to", NEW, "-f", config)
    assert code == 0, text
    assert cluster.generations() == before
    assert held(cluster, NEW) == {letter: set(REPOSITORIES) for letter in NODES}
    code, text = cluster.run("images", "stage", "--to", NEW, "-f", config, "-o", "json")
    assert code == 0, text  # a second time does nothing
    code, text = cluster.run("upgrade", "--to", NEW, "--together", "-f", config)
    assert code == 0, text
    assert_upgraded(cluster, text)


@pytest.mark.part
def test_docker_to_registry(cluster: Cluster) -> None:
    cluster.reset()
    prefix = f"{os.environ['REALCLUSTER_REGISTRY']}/apinizercloud"
    config = site(cluster, way="docker-to-registry", kind="registry", prefix=prefix, insecure=True)
    code, text = cluster.run("upgrade", "--to", NEW, "--together", "-f", config)
    assert code == 0, text
    assert_upgraded(cluster, text, prefix)


@pytest.mark.part
def test_containerd_to_registry(cluster: Cluster) -> None:
    cluster.reset()
    cluster.import_images(NEW, ["B"])
    host, _, port = os.environ["REALCLUSTER_NODE_B"].partition(":")
    prefix = f"{os.environ['REALCLUSTER_REGISTRY']}/site/apinizer"
    source = {"containerd": {"ssh": f"root@{host}", "port": int(port)}}
    config = site(cluster, way="containerd-to-registry", kind="registry", prefix=prefix, insecure=True, source=source)
    code, text = cluster.run("upgrade", "--to", NEW, "--together", "-f", config)
    assert code == 0, text
    assert_upgraded(cluster, text, prefix)


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[str]:
    """`host:port` of a second registry, which holds the release as `docker push` puts it there."""
    program = shutil.which("docker-registry")
    assert program, "the registry that the real cluster uses is installed with it"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = tmp_path / "upstream.yml"
    storage = {"filesystem": {"rootdirectory": str(tmp_path / "upstream")}}
    config.write_text(yaml.safe_dump({"version": 0.1, "storage": storage, "http": {"addr": address}}))
    process = subprocess.Popen([program, "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://{address}/v2/")
        for name in REPOSITORIES:
            tag = f"{address}/apinizercloud/{name}:{NEW}"
            subprocess.run(["docker", "tag", f"apinizercloud/{name}:{NEW}", tag], check=True)
            subprocess.run(["docker", "push", "-q", tag], check=True, stdout=subprocess.DEVNULL)
            subprocess.run(["docker", "rmi", tag], check=True, stdout=subprocess.DEVNULL)
        yield address
    finally:
        process.kill()
        process.wait()


def wait_for(url: str) -> None:
    for _ in range(100):
        try:
            httpx.get(url)
        except httpx.TransportError:
            subprocess.run(["sleep", "0.1"], check=True)
        else:
            return
    raise AssertionError(f"{url} does not answer")


@pytest.mark.part
def test_registry_to_registry(cluster: Cluster, upstream: str) -> None:
    cluster.reset()
    prefix = f"{os.environ['REALCLUSTER_REGISTRY']}/apinizercloud"
    source = {"prefix": f"{upstream}/apinizercloud", "registry": {"insecure": True}}
    config = site(cluster, way="registry-to-registry", kind="registry", prefix=prefix, insecure=True, source=source)
    code, text = cluster.run("upgrade", "--to", NEW, "--together", "-f", config)
    assert code == 0, text
    assert_upgraded(cluster, text, prefix)


@pytest.mark.part
def test_registry_to_nodes_whose_old_images_came_from_docker(cluster: Cluster, upstream: str) -> None:
    """Sameness over both forms: compressed layers come where uncompressed ones are held."""
    cluster.reset()
    source = {"prefix": f"{upstream}/apinizercloud", "registry": {"insecure": True}}
    config = site(cluster, way="registry-to-nodes", source=source)
    code, text = cluster.run("images", "stage", "--to", NEW, "-f", config, "-o", "json")
    assert code == 0, text
    assert held(cluster, NEW) == {letter: set(REPOSITORIES) for letter in NODES}
    code, text = cluster.run("upgrade", "--to", NEW, "--together", "-f", config)
    assert code == 0, text
    assert_upgraded(cluster, text)


def test_bundle_to_nodes(cluster: Cluster) -> None:
    """Made where the Docker engine is, differential to what the site has; loaded, then upgraded from it."""
    cluster.reset()
    made = cluster.backups / "made"
    made.mkdir()
    code, text = cluster.run("images", "bundle", "--to", NEW, "--since", OLD, "--out", str(made), "-o", "json")
    assert code == 0, text
    (bundle,) = [file for file in made.iterdir() if ".tar" in file.name and not file.name.endswith(".sha256")]
    config = site(cluster)
    before = cluster.generations()
    code, text = cluster.run("images", "load", str(bundle), "-f", config)
    assert code == 0, text
    assert cluster.generations() == before
    assert held(cluster, NEW) == {letter: set(REPOSITORIES) for letter in NODES}
    config = site(cluster, way="bundle-to-nodes", source={"bundle": str(bundle)})
    code, text = cluster.run("upgrade", "--to", NEW, "--together", "-f", config)
    assert code == 0, text
    assert_upgraded(cluster, text)


@pytest.fixture(scope="module")
def old_release(kubeconfig: str) -> None:
    """A fresh installation for tests that change no Deployment."""
    Cluster(kubeconfig, Path()).reset()


def test_a_docker_node_beside_the_cluster_is_given_the_release_too(cluster: Cluster, old_release: None) -> None:
    host, _, port = os.environ["REALCLUSTER_NODE_D"].partition(":")
    extra = {"name": "node-d", "host": host, "port": int(port), "runtime": "docker", "extra": True}
    nodes = access()
    nodes["named"].append(extra)
    file = cluster.backups / "site.yaml"
    file.write_text(yaml.safe_dump({"images": {"way": "docker-to-nodes", "nodes": nodes}}))
    code, text = cluster.run("images", "stage", "--to", NEW, "-f", str(file))
    assert code == 0, text
    for name in REPOSITORIES:
        there = cluster.on_node("D", f"docker image inspect --format '{{{{.Id}}}}' apinizercloud/{name}:{NEW}").strip()
        command = ["docker", "image", "inspect", "--format", "{{.Id}}", f"apinizercloud/{name}:{NEW}"]
        assert there == subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_node_that_cannot_be_reached_stops_it_before_the_manager(cluster: Cluster, old_release: None) -> None:
    nodes = access()
    nodes["named"][1]["port"] = 1  # nothing listens there
    file = cluster.backups / "site.yaml"
    file.write_text(yaml.safe_dump({"images": {"way": "docker-to-nodes", "nodes": nodes}}))
    before = cluster.generations()
    code, text = cluster.run("upgrade", "--to", NEW, "-f", str(file))
    assert code in (1, 3), text
    assert "node-b" in text
    assert "Next:" in text
    assert "Traceback" not in text
    assert cluster.generations() == before


@pytest.mark.part
def test_a_node_that_keeps_another_image_under_the_registrys_name(cluster: Cluster, old_release: None) -> None:
    """Its kubelet would not pull: what it keeps would run, whatever that is."""
    prefix = f"{os.environ['REALCLUSTER_REGISTRY']}/apinizercloud"
    wrong = f"{prefix}/manager:{NEW}"
    cluster.on_node("B", f"ctr -n k8s.io images tag docker.io/apinizercloud/cache:{OLD} {wrong}")
    before = cluster.generations()
    config = site(cluster, way="docker-to-registry", kind="registry", prefix=prefix, insecure=True)
    try:
        for _ in range(30):  # the kubelet reports its images now and then
            nodes = cluster.get("node", "node-b")["status"]["images"]
            if any(wrong in image["names"] for image in nodes):
                break
            subprocess.run(["sleep", "2"], check=True)
        code, text = cluster.run("upgrade", "--to", NEW, "--together", "-f", config)
    finally:
        cluster.on_node("B", f"ctr -n k8s.io images rm {wrong}")
    assert code in (1, 3), text
    assert "node-b" in text
    assert wrong in text
    assert "Traceback" not in text
    assert cluster.generations() == before


def test_a_tag_that_no_engine_has(cluster: Cluster, old_release: None) -> None:
    before = cluster.generations()
    code, text = cluster.run("upgrade", "--to", "2025.07.9", "-f", site(cluster, way="docker-to-nodes"))
    assert code in (1, 3), text
    assert "2025.07.9" in text
    assert "2025.07.0" in text  # what there is
    assert "Traceback" not in text
    assert cluster.generations() == before


def test_status_tells_what_each_node_holds(cluster: Cluster, old_release: None) -> None:
    """The release is on one node only: what is complete there, and missing on the other, is told by each runtime."""
    for letter in NODES:
        ours = f"ctr -n k8s.io images ls -q | grep ':{NEW}$' | xargs -r ctr -n k8s.io images rm --sync"
        cluster.on_node(letter, ours)
    cluster.import_images(NEW, ["A"])
    code, text = cluster.run("images", "status", "--to", NEW, "-f", site(cluster, way="docker-to-nodes"), "-o", "json")
    assert code == 0, text
    told = json.loads(text)
    assert told["told_by"] == "runtime"
    releases = {n["node"]: {r["version"]: r for r in n["releases"]} for n in told["nodes"]}
    assert {name: {OLD, NEW} & found.keys() for name, found in releases.items()} == {
        "node-a": {OLD, NEW},
        "node-b": {OLD},
    }
    assert set(releases["node-a"][NEW]["repositories"]) == set(REPOSITORIES)
    assert all(release["complete"] for found in releases.values() for release in found.values())
    names = {f"docker.io/apinizercloud/{name}:{NEW}" for name in REPOSITORIES}
    places = {place["place"]: place for place in told["to"]["places"]}
    assert {name: set(place["images"]) for name, place in places.items()} == {"node-a": names, "node-b": names}
    assert {name: set(place["missing"]) for name, place in places.items()} == {"node-a": set(), "node-b": names}
    assert places["node-a"]["bytes"] == 0
