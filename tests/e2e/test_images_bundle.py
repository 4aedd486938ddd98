"""Bundles of real images: from a real engine and a real registry, into real runtimes, with and without this software.

In a containerd namespace of the tests' own on the nodes, so that the cluster's images stay as they are.
"""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
import zstandard

from tasks.domain.errors import DamagedArchiveError
from tasks.domain.reference import ImageReference
from tasks.images.bundle import (
    Base,
    BundleFacts,
    BundleSource,
    Compression,
    HeldList,
    MissingBaseError,
    read_held,
    verify_bundle,
    write_bundle,
)
from tasks.images.containerd import ContainerdTarget
from tasks.images.delivery import Outcome, Receiver, deliver
from tasks.images.engine import DockerSource
from tasks.images.missing import need_of
from tasks.images.model import Image, Need, Source, Target
from tasks.images.registry.access import Access
from tasks.images.registry.source import RegistrySource
from tasks.images.registry.target import RegistryTarget
from tasks.images.remote import Host, Remote
from tests.e2e.test_images_registry import own

SPACE = "e2e-bundle"
OLD, NEW = "2025.04.3", "2025.07.0"
PARTS = {
    OLD: ("manager", "worker", "cache", "portal", "integration"),
    NEW: ("manager", "worker", "cache", "apiportal", "integration"),
}
ACCESS = Access(insecure=True)


def references(version: str, prefix: str = "apinizercloud") -> list[ImageReference]:
    return [ImageReference.parse(f"{prefix}/{part}:{version}") for part in PARTS[version]]


