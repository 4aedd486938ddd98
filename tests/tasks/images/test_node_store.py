"""What runtimes print, read; and the commands that ask them, run here on stand-ins that print the same."""

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from tasks.domain.errors import BlockedError, UpgradeError
from tasks.domain.placement import NodeFacts
from tasks.images.model import digest_of
from tasks.images.node_listing import docker_images, docker_use, use_of
from tasks.images.node_store import ContainerdStore, DockerStore, still_there
from tasks.images.prune import HeldImage, ImageUse
from tasks.images.remote import Host, Remote
from tests.tasks.images.containerd.standin import Store, wrapper

HERE = Remote(Host("this machine"))
A, B, C = "a" * 64, "b" * 64, "c" * 64
CONTAINERS = f"""\
CONTAINER                                                           IMAGE                                            RUNTIME                  
{A}    docker.io/realcluster/pause:1                    io.containerd.runc.v2    
{B}    sha256:{C}    io.containerd.runc.v2    
{C}    -                                                io.containerd.runc.v2    
"""  # noqa: W291


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A containerd that `ctr` on PATH speaks to."""
    monkeypatch.setenv("PATH", f"{wrapper(tmp_path)}:{os.environ['PATH']}")
    return Store(tmp_path)


CACHE, ELSEWHERE, HALF = (
    "docker.io/apinizercloud/cache:1",
    "nexus.local:5000/apinizercloud/cache:1",
    "docker.io/half/there:1",
)


def test_a_containerd_tells_its_images_by_digest_with_all_their_names(store: Store) -> None:
    digest, half = store.add(CACHE, [b"a" * 4000, b"b"]), store.add(HALF, [b"c" * 1000])
    store.name(ELSEWHERE, digest, labels={"io.cri-containerd.pinned": "pinned"})
    # The kubelet's side of containerd names an image's config, too.
    config = json.loads((store.blobs / digest[7:]).read_bytes())["config"]
    store.name(config["digest"], digest)
    store.forget(digest_of(b"c" * 1000))
    there, cache = ContainerdStore(HERE).images()[::-1]
    assert cache.names == (CACHE, ELSEWHERE, config["digest"])
    assert cache.tagged == cache.names[:2]
    assert cache.digests == {digest, config["digest"]}
    assert (cache.pinned, cache.complete, cache.size) == (True, True, 4001 + config["size"])
    assert (there.digest, there.pinned, there.complete, there.size) == (half, False, False, int(133.2 * 1024 * 1024))


def test_an_empty_containerd(store: Store) -> None:
    assert ContainerdStore(HERE).images() == ()
    assert ContainerdStore(HERE).used() == ImageUse()


def test_containers_use_images_by_name_or_by_digest(store: Store) -> None:
    (store.folder / "containers").write_text(CONTAINERS)
    use = ContainerdStore(HERE).used()
    assert set(use.names) == {"docker.io/realcluster/pause:1"}
    assert set(use.digests) == {f"sha256:{C}"}


def test_only_the_kubelets_containerd_is_asked_and_told(store: Store) -> None:
    """What another one holds is not what the node's pods run from."""
    store.add(CACHE, [b"a"])
    node = NodeFacts("node-a", runtime="containerd://1.7.11-k3s2")
    containerd = ContainerdStore(HERE, node=node)
    for each in (containerd.images, containerd.used, lambda: containerd.remove([HeldImage("x", (CACHE,))])):
        with pytest.raises(BlockedError, match="not the one of its kubelet"):
            each()
    assert set(store.state()["images"]) == {CACHE}


