"""Images out of a Docker engine, over its real HTTP on a real socket: what is found, what is read, what goes wrong."""

import hashlib
import json
import os
import random
import re
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.domain.errors import (
    BlockedError,
    DamagedArchiveError,
    ForbiddenError,
    NotFoundError,
    StoppedError,
    TemporaryError,
    UnauthorizedError,
    UpgradeError,
    UsageError,
)
from tasks.domain.reference import ImageReference
from tasks.images.engine import DockerSource
from tasks.images.engine.address import USUAL, Address, find_address, split_ssh
from tasks.images.engine.command import CommandEngine
from tasks.images.model import Platform
from tasks.images.remote import Host, Remote
from tests.tasks.images.engine.standin import Engine, certificates, command, serving, serving_tcp, sha

# Nothing that gzip makes smaller: half of an archive is to be half of what is wanted.
BASE, LIB, JAR = (random.Random(size).randbytes(size) for size in (40000, 2500, 30000))  # noqa: S311
WORKER, CACHE = ImageReference.parse("apinizercloud/worker:2"), ImageReference.parse("apinizercloud/cache:2")


@pytest.fixture(params=["graph", "containerd"])
def engine(request: pytest.FixtureRequest) -> Engine:
    engine = Engine(store=request.param)
    engine.add("apinizercloud/worker:1", [BASE, LIB])
    engine.add("apinizercloud/worker:2", [BASE, LIB, JAR])
    engine.add("apinizercloud/cache:2", [BASE, JAR])
    return engine


@pytest.fixture
def address(engine: Engine, tmp_path: Path) -> Iterator[str]:
    with serving(engine, tmp_path / "docker.sock") as address:
        yield address


def config_of(engine: Engine, name: str) -> str:
    return sha(engine.config_of(engine.find(name)))


def test_finds_and_reads(engine: Engine, address: str) -> None:
    """Images in the order asked, named in full; one archive for all of them, and of it only what is wanted."""
    source = DockerSource(address)
    images = source.find([CACHE, WORKER], None)
    assert [image.name for image in images] == ["docker.io/apinizercloud/cache:2", "docker.io/apinizercloud/worker:2"]
    assert [image.config for image in images] == [config_of(engine, str(name)) for name in (CACHE, WORKER)]
    assert [image.diff_ids for image in images] == [(sha(BASE), sha(JAR)), (sha(BASE), sha(LIB), sha(JAR))]
    if engine.store == "graph":
        assert [layer.estimate for layer in images[1].layers] == [100, 101, 102]
    else:
        assert all(layer.blob is not None and layer.blob.size > 0 for layer in images[1].layers)
    engine.asked.clear()
    came = {}
    for blob in source.read(images, frozenset({sha(JAR)})):
        content = b"".join(blob.chunks)
        assert sha(content) == blob.digest
        came[blob.diff_id or blob.digest] = blob.kind
    assert came == {**dict.fromkeys((image.config for image in images), "config"), sha(JAR): "layer"}
    assert engine.asked.count("images/get") == 1


@pytest.mark.parametrize("engine", ["containerd"], indirect=True)
def test_an_archive_is_read_once_to_know_what_is_in_it(engine: Engine, address: str) -> None:
    """Five looks of a run are not five `docker save` of everything; a tag that moved since is seen all the same."""
    source = DockerSource(address)
    first = source.find([CACHE, WORKER], None)
    assert source.find([CACHE, WORKER], None) == source.find([CACHE, WORKER], Platform("linux", "amd64")) == first
    assert source.find([WORKER], None) == first[1:]
    assert engine.asked.count("images/get") == 1
    moved = engine.add("apinizercloud/worker:2", [BASE])
    assert [image.config for image in source.find([CACHE, WORKER], None)] == [first[0].config, moved]
    assert engine.asked.count("images/get") == 2
    with pytest.raises(BlockedError, match="arm64"):
        source.find([WORKER], Platform("linux", "arm64"))


def test_a_reader_that_leaves_early(engine: Engine, address: str) -> None:
    source = DockerSource(address)
    blobs = source.read(source.find([WORKER], None), frozenset({sha(BASE)}))
    next(blobs)
    blobs.close()  # type: ignore[attr-defined]
    assert source.find([WORKER], None)[0].config == config_of(engine, str(WORKER))


