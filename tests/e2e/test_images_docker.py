"""A real Docker engine as the source, and another one, behind SSH, as a node's runtime."""

import contextlib
import hashlib
import os
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.domain.errors import NotFoundError, TemporaryError
from tasks.domain.reference import ImageReference
from tasks.images.delivery import Outcome, Receiver, deliver
from tasks.images.engine import DockerNodeTarget, DockerSource
from tasks.images.missing import need_of
from tasks.images.model import Image
from tasks.images.remote import Host, Remote
from tests.e2e.conftest import Cluster

COMPONENTS = ("manager", "worker", "cache", "apiportal", "integration")
BASE_BYTES = 110_000_000
RELEASE_BYTES = 12_000_000 + len(COMPONENTS) * 6_000_000


def references(version: str) -> list[ImageReference]:
    return [ImageReference.parse(f"apinizercloud/{component}:{version}") for component in COMPONENTS]


def machine() -> Host:
    host, _, port = os.environ["REALCLUSTER_NODE_D"].partition(":")
    keys = {"identity_file": os.environ["REALCLUSTER_SSH_KEY"], "known_hosts": os.environ["REALCLUSTER_KNOWN_HOSTS"]}
    return Host("node-d", host, user="root", port=int(port), **keys)


def node_d(address: str = "") -> DockerNodeTarget:
    return DockerNodeTarget(Remote(machine()), "node-d", address=address)


def bring(images: tuple[Image, ...], target: DockerNodeTarget, source: DockerSource | None = None) -> Outcome:
    holdings = target.look(images)
    receiver = Receiver("node-d", target, images, holdings, need_of(images, holdings))
    return deliver(source or DockerSource(), images, [receiver])["node-d"]


@pytest.fixture
def empty_node(cluster: Cluster) -> Cluster:
    cluster.on_node("D", "docker image prune -af >/dev/null")
    return cluster


class _Cut(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A socket in front of an engine's; after `most` bytes in one direction both are closed, as if the line broke."""

    daemon_threads = True

    def __init__(self, path: Path, engine: str, most: int) -> None:
        self.engine, self.left = engine, most
        super().__init__(str(path), _Between)


class _Between(socketserver.BaseRequestHandler):
    server: _Cut

    def handle(self) -> None:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.connect(self.server.engine)
            back = threading.Thread(target=self._pass, args=(engine, self.request), daemon=True)
            back.start()
            self._pass(self.request, engine)
            back.join()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := one.recv(65536):
                self.server.left -= len(piece)
                if self.server.left < 0:
                    one.shutdown(socket.SHUT_RDWR)
                    break
                other.sendall(piece)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_RDWR if self.server.left < 0 else socket.SHUT_WR)


@contextmanager
def cut_after(most: int, engine: str, folder: Path) -> Iterator[str]:
    with _Cut(folder / "cut.sock", engine, most) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"unix://{folder}/cut.sock"
        server.shutdown()


def engine_of_node_d() -> str:
    return str(Path(os.environ["DOCKER_HOST"].removeprefix("unix://")).with_name("node-d-docker.sock"))


def test_one_release_and_the_next(empty_node: Cluster) -> None:
    first = DockerSource().find(references("2025.07.0"), None)
    outcome = bring(first, node_d())
    assert outcome.error is None
    assert BASE_BYTES + RELEASE_BYTES < outcome.sent < 1.15 * (BASE_BYTES + RELEASE_BYTES)
    assert [proof.config for proof in node_d().prove(first)] == [image.config for image in first]

    second = DockerSource().find(references("2025.08.0"), None)
    outcome = bring(second, node_d())
    assert outcome.error is None
    assert outcome.sent < 1.1 * RELEASE_BYTES
    assert [proof.config for proof in node_d().prove(second)] == [image.config for image in second]
    listed = empty_node.on_node(
        "D", "docker images --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}'"
    ).splitlines()
    assert {f"{image.origin} {image.config}" for image in (*first, *second)} == set(listed)
    assert bring(second, node_d()) == Outcome(0, None)


def test_an_engine_behind_ssh_as_the_source(empty_node: Cluster) -> None:
    """The same images, and of one archive only what is wanted."""
    images = DockerSource().find(references("2025.07.0"), None)
    assert bring(images, node_d()).error is None
    address = f"ssh://root@{os.environ['REALCLUSTER_NODE_D']}"
    source = DockerSource(address, ssh=machine())
    found = source.find(references("2025.07.0"), None)
    assert [(image.name, image.config, image.diff_ids) for image in found] == [
        (image.name, image.config, image.diff_ids) for image in images
    ]
    base, *others = images[0].diff_ids
    came = {}
    for blob in source.read(found, frozenset(others)):
        content = hashlib.sha256()
        came[blob.digest] = blob.kind
        for chunk in blob.chunks:
            content.update(chunk)
        assert f"sha256:{content.hexdigest()}" == blob.digest
    assert came == {**dict.fromkeys(others, "layer"), **{image.config: "config" for image in images}}
    assert base not in came


@pytest.mark.parametrize("most", [2_000_000, 60_000_000])
def test_the_nodes_engine_is_cut_off_in_mid_load(empty_node: Cluster, tmp_path: Path, most: int) -> None:
    """A clear error, nothing loaded, and the next try brings it all."""
    images = DockerSource().find(references("2025.07.0"), None)
    with cut_after(most, engine_of_node_d(), tmp_path) as address:
        error = bring(images, node_d(address)).error
    assert isinstance(error, TemporaryError), error
    assert "node-d" in error.happened
    assert error.observed
    assert empty_node.on_node("D", "docker images -q") == ""
    assert bring(images, node_d()).error is None
    assert len(node_d().prove(images)) == len(COMPONENTS)


def test_the_source_is_cut_off_in_mid_save(empty_node: Cluster, tmp_path: Path) -> None:
    images = DockerSource().find(references("2025.07.0"), None)
    with cut_after(60_000_000, os.environ["DOCKER_HOST"].removeprefix("unix://"), tmp_path) as address:
        error = bring(images, node_d(), DockerSource(address)).error
    assert isinstance(error, TemporaryError), error
    assert "cut.sock" in error.happened
    assert empty_node.on_node("D", "docker images -q") == ""
    assert bring(images, node_d()).error is None


def test_an_unknown_tag(cluster: Cluster) -> None:
    with pytest.raises(NotFoundError, match=r"2025\.04\.3, 2025\.07\.0, 2025\.08\.0, 2025\.11\.1"):
        DockerSource().find([ImageReference.parse("apinizercloud/worker:2024.01.0")], None)