def on(letter: str, command: str, stdin: Path = Path("/dev/null")) -> str:
    """What a node's own tools say, asked without the code under test."""
    host, _, port = os.environ[f"REALCLUSTER_NODE_{letter}"].partition(":")
    ssh = ["ssh", "-i", os.environ["REALCLUSTER_SSH_KEY"], "-o", f"UserKnownHostsFile={os.environ['REALCLUSTER_KNOWN_HOSTS']}",
           "-o", "BatchMode=yes", "-p", port, f"root@{host}", command]  # fmt: skip
    with stdin.open("rb") as source:
        done = subprocess.run(ssh, stdin=source, capture_output=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def target(letter: str) -> ContainerdTarget:
    host, _, port = os.environ[f"REALCLUSTER_NODE_{letter}"].partition(":")
    key, known = os.environ["REALCLUSTER_SSH_KEY"], os.environ["REALCLUSTER_KNOWN_HOSTS"]
    name = f"node-{letter.lower()}"
    remote = Remote(Host(name, host, "root", int(port), identity_file=key, known_hosts=known))
    return ContainerdTarget(remote, name, namespace=SPACE)


def empty(letter: str) -> None:
    on(letter, f"ctr -n {SPACE} images ls -q | xargs -r ctr -n {SPACE} images rm --sync >/dev/null")


@pytest.fixture
def nodes(kubeconfig: str) -> Iterator[tuple[ContainerdTarget, ContainerdTarget]]:
    """Node A with the old release in the tests' namespace, node B with nothing there."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(empty, "AB"))
        on("A", f"ctr -n {SPACE} images import -", Path(os.environ["REALCLUSTER_IMAGES"]) / f"apinizer-{OLD}.tar")
        yield target("A"), target("B")
        list(pool.map(empty, "AB"))


def bundled(source: Source, images: Sequence[Image], folder: Path, *, held: Base | None = None,
            compress: Compression | None = None) -> BundleFacts:  # fmt: skip
    return write_bundle(source, images, folder, version=NEW, made_at=datetime.now(UTC), held=held, compress=compress)


def brought(source: Source, images: Sequence[Image], to: Target) -> tuple[Need, Outcome]:
    """Delivered and proved by the target's own runtime."""
    holdings = to.look(images)
    need = need_of(images, holdings)
    outcome = deliver(source, images, [Receiver("it", to, images, holdings, need)])["it"]
    if outcome.error:
        raise outcome.error
    assert {proof.name: proof.config for proof in to.prove(images)} == {image.name: image.config for image in images}
    return need, outcome


def configs_of(letter: str) -> set[str]:
    """The config digest of each new image in the namespace, read with `ctr content get`."""
    script = (
        f"ctr -n {SPACE} images ls | grep {NEW} | sed 's/.*sha256:/sha256:/; s/ .*//' | while read d; do "
        f'ctr -n {SPACE} content get $d | python3 -c \'import json,sys; print(json.load(sys.stdin)["config"]["digest"])\'; done'
    )
    return set(on(letter, script).split())


@pytest.mark.parametrize("compress", ["none", "zstd"])
def test_ctr_takes_the_file_by_itself(
    nodes: tuple[ContainerdTarget, ContainerdTarget], tmp_path: Path, compress: Compression
) -> None:
    """As it is; a compressed one after `zstd -d`, because the ctr of containerd 1.6 does not unpack archives."""
    engine = DockerSource()
    images = engine.find(references(NEW), None)
    path = Path(bundled(engine, images, tmp_path, compress=compress).path)
    if compress == "zstd":
        with (
            path.open("rb") as packed,
            zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as unpacked,
            (tmp_path / "plain").open("wb") as plain,
        ):
            shutil.copyfileobj(unpacked, plain)
        path = tmp_path / "plain"
    on("B", f"ctr -n {SPACE} images import -", path)
    names = {line.split()[0] for line in on("B", f"ctr -n {SPACE} images check").splitlines() if "complete" in line}
    assert names == {image.name for image in images}
    assert configs_of("B") == {image.config for image in images}


def test_docker_loads_the_file_by_itself(kubeconfig: str, tmp_path: Path) -> None:
    engine = DockerSource()
    images = [
        image.named(f"docker.io/e2e-bundle/{n}:1") for n, image in enumerate(engine.find(references(NEW)[:2], None))
    ]
    path = Path(bundled(engine, images, tmp_path, compress="none").path)
    try:
        on("D", "docker load", path)
        shown = on("D", "docker image inspect --format '{{.Id}}' e2e-bundle/0:1 e2e-bundle/1:1").split()
        assert shown == [image.config for image in images]
    finally:
        on("D", "docker rmi e2e-bundle/0:1 e2e-bundle/1:1")


def test_since_a_version_onto_a_node_that_holds_it_and_not_onto_another(
    nodes: tuple[ContainerdTarget, ContainerdTarget], tmp_path: Path
) -> None:
    holds, lacks = nodes
    engine = DockerSource()
    images, old = engine.find(references(NEW), None), engine.find(references(OLD), None)
    facts = bundled(engine, images, tmp_path, held=Base.of_images(OLD, old))
    assert Path(facts.path).name == f"apinizer-images--{NEW}--since-{OLD}.tar.zst"
    assert len(facts.left_out) == 1
    assert facts.size < 45_000_000

    with BundleSource(Path(facts.path)) as source:
        asked = source.find(references(NEW), None)
        with pytest.raises(MissingBaseError) as caught:
            source.require({to.where: need_of(asked, to.look(asked)) for to in (holds, lacks)})
        assert OLD in str(caught.value)
        assert "node-b (containerd) lacks 1" in str(caught.value)
        assert "node-a" not in str(caught.value)
        with pytest.raises(MissingBaseError):
            brought(source, asked, lacks)
        assert on("B", f"ctr -n {SPACE} images ls -q") == ""

        need, outcome = brought(source, asked, holds)
        assert set(need.reuse) == {facts.left_out[0].diff_id}
        assert outcome.sent < 45_000_000
    assert configs_of("A") == {image.config for image in images}


def test_for_a_list_of_what_the_site_holds(nodes: tuple[ContainerdTarget, ContainerdTarget], tmp_path: Path) -> None:
    holds, lacks = nodes
    engine = DockerSource()
    images = engine.find(references(NEW), None)
    (tmp_path / "held").write_text(HeldList.of({holds.where: holds.look(images)}, datetime.now(UTC)).as_json())
    facts = bundled(engine, images, tmp_path, held=Base.of_list(read_held(tmp_path / "held")))
    assert facts.size < 45_000_000
    with BundleSource(Path(facts.path)) as source:
        brought(source, source.find(references(NEW), None), holds)
    both = HeldList.of({to.where: to.look(images) for to in (holds, lacks)}, datetime.now(UTC))
    assert (both.diff_ids, both.digests, both.names) == ([], [], {})


def test_a_registrys_images_keep_their_own_form(
    nodes: tuple[ContainerdTarget, ContainerdTarget], tmp_path: Path
) -> None:
    """Engine to registry, registry to bundle, bundle to a node that holds the old release in the engine's form."""
    engine = DockerSource()
    with own(tmp_path / "registry") as registry:
        prefix = f"{registry.host}/folder"
        for version in (OLD, NEW):
            named = zip(engine.find(references(version), None), references(version, prefix), strict=True)
            brought(engine, [image.named(str(name)) for image, name in named], RegistryTarget(ACCESS))
        source = RegistrySource(ACCESS)
        images, old = source.find(references(NEW, prefix), None), source.find(references(OLD, prefix), None)
        facts = bundled(source, images, tmp_path, held=Base.of_images(OLD, old))
        whole = bundled(source, images, tmp_path)
    assert facts.compression == whole.compression == "none"
    assert facts.size < 45_000_000 < whole.size
    for letter, path in (("A", facts.path), ("B", whole.path)):
        with BundleSource(Path(path)) as bundle:
            asked = bundle.find(references(NEW), None)
            assert [image.manifest for image in asked] == [image.manifest for image in images]
            brought(bundle, asked, nodes["AB".index(letter)])
        assert configs_of(letter) == {image.config for image in images}
    # The registry's own manifests, under the name that it had there, as ctr takes them by itself.
    empty("B")
    on("B", f"ctr -n {SPACE} images import -", Path(whole.path))
    digests = {image.manifest_digest for image in images}
    assert all(digest in on("B", f"ctr -n {SPACE} images ls") for digest in digests)


def test_what_docker_save_and_ctr_export_wrote_is_taken_too(
    nodes: tuple[ContainerdTarget, ContainerdTarget], tmp_path: Path
) -> None:
    _, to = nodes
    saved = Path(os.environ["REALCLUSTER_IMAGES"]) / f"apinizer-{NEW}.tar"
    with BundleSource(saved) as source:
        facts = source.verify()
        assert facts.kind == "docker-save"
        assert facts.unproven
        brought(source, source.find(references(NEW), None), to)
    exported = tmp_path / "exported.tar"
    names = " ".join(reference.normal for reference in references(NEW))
    on("B", f"ctr -n {SPACE} images export {exported} {names}")
    empty("B")
    with BundleSource(exported) as source:
        assert source.verify().kind == "oci-layout"
        brought(source, source.find(references(NEW), None), to)


def test_damaged_on_the_way_nothing_arrives(nodes: tuple[ContainerdTarget, ContainerdTarget], tmp_path: Path) -> None:
    _, to = nodes
    engine = DockerSource()
    images = engine.find(references(NEW), None)
    path = Path(bundled(engine, images, tmp_path, held=Base.of_images(OLD, engine.find(references(OLD), None))).path)
    verify_bundle(path)
    dice = random.Random(4)  # noqa: S311
    for _ in range(10):
        at = dice.randrange(path.stat().st_size)
        with path.open("r+b") as file:
            file.seek(at)
            (was,) = file.read(1)
            file.seek(at)
            file.write(bytes([was ^ dice.randrange(1, 256)]))
        with BundleSource(path) as source, pytest.raises(DamagedArchiveError):
            brought(source, images, to)
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([was]))
    verify_bundle(path)
    assert on("B", f"ctr -n {SPACE} images ls -q") == ""
