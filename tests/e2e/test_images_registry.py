"""Images to and from Docker's own registry: real engines push to it through us and pull from it, lines are cut for real.

The registry of the cluster, and others with a login and TLS that the tests start; all traffic goes through a relay
that counts bytes and cuts lines.
"""

import json
import os
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import SecretStr

from tasks.domain.errors import BlockedError, NotFoundError, TemporaryError, UnauthorizedError, UnprovenError
from tasks.domain.reference import ImageReference
from tasks.images.delivery import Outcome, Receiver, deliver
from tasks.images.engine import DockerSource
from tasks.images.missing import need_of
from tasks.images.model import Image, Source
from tasks.images.registry import client, upload
from tasks.images.registry.access import Access
from tasks.images.registry.source import RegistrySource
from tasks.images.registry.target import RegistryTarget
from tests.tasks.images.registry.plain import PlainSource
from tests.tasks.images.registry.served import PASSWORD, USER, certificate

OLD, NEW = "2025.04.3", "2025.07.0"
REPOSITORIES = ("manager", "worker", "cache", "integration")
OPEN = Access(insecure=True)
LOGIN = Access(USER, SecretStr(PASSWORD), insecure=True)


@dataclass
class Relay:
    """A port that leads to another; counts what goes in, and cuts the line after so many bytes, once for each entry."""

    to: tuple[str, int]
    cuts: list[int] = field(default_factory=list)
    sent: int = 0
    host: str = ""

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self.to, 5)
                except OSError:
                    client.close()
                    continue
                threading.Thread(
                    target=self._pass, args=(client, server), kwargs={"upwards": True}, daemon=True
                ).start()
                threading.Thread(
                    target=self._pass, args=(server, client), kwargs={"upwards": False}, daemon=True
                ).start()

    def _pass(self, one: socket.socket, other: socket.socket, *, upwards: bool) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                if upwards:
                    self.sent += len(data)
                    if self.cuts and self.sent >= self.cuts[0]:
                        self.cuts.pop(0)
                        break
                other.sendall(data)
        for line in (one, other):
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def relayed() -> Iterator[Callable[[str], Relay]]:
    relays: list[Relay] = []

    def make(host: str) -> Relay:
        name, _, port = host.partition(":")
        relays.append(Relay((name, int(port))))
        return relays[-1]

    yield make
    for relay in relays:
        relay.close()


@dataclass
class Registry:
    """A docker-registry of a test's own."""

    folder: Path
    host: str
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        log = (self.folder / "log").open("ab")
        command = ["docker-registry", "serve", str(self.folder / "config.yml")]
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        name, _, port = self.host.partition(":")
        for _ in range(200):
            with suppress(OSError), socket.create_connection((name, int(port)), 1):
                return
            time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())

    def stop(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)