def test_ctr_is_run_as_root_by_its_full_path_where_rke2_has_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for bringing images: sudo's own PATH is shorter than the user's."""
    store.add(CACHE, [b"a"])
    (tmp_path / "root").mkdir()
    sudo = tmp_path / "root" / "sudo"
    sudo.write_text(
        f'#!/bin/sh\n[ "$1" = -n ] || exit 9\nshift\necho "$1" >>{tmp_path}/noted\nPATH=/usr/bin:/bin exec "$@"\n'
    )
    sudo.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sudo.parent}:{os.environ['PATH']}")
    containerd = ContainerdStore(Remote(Host("node-a", sudo=True)))
    assert [image.names for image in containerd.images()] == [(CACHE,)]
    assert containerd.used() == ImageUse()
    containerd.remove(containerd.images())
    assert containerd.images() == ()
    ran = (tmp_path / "noted").read_text().splitlines()
    assert {word for word in ran if "ctr" in word} == {f"{tmp_path}/bin/ctr"}


ENGINE = f"""\
{{"Digest":"\\u003cnone\\u003e","ID":"sha256:{A}","Repository":"apinizercloud/worker","Size":"136MB","Tag":"2025.11.1","VirtualSize":"135.6MB"}}
{{"Digest":"sha256:{C}","ID":"sha256:{A}","Repository":"nexus.local:5000/infra/worker","Size":"136MB","Tag":"2025.11.1","VirtualSize":"135.6MB"}}
{{"Digest":"\\u003cnone\\u003e","ID":"sha256:{B}","Repository":"\\u003cnone\\u003e","Size":"1.2GB","Tag":"\\u003cnone\\u003e"}}
"""
PROCESSES = f"""\
{{"ID":"1","Image":"apinizercloud/worker:2025.11.1","State":"exited"}}
{{"ID":"2","Image":"sha256:{B}","State":"running"}}
"""


def test_a_docker_engine_tells_its_images_by_id() -> None:
    worker, dangling = docker_images(ENGINE)
    assert worker.digest == f"sha256:{A}"
    assert set(worker.names) == {
        "docker.io/apinizercloud/worker:2025.11.1",
        "nexus.local:5000/infra/worker:2025.11.1",
        f"nexus.local:5000/infra/worker@sha256:{C}",
    }
    assert worker.size == 135_600_000
    assert (dangling.digest, dangling.names, dangling.size) == (f"sha256:{B}", (), 1_200_000_000)
    use = docker_use(PROCESSES)
    assert (set(use.names), set(use.digests)) == ({"docker.io/apinizercloud/worker:2025.11.1"}, {f"sha256:{B}"})


def test_what_no_image_is_called_is_used_by_nobody() -> None:
    use = use_of(["", "-", "no/Path:1", "docker-pullable://apinizercloud/worker@sha256:" + A], "x")
    assert use.names == {}
    assert set(use.digests) == {f"sha256:{A}"}


STANDIN = """#!{python}
import pathlib, sys
folder = pathlib.Path(__file__).parent
with (folder / "calls").open("a") as calls:
    print(*sys.argv[1:], file=calls)
words = [w for w in sys.argv[1:] if not w.startswith("-")]
{body}
"""


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a stand-in program first in PATH: `tool("ctr", "print(1)")`; its calls are the lines of `tmp_path/calls`."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def put(name: str, body: str) -> Path:
        path = tmp_path / name
        path.write_text(STANDIN.format(python=sys.executable, body=body))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return tmp_path / "calls"

    return put


def test_containerd_is_asked_and_told_in_its_namespace(store: Store) -> None:
    for name in (CACHE, ELSEWHERE, HALF):
        store.add(name, [name.encode()])
    containerd = ContainerdStore(HERE, "/run/k3s/containerd.sock", "of-its-own")
    held = containerd.images()
    containerd.remove(held[:2])
    assert containerd.images() == held[2:]
    assert still_there(containerd, held) == held[2].names
    calls = [line.split() for line in (store.folder / "calls").read_text().splitlines()]
    assert all(call[:2] == ["-a", "/run/k3s/containerd.sock"] for call in calls)
    assert all(call[call.index("-n") + 1] == "of-its-own" for call in calls)
    (removed,) = [call for call in calls if "rm" in call]
    assert removed[removed.index("rm") :] == ["rm", "--sync", *held[0].names, *held[1].names]


def test_a_name_that_does_not_go_is_told(store: Store) -> None:
    store.add(CACHE, [b"a"])
    store.add(HALF, [b"b"])
    (store.folder / "busy").write_text(CACHE)
    containerd = ContainerdStore(HERE)
    with pytest.raises(UpgradeError, match="could not remove images") as failed:
        containerd.remove(containerd.images())
    assert "it is busy" in failed.value.observed
    assert [image.names for image in containerd.images()] == [(CACHE,)]


def test_nothing_to_remove_calls_nothing(store: Store, tool) -> None:
    calls = tool("docker", "")
    ContainerdStore(HERE).remove([])
    DockerStore(HERE).remove([])
    assert not calls.exists()
    assert not (store.folder / "calls").exists()


def test_docker_removes_by_names_and_never_by_force(tool, tmp_path: Path) -> None:
    (tmp_path / "images").write_text(ENGINE)
    calls = tool("docker", "print((folder / 'images').read_text())")
    store = DockerStore(HERE)
    worker, dangling = store.images()
    store.remove([worker, dangling])
    assert calls.read_text().splitlines()[1:] == [
        "rmi docker.io/apinizercloud/worker:2025.11.1 nexus.local:5000/infra/worker:2025.11.1"
    ]


def test_a_runtime_that_refuses_is_told_with_its_own_words(tool) -> None:
    tool("docker", "sys.exit('conflict: unable to remove repository reference (must force) - container 1 is using it')")
    image = docker_images(ENGINE)[0]
    with pytest.raises(UpgradeError, match="could not remove images") as failed:
        DockerStore(HERE).remove([image])
    assert "container 1 is using it" in failed.value.observed
    assert "stays removed" in failed.value.safe
