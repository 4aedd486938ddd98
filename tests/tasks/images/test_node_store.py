"""What runtimes print, read; and the commands that ask them, run here on stand-ins that print the same."""

import os
import stat
import sys
from pathlib import Path

import pytest

from tasks.domain.errors import UpgradeError
from tasks.images.node_listing import containerd_images, containerd_use, docker_images, docker_use, use_of
from tasks.images.node_store import ContainerdStore, DockerStore, still_there
from tasks.images.remote import Host, Remote

# As `ctr` of containerd 1.6.20 prints them on a node (names of digests shortened here are whole there).
A, B, C = "a" * 64, "b" * 64, "c" * 64
IMAGES = f"""\
REF                                     TYPE                                                 DIGEST                                                                  SIZE      PLATFORMS   LABELS                          
docker.io/apinizercloud/cache:2025.04.3 application/vnd.docker.distribution.manifest.v2+json sha256:{A} 133.2 MiB linux/amd64 io.cri-containerd.image=managed,io.cri-containerd.pinned=pinned 
nexus.local:5000/apinizercloud/cache:1  application/vnd.docker.distribution.manifest.v2+json sha256:{A} 133.2 MiB linux/amd64 io.cri-containerd.image=managed 
docker.io/realcluster/pause:1           application/vnd.oci.image.manifest.v1+json           sha256:{B} 751.3 KiB linux/amd64,linux/arm64 io.cri-containerd.image=managed 
docker.io/half/there:1                  application/vnd.oci.image.index.v1+json              sha256:{"d" * 64} -         -           - 
sha256:{C} application/vnd.docker.distribution.manifest.v2+json sha256:{A} 133.2 MiB linux/amd64 io.cri-containerd.image=managed 
"""  # noqa: W291 - ctr ends its lines so
CHECKED = f"""\
REF                                     TYPE                                                 DIGEST                                                                  STATUS         SIZE                UNPACKED 
docker.io/apinizercloud/cache:2025.04.3 application/vnd.docker.distribution.manifest.v2+json sha256:{A} complete (5/5) 133.2 MiB/133.2 MiB true
nexus.local:5000/apinizercloud/cache:1  application/vnd.docker.distribution.manifest.v2+json sha256:{A} complete (5/5) 133.2 MiB/133.2 MiB true
docker.io/realcluster/pause:1           application/vnd.oci.image.manifest.v1+json           sha256:{B} incomplete (1/2) 1.9 KiB/750.9 KiB false
sha256:{C} application/vnd.docker.distribution.manifest.v2+json sha256:{A} complete (5/5) 133.2 MiB/133.2 MiB true
"""  # noqa: W291
CONTAINERS = f"""\
CONTAINER                                                           IMAGE                                            RUNTIME                  
{A}    docker.io/realcluster/pause:1                    io.containerd.runc.v2    
{B}    sha256:{C}    io.containerd.runc.v2    
{C}    -                                                io.containerd.runc.v2    
"""  # noqa: W291


def test_a_containerd_tells_its_images_by_digest_with_all_their_names() -> None:
    cache, half, pause = containerd_images(IMAGES, CHECKED)
    assert cache.names == (
        "docker.io/apinizercloud/cache:2025.04.3",
        "nexus.local:5000/apinizercloud/cache:1",
        f"sha256:{C}",
    )
    assert cache.tagged == cache.names[:2]
    assert cache.digests == {f"sha256:{A}", f"sha256:{C}"}
    assert (cache.pinned, cache.complete, cache.size) == (True, True, int(133.2 * 1024 * 1024))
    assert (pause.digest, pause.pinned, pause.complete, pause.size) == (f"sha256:{B}", False, False, int(751.3 * 1024))
    assert (half.names, half.size) == (("docker.io/half/there:1",), 0)


def test_an_empty_containerd() -> None:
    assert containerd_images("REF TYPE DIGEST SIZE PLATFORMS LABELS \n") == ()
    assert containerd_images("") == ()
    assert containerd_use("CONTAINER    IMAGE    RUNTIME    \n").names == {}


def test_containers_use_images_by_name_or_by_digest() -> None:
    use = containerd_use(CONTAINERS)
    assert set(use.names) == {"docker.io/realcluster/pause:1"}
    assert set(use.digests) == {f"sha256:{C}"}


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


HERE = Remote(Host("this machine"))


def test_containerd_is_asked_and_told_in_its_namespace(tool, tmp_path: Path) -> None:
    (tmp_path / "images").write_text(IMAGES)
    (tmp_path / "checked").write_text(CHECKED)
    calls = tool("ctr", "print((folder / ('checked' if 'check' in words else 'images')).read_text())")
    store = ContainerdStore(HERE, "/run/k3s/containerd.sock", "k8s.io")
    images = store.images()
    store.remove(images[:1])
    head = "--address /run/k3s/containerd.sock --namespace k8s.io images"
    assert calls.read_text().splitlines() == [
        f"{head} ls",
        f"{head} check",
        f"{head} rm --sync {' '.join(images[0].names)}",
    ]
    # This one removes nothing, and that is seen.
    assert still_there(store, images[:1]) == images[0].names


def test_nothing_to_remove_calls_nothing(tool, tmp_path: Path) -> None:
    calls = tool("ctr", "")
    ContainerdStore(HERE).remove([])
    DockerStore(HERE).remove([])
    assert not calls.exists()


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