def test_an_archive_that_was_begun_is_the_one_that_is_read(engine: Engine, address: str) -> None:
    source = DockerSource(address)
    images = source.find([CACHE, WORKER], None)
    engine.asked.clear()
    source.begin(images)
    kinds = [
        (blob.kind, sha(b"".join(blob.chunks)) == blob.digest)
        for blob in source.read(images[::-1], frozenset({sha(JAR)}))
    ]
    assert sorted(kinds) == [("config", True), ("config", True), ("layer", True)]
    assert engine.asked.count("images/get") == 1


@pytest.mark.parametrize("left", [False, True])
def test_an_archive_that_was_begun_for_other_images_is_not_read(engine: Engine, address: str, left: bool) -> None:  # noqa: FBT001
    source = DockerSource(address)
    cache, worker = source.find([CACHE, WORKER], None)
    source.begin([cache])
    if left:
        source.leave()
    blobs = {blob.digest: b"".join(blob.chunks) for blob in source.read([worker], frozenset())}
    assert [sha(content) for content in blobs.values()] == [worker.config]
    source.close()


def test_what_could_not_be_begun_is_told_by_reading(engine: Engine, address: str) -> None:
    source = DockerSource(address)
    images = source.find([WORKER], None)
    engine.tags.clear()
    source.begin(images)
    with pytest.raises(UpgradeError):
        list(source.read(images, frozenset()))


def test_nothing_is_asked_for_no_images(engine: Engine, address: str) -> None:
    assert list(DockerSource(address).read((), frozenset())) == []
    assert engine.asked == []


