"""A ctr that only root may use, and a containerd that is not the kubelet's."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tasks.domain.errors import (
    BlockedError,
    StoppedError,
    TemporaryError,
)
from tasks.domain.placement import NodeFacts, ReportedImage
from tasks.images.containerd import ContainerdSource, ContainerdTarget
from tasks.images.delivery import Outcome
from tasks.images.model import digest_of
from tasks.images.remote import Host, Remote
from tests.tasks.images.containerd.bringing import (
    BASE,
    DIAL,
    HERE,
    OTHER,
    OWN,
    PART,
    WORKER,
    Make,
    bring,
    parsed,
    until,
)
from tests.tasks.images.containerd.standin import Store


@pytest.fixture
def sudo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], list[str]]:
    """A stand-in for sudo, which stays between as the real one often does; gives the commands that it was told."""
    program, noted = tmp_path / "sudo" / "sudo", tmp_path / "noted"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$*" >>{noted}\n[ "$1" = -n ] || exit 9\nshift\n"$@"\nexit $?\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return lambda: noted.read_text().splitlines()


def test_sudo_is_in_front_of_ctr_and_of_what_reads_its_files(
    source: ContainerdSource, another: Make, sudo: Callable[[], list[str]]
) -> None:
    """A rule in sudoers for ctr alone must do."""
    store, ctr = another()
    target = ContainerdTarget(Remote(Host("node-a", sudo=True)), "node-a", tool=ctr)
    images = source.find(parsed("apinizercloud/worker:2"), None)
    assert bring(images, source, target).error is None
    target.prove(images)
    assert len([line for line in sudo() if line.startswith(f"-n {ctr} ")]) == len(
        (store.folder / "calls").read_text().splitlines()
    )


def test_an_import_below_sudo_whose_line_is_cut_keeps_what_came(
    source: ContainerdSource, another: Make, sudo: Callable[[], list[str]]
) -> None:
    """The import is root's, and a child of sudo: sudo must be asked to kill, and ctr be reached, not only sudo."""
    store, ctr = another()
    target = ContainerdTarget(Remote(Host("node-a", sudo=True)), "node-a", tool=ctr)
    with target._importing() as sending:
        sending.write(PART)
        until(lambda: digest_of(BASE) in store.state()["labels"])
        with pytest.raises(TemporaryError, match="did not get into containerd"):
            sending.finish()
    assert [line.split()[:3] for line in sudo() if "kill" in line] == [["-n", "kill", "-KILL"]]
    images = source.find(parsed("apinizercloud/worker:2"), None)
    assert bring(images, source, target) == Outcome(len(OWN) + len(images[0].config_content), None)


def test_a_stop_here_leaves_the_kill_its_time(
    source: ContainerdSource, another: Make, sudo: Callable[[], list[str]]
) -> None:
    """Whoever leaves with an error ends the shell by a signal: what came stays all the same."""
    store, ctr = another()
    target = ContainerdTarget(Remote(Host("here", sudo=True)), "here", tool=ctr)

    def stopped() -> None:
        with target._importing() as sending:
            sending.write(PART)
            until(lambda: digest_of(BASE) in store.state()["labels"])
            raise StoppedError("Stopped.")

    with pytest.raises(StoppedError):
        stopped()
    assert [line.split()[:3] for line in sudo() if "kill" in line] == [["-n", "kill", "-KILL"]]
    assert digest_of(BASE) in store.state()["labels"]


PAUSE = "docker.io/rancher/mirrored-pause:3.6"


@pytest.fixture
def rancher(store: Store, another: Make, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A containerd of k3s at a socket of its own beside the one that `ctr` takes by itself; both answer to one `ctr`."""
    second, ctr = another()
    (second.folder / "version").write_text("v1.7.11-k3s2")
    second.add(PAUSE, [OTHER])
    first = store.folder / "bin" / "ctr"
    first.rename(store.folder / "bin" / "usual")
    first.write_text(
        f'#!/bin/sh\ncase "$*" in *k3s.sock*) exec {ctr} "$@";; *) exec {first.parent}/usual "$@";; esac\n'
    )
    first.chmod(0o755)
    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{folder}/k3s.sock")
        monkeypatch.setattr("tasks.images.containerd.looking.ELSEWHERE", ("/none/k3s.sock", f"{folder}/k3s.sock"))
        yield second


def beside(runtime: str = "containerd://1.7.11-k3s2", address: str = "") -> ContainerdTarget:
    node = NodeFacts("node-a", runtime=runtime, images=(ReportedImage((PAUSE,), 1),))
    return ContainerdTarget(HERE, "node-a", node=node, address=address)


def test_the_kubelets_containerd_is_found_beside_another(
    source: ContainerdSource, store: Store, rancher: Store
) -> None:
    """Docker's answers at the usual socket, and its images are none of the kubelet's."""
    images = source.find(parsed("apinizercloud/worker:2"), None)
    store.name(PAUSE, store.state()["images"][WORKER][0])
    target = beside()
    assert set(target.look(images).names) == {PAUSE}
    assert bring(images, source, target).error is None
    target.keep(images)
    assert target.prove(images)[0].pinned
    assert set(rancher.state()["images"]) == {PAUSE, WORKER}


def test_the_kubelets_containerd_is_found_where_no_other_answers(store: Store, rancher: Store) -> None:
    (store.folder / "fail").write_text(DIAL + 'timeout"\n1')
    assert set(beside().look([]).names) == {PAUSE}
    (rancher.folder / "fail").write_text(DIAL + 'timeout"\n1')
    with pytest.raises(TemporaryError, match="containerd on node-a does not answer"):
        beside().look([])


def test_a_containerd_that_is_not_the_kubelets_is_refused(store: Store, rancher: Store) -> None:
    with pytest.raises(BlockedError, match="not the one of its kubelet") as caught:
        beside("containerd://2.0.0-k3s1").look([])
    assert "At /run/containerd/containerd.sock its version is 1.6.20~ds1." in caught.value.observed
    assert "k3s.sock its version is v1.7.11-k3s2." in caught.value.observed
    assert "images.nodes.address" in caught.value.next
    # A socket that is set is not passed over in silence.
    with pytest.raises(BlockedError, match="not the one of its kubelet"):
        beside(address="/run/containerd/containerd.sock").look([])