@contextmanager
def own(folder: Path, *, login: bool = False, tls: Path | None = None) -> Iterator[Registry]:
    """A docker-registry on a free port, with a login and TLS where wanted."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    http = {"addr": host} | ({"tls": {"certificate": str(tls), "key": str(tls)}} if tls else {})
    config: dict[str, object] = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": http,
    }
    if login:
        hashed = subprocess.run(
            ["perl", "-e", "print crypt($ARGV[0], q($2y$05$abcdefghijklmnopqrstuu))", PASSWORD],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        (folder / "htpasswd").write_text(f"{USER}:{hashed}\n")
        config["auth"] = {"htpasswd": {"realm": "a registry, with a comma", "path": str(folder / "htpasswd")}}
    (folder / "config.yml").write_text(json.dumps(config))
    registry = Registry(folder, host)
    registry.start()
    yield registry
    registry.stop()


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 - no secret


def plain(images: dict[str, list[bytes]]) -> tuple[PlainSource, tuple[Image, ...]]:
    source = PlainSource(images)
    return source, source.find([ImageReference.parse(name) for name in images])


def at(host: str, images: Sequence[Image]) -> list[Image]:
    return [image.named(f"{host}/{image.name.partition('/')[2]}") for image in images]


def bring(source: Source, images: Sequence[Image], target: RegistryTarget) -> Outcome:
    holdings = target.look(images)
    receiver = Receiver("registry", target, images, holdings, need_of(images, holdings))
    return deliver(source, images, [receiver])["registry"]


def references(prefix: str, version: str) -> list[ImageReference]:
    portal = "portal" if version == OLD else "apiportal"
    return [ImageReference.parse(f"{prefix}/{name}:{version}") for name in (*REPOSITORIES, portal)]


@pytest.fixture
def folder() -> str:
    """A folder of the test's own in the cluster's registry."""
    return f"test{os.getpid()}-{time.monotonic_ns()}/apinizercloud"


# ---------------------------------------------------------------- real engines at both ends
@pytest.mark.timeout(300)
def test_engine_to_registry_and_only_the_new_layers(
    kubeconfig: str, folder: str, relayed: Callable[[str], Relay]
) -> None:
    """A release goes from the Docker engine to the registry; the next one costs what it has of its own."""
    host = os.environ["REALCLUSTER_REGISTRY"]
    relay = relayed(host)
    prefix = f"{relay.host}/{folder}"
    source = DockerSource()
    for version, known in ((OLD, None), (NEW, OLD)):
        found = source.find(references("apinizercloud", version), None)
        images = [i.named(str(r)) for i, r in zip(found, references(prefix, version), strict=True)]
        target = RegistryTarget(OPEN, known=references(prefix, known) if known else ())
        before, begin = relay.sent, time.monotonic()
        outcome = bring(source, images, target)
        assert outcome.error is None
        wire = relay.sent - before
        print(f"{version}: {outcome.sent / 1e6:.1f} MB of layers, {wire / 1e6:.1f} MB on the wire, "
              f"{time.monotonic() - begin:.1f} s")  # fmt: skip
        assert [proof.config for proof in target.prove(images)] == [image.config for image in found]
        # 12 MB of the release and 6 MB of each image do not compress; the base layer is the old release's.
        if known:
            assert outcome.sent < 1.1 * 42_000_000
            assert wire < 1.1 * 42_000_000
        again = bring(source, images, RegistryTarget(OPEN))
        assert (again.error, again.sent) == (None, 0)
    # Somebody else's client pulls what was pushed: the same images by their configs.
    for image in images:
        name = image.name.replace(relay.host, host)
        node = ("ssh", "-i", os.environ["REALCLUSTER_SSH_KEY"], "-o", "BatchMode=yes", "-o",
                f"UserKnownHostsFile={os.environ['REALCLUSTER_KNOWN_HOSTS']}", "-p",
                os.environ["REALCLUSTER_NODE_D"].partition(":")[2], "root@127.0.0.1", "docker")  # fmt: skip
        subprocess.run([*node, "pull", "-q", name], check=True, capture_output=True, timeout=120)
        inspected = subprocess.run(
            [*node, "image", "inspect", "-f", "{{.Id}}", name], check=True, capture_output=True, text=True, timeout=60
        )
        subprocess.run([*node, "rmi", name], check=True, capture_output=True, timeout=60)
        assert inspected.stdout.strip() == image.config


@pytest.mark.timeout(300)
def test_registry_to_registry(kubeconfig: str, folder: str, tmp_path: Path) -> None:
    """Without an engine, from plain HTTP to a login and TLS; the manifests arrive unchanged."""
    prefix = f"{os.environ['REALCLUSTER_REGISTRY']}/{folder}"
    engine = DockerSource()
    found = engine.find(references("apinizercloud", NEW), None)
    images = [i.named(str(r)) for i, r in zip(found, references(prefix, NEW), strict=True)]
    assert bring(engine, images, RegistryTarget(OPEN)).error is None
    pem = certificate(tmp_path)
    with own(tmp_path / "second", login=True, tls=pem) as second:
        source = RegistrySource(OPEN)
        theirs = source.find(references(prefix, NEW), None)
        access = Access(USER, SecretStr(PASSWORD), ca_file=str(pem))
        target = RegistryTarget(access)
        renamed = [i.named(str(r)) for i, r in zip(theirs, references(f"{second.host}/own", NEW), strict=True)]
        outcome = bring(source, renamed, target)
        assert outcome.error is None
        assert outcome.sent < 1.05 * sum({layer.blob.digest: layer.blob.size for image in theirs for layer in image.layers if layer.blob}.values())  # fmt: skip
        assert [proof.manifest_digest for proof in target.prove(renamed)] == [i.manifest_digest for i in theirs]
        back = RegistrySource(access).find(references(f"{second.host}/own", NEW), None)
        assert [image.diff_ids for image in back] == [image.diff_ids for image in found]


# ---------------------------------------------------------------- broken lines, against the registry's own code
@pytest.mark.parametrize("known_digests", [False, True])
def test_cut_lines_go_on_where_they_were(
    tmp_path: Path, relayed: Callable[[str], Relay], monkeypatch: pytest.MonkeyPatch, *, known_digests: bool
) -> None:
    """Cut in the first part, in a later one, and twice in a row: the registry's own Range is believed, or it begins anew."""
    monkeypatch.setattr(upload, "PART", 2_000_000)
    monkeypatch.setattr(client, "PAUSES", (0.1, 0.2))
    layers = [noise(1, 9_000_000), noise(2, 1_000_000)]
    with own(tmp_path / "registry") as registry:
        source: Source
        source, images = plain({"a/worker:1": layers})
        if known_digests:
            direct = RegistryTarget(OPEN)
            assert bring(source, at(registry.host, images), direct).error is None
            source = RegistrySource(OPEN)
            images = source.find([ImageReference.parse(f"{registry.host}/a/worker:1")], None)
            images = tuple(image.named(image.name.replace("a/worker", "b/worker")) for image in images)
        relay = relayed(registry.host)
        relay.cuts = [700_000, 2_500_000, 5_000_000, 5_200_000, 9_900_000]
        target = RegistryTarget(OPEN)
        outcome = bring(source, at(relay.host, images), target)
        tries = 1
        while isinstance(outcome.error, TemporaryError) and tries < 6:
            tries += 1
            outcome = bring(source, at(relay.host, images), target)
        print(f"{tries} tries, {relay.sent} bytes for {sum(map(len, layers))}")
        assert outcome.error is None
        assert relay.cuts == []
        assert target.prove(at(relay.host, images))
        assert relay.sent < 30_000_000