def test_unknown_tag_says_what_is_there(address: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        DockerSource(address).find([WORKER, ImageReference.parse("apinizercloud/worker:3")], None)
    assert "docker.io/apinizercloud/worker:3" in caught.value.happened
    assert caught.value.observed == "Of docker.io/apinizercloud/worker it has 1, 2."
    with pytest.raises(NotFoundError, match=r"nothing of docker\.io/apinizercloud/portal"):
        DockerSource(address).find([ImageReference.parse("apinizercloud/portal:2")], None)


def test_platform_that_the_image_lacks(address: str) -> None:
    with pytest.raises(BlockedError, match="does not exist for linux/arm64"):
        DockerSource(address).find([WORKER], Platform("linux", "arm64"))


def test_tag_and_digest_forms(engine: Engine, address: str) -> None:
    engine.add("apinizercloud/worker:latest", [JAR])
    assert DockerSource(address).find([ImageReference.parse("apinizercloud/worker")], None)[0].diff_ids == (sha(JAR),)


@pytest.mark.parametrize(
    ("fault", "observed"),
    [("cut", ""), ("error in stream", "no space left on device"), ("500", "out of order")],
)
def test_faults_in_the_middle(engine: Engine, address: str, fault: str, observed: str) -> None:
    source = DockerSource(address)
    images = source.find([WORKER, CACHE], None)
    engine.fault = fault
    wanted = frozenset({sha(BASE), sha(LIB), sha(JAR)})
    with pytest.raises(UpgradeError) as caught:
        _ = [b"".join(blob.chunks) for blob in source.read(images, wanted)]
    assert type(caught.value) is (UpgradeError if fault == "500" else TemporaryError)
    assert caught.value.happened.startswith(f"Docker engine at {address}")
    assert observed in caught.value.observed
    assert caught.value.next
    engine.fault = ""
    assert len([b"".join(blob.chunks) for blob in source.read(images, wanted)]) == 5


def test_an_archive_that_is_none(engine: Engine, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = DockerSource(address)
    images = source.find([WORKER], None)
    monkeypatch.setattr(engine, "save", lambda _names: b"<html>" * 200)
    with pytest.raises(DamagedArchiveError, match="no archive of images"):
        list(source.read(images, frozenset()))


def test_stopped_while_the_engine_thinks(engine: Engine, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine copies the images before its first byte: nobody waits for that who was told to stop."""
    asked, go_on = threading.Event(), threading.Event()
    save = engine.save

    def slow(names: list[str]) -> bytes:
        asked.set()
        go_on.wait(60)
        return save(names)

    source = DockerSource(address, stop=asked.is_set)
    images = DockerSource(address).find([WORKER], None)
    monkeypatch.setattr(engine, "save", slow)
    with pytest.raises(StoppedError):
        list(source.read(images, frozenset()))
    go_on.set()


def test_no_engine(tmp_path: Path) -> None:
    with pytest.raises(TemporaryError) as caught:
        DockerSource(f"unix://{tmp_path}/none.sock").find([WORKER], None)
    assert caught.value.happened == f"Docker engine at unix://{tmp_path}/none.sock does not answer."
    assert "No such file or directory" in caught.value.observed


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use every socket")
def test_no_permission(address: str) -> None:
    Path(address.removeprefix("unix://")).chmod(0)
    with pytest.raises(ForbiddenError, match="group docker"):
        DockerSource(address).find([WORKER], None)


def test_no_permission_as_the_kernel_says_it(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from docker.transport import unixconn

    def refuse(_self: object, _path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(unixconn.socket.socket, "connect", refuse)
    with pytest.raises(ForbiddenError, match="group docker"):
        DockerSource(address).find([WORKER], None)


def test_something_that_is_no_engine(tmp_path: Path) -> None:
    class Rude(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")

    path = tmp_path / "rude.sock"
    with socketserver.UnixStreamServer(str(path), Rude) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        with pytest.raises(TemporaryError, match="does not answer"):
            DockerSource(f"unix://{path}").find([WORKER], None)
        server.shutdown()


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("manifest for apinizercloud/worker:2 not found: manifest unknown: manifest unknown", NotFoundError),
        (
            "pull access denied for apinizercloud/worker, repository does not exist or may require 'docker login'",
            UnauthorizedError,
        ),
        ("unauthorized: authentication required", UnauthorizedError),
        ("no matching manifest for linux/s390x in the manifest list entries", BlockedError),
        ("Get https://registry-1.docker.io/v2/: dial tcp: lookup registry-1.docker.io: i/o timeout", TemporaryError),
    ],
)
def test_pull(engine: Engine, address: str, said: str, kind: type[UpgradeError]) -> None:
    source = DockerSource(address, pull=True)
    assert source.find([WORKER], None)[0].config == config_of(engine, str(WORKER))
    assert source.find([WORKER], None)
    assert engine.asked.count("images/create") == 1
    source = DockerSource(address, pull=True)
    engine.fault = f"pull: {said}"
    with pytest.raises(kind) as caught:
        source.find([WORKER], None)
    assert caught.value.observed == said


# The command instead of the API, as for an engine behind SSH


def test_the_command_tells_the_same(engine: Engine, address: str, tmp_path: Path) -> None:
    api = DockerSource(address)
    by_command = DockerSource(address)
    tool = str(command(tmp_path / "docker"))
    by_command._engine = CommandEngine(Remote(Host("build")), tool=tool, address=address)
    images = by_command.find([WORKER, CACHE], None)
    assert images == api.find([WORKER, CACHE], None)
    wanted = frozenset({sha(JAR), sha(BASE)})
    read = [
        [
            (blob.kind, blob.digest, hashlib.sha256(b"".join(blob.chunks)).hexdigest())
            for blob in source.read(images, wanted)
        ]
        for source in (api, by_command)
    ]
    assert read[0] == read[1]
    assert len(read[0]) == 4
    with pytest.raises(NotFoundError, match="it has 1, 2"):
        by_command.find([ImageReference.parse("apinizercloud/worker:3")], None)


def test_the_command_without_an_engine(tmp_path: Path) -> None:
    source = DockerSource("unix:///none")
    tool = str(command(tmp_path / "docker"))
    source._engine = CommandEngine(Remote(Host("build")), tool=tool, address=f"unix://{tmp_path}/none.sock")
    with pytest.raises(TemporaryError, match="Cannot connect to the Docker daemon"):
        source.find([WORKER], None)


# Which engine is meant


def test_which_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert find_address("", {}).url == USUAL
    assert find_address("", {"DOCKER_HOST": "unix:///a.sock"}).url == "unix:///a.sock"
    assert find_address("unix:///b.sock", {"DOCKER_HOST": "unix:///a.sock"}).url == "unix:///b.sock"


def test_the_chosen_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `docker context create` writes it; $DOCKER_HOST goes before it."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / ".docker"))
    folder = tmp_path / ".docker" / "contexts" / "meta" / hashlib.sha256(b"build").hexdigest()
    folder.mkdir(parents=True)
    meta = {
        "Name": "build",
        "Metadata": {},
        "Endpoints": {"docker": {"Host": "ssh://root@build", "SkipTLSVerify": False}},
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    (tmp_path / ".docker" / "config.json").write_text("{}")
    assert find_address("", {}).url == USUAL
    assert find_address("", {"DOCKER_CONTEXT": "build"}).url == "ssh://root@build"
    assert find_address("", {"DOCKER_CONTEXT": "build", "DOCKER_HOST": "unix:///a"}).url == "unix:///a"
    with pytest.raises(UsageError, match="no Docker context 'other'"):
        find_address("", {"DOCKER_CONTEXT": "other"})
    (tmp_path / ".docker" / "config.json").write_text('{"currentContext": "build"}')
    assert find_address("", {}).url == "ssh://root@build"
    (folder / "meta.json").write_text("{")
    with pytest.raises(UsageError, match="corrupted meta file"):
        find_address("", {})


@pytest.mark.parametrize(
    "url",
    [
        "docker.sock",
        "/var/run/docker.sock",
        "npipe:////./pipe/docker_engine",
        "ssh:/host",
        "tcp://host:port",
        "tcp://[::1",
        "http://:80",
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(UsageError, match="not valid"):
        find_address(url, {})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("tcp://user:secret@host:2375", "tcp://host:2375"),
        ("tcp://user:sec/ret@host:2375", "tcp://host:2375"),
        ("tcp://user:sec:ret@host:2375", "tcp://host:2375"),
        ("https://secret@host:2376", "https://host:2376"),
        ("https://us@er:se?cr#et@host", "https://host"),
        ("ssh://user:secret@host", "ssh://user@host"),
        ("ssh://user:se@cret@host", "ssh://user@host"),
        ("ssh://user:se/cret@host", "ssh://user@host"),
    ],
)
def test_a_password_is_refused_and_not_shown(url: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Address(url).shown == shown
    assert repr(Address(url)) == f"Address({shown!r})"
    monkeypatch.setenv("DOCKER_HOST", url)
    for given in ("", url):
        with pytest.raises(UsageError) as caught:
            DockerSource(given).find([WORKER], None)
        assert caught.value.observed == shown
        assert not re.search("secret|ret@", f"{caught.value} {caught.value.__cause__} {caught.value.__context__!r}")


def test_certificates_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ca\.pem"):
        find_address("tcp://host:2376", {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path / "none")})


def test_over_tcp(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_TLS_VERIFY", raising=False)
    with serving_tcp(engine, None) as address:
        assert DockerSource(address).find([WORKER], None)[0].config == config_of(engine, str(WORKER))


def test_over_tcp_with_certificates(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `docker --tlsverify`: both sides show theirs; another CA, or none to show, is refused."""
    own, other = certificates(tmp_path / "own"), certificates(tmp_path / "other")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    with serving_tcp(engine, own) as address:
        monkeypatch.setenv("DOCKER_CERT_PATH", str(own))
        source = DockerSource(address)
        images = source.find([WORKER], None)
        assert len([b"".join(blob.chunks) for blob in source.read(images, frozenset({sha(JAR)}))]) == 2
        monkeypatch.setenv("DOCKER_CERT_PATH", str(other))
        with pytest.raises(BlockedError, match="certificate verify failed"):
            DockerSource(address).find([WORKER], None)


def test_ssh_address() -> None:
    assert split_ssh("ssh://root@BuildHost").host == "BuildHost"
    assert split_ssh("ssh://[FE80::1]:22").host == "FE80::1"
    parts = split_ssh("ssh://root@build.local:2222/run/docker.sock")
    assert (parts.host, parts.user, parts.port, parts.socket) == ("build.local", "root", 2222, "/run/docker.sock")
