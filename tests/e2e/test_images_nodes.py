"""Nodes' own runtimes as source and target, with lines that are cut and imports that are killed.

In a containerd namespace of the tests' own, so that the cluster's images stay as they are.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.domain.errors import TemporaryError, UnprovenError, UpgradeError
from tasks.domain.reference import ImageReference
from tasks.images.containerd import ContainerdSource, ContainerdTarget
from tasks.images.containerd.inlet import LayoutInlet
from tasks.images.delivery import Outcome, Receiver, deliver
from tasks.images.engine import DockerSource
from tasks.images.missing import need_of
from tasks.images.model import Blob, Holdings, Image, Need, Platform, Source
from tasks.images.remote import Host, Remote

SPACE = "e2e-images"
OLD, NEW = "2025.04.3", "2025.07.0"
REFERENCES = [ImageReference.parse(f"apinizercloud/{each}:{NEW}") for each in
              ("manager", "worker", "cache", "apiportal", "integration")]  # fmt: skip


class Counted(ContainerdTarget):
    """A node whose inlet can be asked for the bytes that it wrote."""

    wire = 0

    def inlet(self, images: Sequence[Image], need: Need, holdings: Holdings) -> LayoutInlet:
        self.opened = super().inlet(images, need, holdings)
        return self.opened


class Faulty:
    """A source that calls `fault` once, in the middle of a layer of megabytes."""

    def __init__(self, source: Source, fault: Callable[[], None]) -> None:
        self.source, self.fault, self.where = source, fault, source.where
        self.done = False

    def find(self, references: Sequence[ImageReference], platform: Platform | None) -> tuple[Image, ...]:
        return self.source.find(references, platform)

    def read(self, images: Sequence[Image], wanted: frozenset[str]) -> Iterator[Blob]:
        large = 0
        for blob in self.source.read(images, wanted):
            large += blob.size > 1_000_000
            yield replace(blob, chunks=self._chunks(blob)) if large == 3 and not self.done else blob

    def _chunks(self, blob: Blob) -> Iterator[bytes]:
        count = 0
        for chunk in blob.chunks:
            count += len(chunk)
            yield chunk
            if count > blob.size // 2 and not self.done:
                self.done = True
                # What was handed over is on its way by then: a whole layer of another image.
                time.sleep(2)
                self.fault()
                time.sleep(1)


def remote(letter: str) -> Remote:
    host, _, port = os.environ[f"REALCLUSTER_NODE_{letter}"].partition(":")
    key, known = os.environ["REALCLUSTER_SSH_KEY"], os.environ["REALCLUSTER_KNOWN_HOSTS"]
    return Remote(Host(f"node-{letter.lower()}", host, "root", int(port), identity_file=key, known_hosts=known))


def on(letter: str, command: str, stdin: Path = Path("/dev/null")) -> str:
    """What a node's own tools say, asked without the code under test."""
    host, _, port = os.environ[f"REALCLUSTER_NODE_{letter}"].partition(":")
    ssh = ["ssh", "-i", os.environ["REALCLUSTER_SSH_KEY"], "-o", f"UserKnownHostsFile={os.environ['REALCLUSTER_KNOWN_HOSTS']}",
           "-o", "BatchMode=yes", "-p", port, f"root@{host}", command]  # fmt: skip
    with stdin.open("rb") as source:
        done = subprocess.run(ssh, stdin=source, capture_output=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def names(letter: str, version: str) -> set[str]:
    return {name for name in on(letter, f"ctr -n {SPACE} images ls -q").split() if name.endswith(f":{version}")}


@pytest.fixture
def nodes(kubeconfig: str) -> Iterator[dict[str, Counted]]:
    """Both nodes with the old release in the tests' namespace, and nothing else there."""
    letters = ("A", "B")
    with ThreadPoolExecutor() as pool:
        list(pool.map(_empty, letters))
        archive = Path(os.environ["REALCLUSTER_IMAGES"]) / f"apinizer-{OLD}.tar"
        list(pool.map(lambda letter: on(letter, f"ctr -n {SPACE} images import -", archive), letters))
        yield {letter: Counted(remote(letter), f"node-{letter.lower()}", namespace=SPACE) for letter in letters}
        list(pool.map(_empty, letters))


def _empty(letter: str) -> None:
    on(letter, f"ctr -n {SPACE} leases ls -q | xargs -r ctr -n {SPACE} leases rm >/dev/null; "
               f"ctr -n {SPACE} images ls -q | xargs -r ctr -n {SPACE} images rm --sync >/dev/null; "
               f"ctr -n {SPACE} content ls -q | xargs -r ctr -n {SPACE} content rm >/dev/null")  # fmt: skip


def bring(
    source: Source, nodes: Sequence[Counted]
) -> tuple[tuple[Image, ...], dict[str, Outcome], dict[str, Receiver]]:
    images = source.find(REFERENCES, None)
    with ThreadPoolExecutor() as pool:
        holdings = list(pool.map(lambda node: node.look(images), nodes))
    receivers = [
        Receiver(node.where, node, images, held, need_of(images, held))
        for node, held in zip(nodes, holdings, strict=True)
    ]
    return images, deliver(source, images, receivers), {each.name: each for each in receivers}


def bring_well(source: Source, nodes: Sequence[Counted]) -> tuple[Image, ...]:
    images, outcomes, _ = bring(source, nodes)
    assert [outcome.error for outcome in outcomes.values()] == [None] * len(nodes)
    for node in nodes:
        node.keep(images)
        assert [proof.config for proof in node.prove(images)] == [image.config for image in images]
    return images


def config_of_engine(image: str) -> str:
    """The image's ID as the Docker engine's own client tells it: the config's digest."""
    told: list[dict[str, Any]] = json.loads(
        subprocess.run(["docker", "inspect", image], capture_output=True, check=True, timeout=60).stdout
    )
    return str(told[0]["Id"])


def test_both_nodes_get_what_is_missing_and_no_more(nodes: dict[str, Counted]) -> None:
    begin = time.monotonic()
    both = list(nodes.values())
    images, outcomes, _ = bring(DockerSource(), both)
    brought = time.monotonic()
    assert [outcome.error for outcome in outcomes.values()] == [None, None]
    proofs = [proof for node in both for proof in node.prove(images)]
    print(f"brought in {brought - begin:.2f} s, proved in {time.monotonic() - brought:.2f} s")
    expected = [config_of_engine(str(reference)) for reference in REFERENCES]
    assert [proof.config for proof in proofs] == expected * 2
    # 12 MB for the release and 6 MB for each image, and small change: of 675 MB that the published way copies.
    missing = 12_000_000 + 5 * 6_000_000
    for node in both:
        assert missing < node.opened.sent < 1.01 * missing
    for letter in nodes:
        assert names(letter, NEW) == {reference.normal for reference in REFERENCES}
        checked = on(letter, f"ctr -n {SPACE} images check").splitlines()[1:]
        assert len(checked) == 10
        assert all("complete (5/5)" in line and line.split()[-1] == "true" for line in checked)
    again, outcomes, _ = bring(DockerSource(), both)
    assert [outcome.sent for outcome in outcomes.values()] == [0, 0]
    assert again == images


def test_a_node_gives_its_images_to_another(nodes: dict[str, Counted]) -> None:
    on("A", f"ctr -n {SPACE} images import -", Path(os.environ["REALCLUSTER_IMAGES"]) / f"apinizer-{NEW}.tar")
    source = ContainerdSource(remote("A"), namespace=SPACE)
    images = bring_well(source, [nodes["B"]])
    assert nodes["B"].opened.sent < 43_000_000
    assert [proof.manifest_digest for proof in nodes["B"].prove(images)] == [image.manifest_digest for image in images]


def test_layers_that_came_from_a_registry_are_used_for_images_of_an_engine(nodes: dict[str, Counted]) -> None:
    """What a node pulled is compressed, what `docker save` gives is not; and the other way round."""
    files = {version: Path(os.environ["REALCLUSTER_IMAGES"]) / f"apinizer-{version}.tar" for version in (OLD, NEW)}
    _empty("A")
    on("A", f"ctr -n {SPACE} images import --compress-blobs -", files[OLD])
    images = bring_well(DockerSource(), [nodes["A"]])
    assert nodes["A"].opened.sent < 43_000_000
    assert {len(image.layers) for image in images} == {4}
    _empty("A")
    on("A", f"ctr -n {SPACE} images import --compress-blobs -", files[NEW])
    bring_well(ContainerdSource(remote("A"), namespace=SPACE), [nodes["B"]])
    assert nodes["B"].opened.sent < 43_000_000
    for letter in nodes:
        assert all("complete (5/5)" in line for line in on(letter, f"ctr -n {SPACE} images check").splitlines()[1:])


def cut(node: Counted) -> None:
    """Kill the process of the node's sshd that serves this connection."""
    told = node._ctr.remote.run(["sh", "-c", "cut -d ' ' -f 4 /proc/$PPID/stat"])
    pid = int(told.stdout)
    assert b"sshd" in Path(f"/proc/{pid}/cmdline").read_bytes()
    os.kill(pid, signal.SIGKILL)


def kill_import(node: Counted) -> None:
    """Kill the import that runs on the node, and no other's."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = file.read_bytes().split(b"\0")
            if words[0].endswith(b"ctr") and SPACE.encode() in words and b"import" in words:
                found.append(int(file.parent.name))
    assert found, "no import runs"
    for pid in found:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("fault", [cut, kill_import])
def test_a_transfer_that_broke_leaves_nothing_that_counts_and_is_taken_up(
    nodes: dict[str, Counted], fault: Callable[[Counted], None]
) -> None:
    node = nodes["A"]
    source = Faulty(DockerSource(), lambda: fault(node))
    _, outcomes, _ = bring(source, [node])
    error = outcomes[node.where].error
    print(error)
    assert isinstance(error, TemporaryError)
    assert source.done
    assert names("A", NEW) == set()
    before = node.opened.sent
    images = bring_well(source, [node])
    print(f"first {before} bytes, then {node.opened.sent}")
    # The layers that had come whole were kept by the lease of the import that died.
    assert node.opened.sent < 30_000_000
    assert len(images) == 5


def test_layers_that_vanish_between_look_and_import_are_sent_by_the_next_try(nodes: dict[str, Counted]) -> None:
    node, source = nodes["B"], DockerSource()
    images = source.find(REFERENCES, None)
    held = node.look(images)
    need = need_of(images, held)
    (shared,) = need.reuse.values()
    on("B", f"ctr -n {SPACE} content rm {shared.digest}")
    outcome = deliver(source, images, [Receiver("b", node, images, held, need)])["b"]
    error: UpgradeError | None = outcome.error
    if error is None:
        with pytest.raises(TemporaryError, match="does not hold") as caught:
            node.prove(images)
        error = caught.value
    print(error)
    assert isinstance(error, TemporaryError)
    assert shared.digest in str(error)
    bring_well(source, [node])
    assert node.opened.sent > 100_000_000


def test_another_image_under_the_name_is_no_proof(nodes: dict[str, Counted]) -> None:
    node, source = nodes["A"], DockerSource()
    images = bring_well(source, [node])
    worker, cache = REFERENCES[1].normal, REFERENCES[2].normal
    on("A", f"ctr -n {SPACE} images rm {worker} && ctr -n {SPACE} images tag {cache} {worker}")
    with pytest.raises(UnprovenError, match="holds another image under the name") as caught:
        node.prove(images)
    assert images[1].config in caught.value.observed
    assert images[2].config in caught.value.observed


def test_errors_of_a_node(kubeconfig: str) -> None:
    nowhere = ContainerdTarget(remote("A"), "node-a", address="/run/none.sock", namespace=SPACE)
    with pytest.raises(TemporaryError, match="containerd on node-a does not answer"):
        nowhere.look([])
    with pytest.raises(UpgradeError, match="nosuchctr was not found on node-a"):
        ContainerdTarget(remote("A"), "node-a", tool="nosuchctr", namespace=SPACE).look([])