@pytest.mark.timeout(120)
def test_a_registry_that_is_restarted_in_the_middle(
    tmp_path: Path, relayed: Callable[[str], Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its uploads are lost or its signatures void: begun anew, or a clear error and the next try ends it."""
    monkeypatch.setattr(upload, "PART", 2_000_000)
    layers = [noise(seed, 3_000_000) for seed in range(6)]
    with own(tmp_path / "registry") as registry:
        source, images = plain({"a/worker:1": layers})
        relay = relayed(registry.host)
        target = RegistryTarget(OPEN)

        def restart() -> None:
            while relay.sent < 8_000_000:
                time.sleep(0.005)
            registry.stop()
            time.sleep(2)
            registry.start()

        thread = threading.Thread(target=restart)
        thread.start()
        outcome = bring(source, at(relay.host, images), target)
        thread.join()
        first = outcome.error
        if first is not None:
            assert isinstance(first, TemporaryError)
            outcome = bring(source, at(relay.host, images), target)
        print(f"first {first}; {relay.sent / 1e6:.1f} MB for {sum(map(len, layers)) / 1e6:.1f}")
        assert outcome.error is None
        assert target.prove(at(relay.host, images))
        assert relay.sent < 1.4 * sum(map(len, layers))


def test_a_pull_that_is_cut_goes_on(tmp_path: Path) -> None:
    """The registry's own Range answers, and a restart between two reads."""
    with own(tmp_path / "registry") as registry:
        source, images = plain({"a/worker:1": [noise(1, 6_000_000)]})
        assert bring(source, at(registry.host, images), RegistryTarget(OPEN)).error is None
        reader = RegistrySource(OPEN)
        found = reader.find([ImageReference.parse(f"{registry.host}/a/worker:1")], None)
        came = 0
        for blob in reader.read(found, frozenset(found[0].diff_ids)):
            for number, chunk in enumerate(blob.chunks):
                came += len(chunk)
                if blob.kind == "layer" and number == 3:
                    registry.stop()
                    registry.start()
            assert blob.kind == "config" or came >= blob.size


# ---------------------------------------------------------------- logins, trust, refusals
def test_login_and_trust(tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    (tmp_path / "other").mkdir()
    with own(tmp_path / "registry", login=True, tls=pem) as registry:
        source, found = plain({"a/worker:1": [b"layer"], "a/cache:1": [b"layer", b"cache"]})
        images = at(registry.host, found)
        right = Access(USER, SecretStr(PASSWORD), ca_file=str(pem))
        assert bring(source, images, RegistryTarget(right)).error is None
        with pytest.raises(UnauthorizedError, match="does not accept the user"):
            RegistryTarget(Access(USER, SecretStr("wrong"), ca_file=str(pem))).look(images)
        with pytest.raises(UnauthorizedError, match="asks for a login"):
            RegistryTarget(Access(ca_file=str(pem))).look(images)
        for ca_file in ("", str(certificate(tmp_path / "other"))):
            with pytest.raises(BlockedError, match="is not trusted") as raised:
                RegistryTarget(Access(USER, SecretStr(PASSWORD), ca_file=ca_file)).look(images)
            assert "CA file" in raised.value.next
        with pytest.raises(NotFoundError, match="has no tag 2") as missing:
            RegistrySource(right).find([ImageReference.parse(f"{registry.host}/a/worker:2")], None)
        assert "It has 1." in missing.value.observed
        with pytest.raises(NotFoundError, match="no repository"):
            RegistrySource(right).find([ImageReference.parse(f"{registry.host}/a/portal:1")], None)


def test_another_image_under_the_tag(tmp_path: Path) -> None:
    with own(tmp_path / "registry") as registry:
        for layer, overwrite, error in ((b"one", False, None), (b"two", False, BlockedError), (b"two", True, None)):
            source, found = plain({"a/worker:1": [layer]})
            images = at(registry.host, found)
            outcome = bring(source, images, RegistryTarget(OPEN, overwrite=overwrite))
            assert type(outcome.error) is (error or type(None))
        source, found = plain({"a/worker:1": [b"one"]})
        with pytest.raises(UnprovenError):
            RegistryTarget(OPEN).prove(at(registry.host, found))


def test_a_damaged_blob_at_the_registry(tmp_path: Path) -> None:
    """A flipped byte on the registry's disk: whoever was to get the layer does not."""
    with own(tmp_path / "from") as one, own(tmp_path / "to") as two:
        source, found = plain({"a/worker:1": [noise(1, 300_000)]})
        assert bring(source, at(one.host, found), RegistryTarget(OPEN)).error is None
        reader = RegistrySource(OPEN)
        theirs = reader.find([ImageReference.parse(f"{one.host}/a/worker:1")], None)
        blob = theirs[0].layers[0].blob
        assert blob is not None
        value = blob.digest.removeprefix("sha256:")
        path = tmp_path / "from/data/docker/registry/v2/blobs/sha256" / value[:2] / value / "data"
        body = bytearray(path.read_bytes())
        body[1000] ^= 1
        path.write_bytes(body)
        error = bring(reader, [image.named(f"{two.host}/a/worker:1") for image in theirs], RegistryTarget(OPEN)).error
        assert isinstance(error, UnprovenError)
        with pytest.raises(NotFoundError):
            RegistrySource(OPEN).find([ImageReference.parse(f"{two.host}/a/worker:1")], None)
