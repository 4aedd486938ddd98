"""From one containerd to another: what is found, what is missing, what travels, what is proved, what went wrong."""

import json
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import pytest

from tasks.domain.errors import (
    BlockedError,
    ForbiddenError,
    NotFoundError,
    StoppedError,
    TemporaryError,
    UnprovenError,
    UpgradeError,
)
from tasks.domain.placement import NodeFacts, ReportedImage
from tasks.domain.reference import ImageReference
from tasks.images.containerd import ContainerdSource, ContainerdTarget
from tasks.images.containerd.refusals import AwayError
from tasks.images.delivery import Outcome, Receiver, deliver
from tasks.images.layout import blob_path, tar_file, tar_member
from tasks.images.missing import need_of
from tasks.images.model import Blob, Image, Platform, digest_of
from tasks.images.remote import Host, Remote
from tests.tasks.images.containerd.standin import Store

Make = Callable[[], tuple[Store, str]]
HERE = Remote(Host("here"))
WORKER, CACHE = "docker.io/apinizercloud/worker:2", "docker.io/apinizercloud/cache:2"
AMD, ARM = Platform("linux", "amd64"), Platform("linux", "arm64")


def data(seed: int, size: int = 300_000) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 -- content, no secret.


BASE, OWN, OTHER = data(1, 2_000_000), data(2, 1_000_000), data(3)
PART = tar_file(blob_path(digest_of(BASE)), BASE) + tar_member(blob_path(digest_of(OWN)), len(OWN)) + OWN[:500_000]


def parsed(*names: str) -> list[ImageReference]:
    return [ImageReference.parse(name) for name in names]


def bring(images: Sequence[Image], source: ContainerdSource, target: ContainerdTarget) -> Outcome:
    held = target.look(images)
    return deliver(source, images, [Receiver("node", target, images, held, need_of(images, held))])["node"]


@pytest.fixture
def source(store: Store) -> ContainerdSource:
    store.add(WORKER, [BASE, OWN])
    store.add(CACHE, [BASE, OTHER])
    return ContainerdSource(HERE)


@pytest.mark.parametrize("form", ["plain", "compressed", "compressed, without the label of its diffID"])
@pytest.mark.parametrize("mark", ["", "no-root"])
def test_only_what_is_missing_travels(source: ContainerdSource, another: Make, form: str, mark: str) -> None:
    """In whatever form the node holds the base layer, and whether or not its content store can be read as files."""
    store, ctr = another()
    old = "docker.io/apinizercloud/worker:1"
    store.add(old, [BASE, data(9)], compressed=form != "plain", noted="without" not in form)
    if mark:
        (store.folder / mark).touch()
    target = ContainerdTarget(HERE, "node-a", tool=ctr)
    images = source.find(parsed("apinizercloud/worker:2", "apinizercloud/cache:2"), None)
    outcome = bring(images, source, target)
    assert outcome.error is None
    assert outcome.sent == len(OWN) + len(OTHER) + sum(len(image.config_content) for image in images)
    assert [(one.name, one.config) for one in target.prove(images)] == [(one.name, one.config) for one in images]
    assert bring(images, source, target) == Outcome(0, None)
    held = target.look(images)
    assert held.platform == AMD
    assert (held.free is None) is bool(mark)


def test_nothing_held_means_that_all_travels_and_each_layer_once(source: ContainerdSource, another: Make) -> None:
    _, ctr = another()
    target = ContainerdTarget(HERE, "node-a", tool=ctr)
    images = source.find(parsed("apinizercloud/worker:2", "apinizercloud/cache:2"), AMD)
    outcome = bring(images, source, target)
    assert outcome.sent == len(BASE) + len(OWN) + len(OTHER) + sum(len(image.config_content) for image in images)
    # Every layer came in the source's own form, so the manifests are the source's too.
    assert [proof.manifest_digest for proof in target.prove(images)] == [image.manifest_digest for image in images]


def test_a_name_alone_may_be_missing(source: ContainerdSource, another: Make) -> None:
    _, ctr = another()
    target = ContainerdTarget(HERE, "node-a", tool=ctr)
    images = source.find(parsed("apinizercloud/worker:2"), None)
    assert bring(images, source, target).error is None
    renamed = [images[0].named("nexus.local:5000/apinizercloud/worker:2")]
    assert bring(renamed, source, target) == Outcome(len(images[0].config_content), None)
    assert target.prove([*images, *renamed])[1].config == images[0].config


@pytest.mark.parametrize("version", ["1.6.20~ds1", "v1.7.13-k3s1", "2.0.2"])
def test_images_are_pinned_where_the_runtime_knows_it(source: ContainerdSource, another: Make, version: str) -> None:
    store, ctr = another()
    (store.folder / "version").write_text(version)
    target = ContainerdTarget(HERE, "node-a", tool=ctr)
    images = source.find(parsed("apinizercloud/worker:2"), None)
    assert bring(images, source, target).error is None
    target.keep(images)
    assert [proof.pinned for proof in target.prove(images)] == [not version.startswith("1.6")]


@pytest.mark.parametrize(("mark", "expected"), [("", []), ("local", ["--local"]), ("no-overlayfs", ["--no-unpack"])])
def test_import_is_told_what_this_ctr_knows(
    source: ContainerdSource, another: Make, mark: str, expected: list[str]
) -> None:
    store, ctr = another()
    if mark:
        (store.folder / mark).touch()
    target = ContainerdTarget(HERE, "node-a", namespace="k8s.io", address="/run/k3s/containerd.sock", tool=ctr)
    assert bring(source.find(parsed("apinizercloud/worker:2"), None), source, target).error is None
    calls = [line.split() for line in (store.folder / "calls").read_text().splitlines()]
    (imported,) = [call for call in calls if "import" in call and "--help" not in call]
    assert imported[-2 - len(expected) :] == ["import", *expected, "-"]
    assert all(
        call[:2] == ["-a", "/run/k3s/containerd.sock"] and call[call.index("-n") + 1] == "k8s.io" for call in calls
    )


class Broken:
    """A source whose second layer breaks off in the middle, once the first is on its way."""

    where = "a source that breaks"

    def __init__(self, source: ContainerdSource, fault: Callable[[], None]) -> None:
        self.source, self.fault = source, fault
        self.find = source.find

    def read(self, images: Sequence[Image], wanted: frozenset[str]) -> Iterator[Blob]:
        layers = 0
        for blob in self.source.read(images, wanted):
            layers += blob.kind == "layer"
            yield replace(blob, chunks=self._chunks(blob)) if layers == 2 else blob

    def _chunks(self, blob: Blob) -> Iterator[bytes]:
        content = b"".join(blob.chunks)
        yield content[: len(content) // 2]
        self.fault()
        yield content[len(content) // 2 :]


def until(true: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_broken_transfer_names_nothing_and_keeps_what_came(source: ContainerdSource, another: Make) -> None:
    store, ctr = another()
    target = ContainerdTarget(HERE, "node-a", tool=ctr)
    images = source.find(parsed("apinizercloud/worker:2"), None)

    def fault() -> None:
        until(lambda: digest_of(BASE) in store.state()["labels"])
        raise TemporaryError("The source broke.")

    held = target.look(images)
    receiver = Receiver("node", target, images, held, need_of(images, held))
    outcome = deliver(Broken(source, fault), images, [receiver])["node"]
    assert isinstance(outcome.error, TemporaryError)
    assert store.state()["images"] == {}
    again = bring(images, source, target)
    assert again == Outcome(len(OWN) + len(images[0].config_content), None)
    target.prove(images)


def test_an_import_whose_line_is_cut_keeps_what_came(source: ContainerdSource, another: Make) -> None:
    """The far side's view: its input ends, and nobody there has been killed."""
    store, ctr = another()
    target = ContainerdTarget(HERE, "node-a", tool=ctr)
    with target._importing() as sending:
        sending.write(PART)
        until(lambda: digest_of(BASE) in store.state()["labels"])
        with pytest.raises(TemporaryError, match="did not get into containerd"):
            sending.finish()
    assert store.state()["images"] == {}
    images = source.find(parsed("apinizercloud/worker:2"), None)
    assert bring(images, source, target) == Outcome(len(OWN) + len(images[0].config_content), None)


def test_a_killed_import_is_told_and_taken_up(source: ContainerdSource, another: Make) -> None:
    store, ctr = another()
    target = ContainerdTarget(HERE, "node-a", tool=ctr)
    images = source.find(parsed("apinizercloud/worker:2"), None)

    def fault() -> None:
        until(lambda: digest_of(BASE) in store.state()["labels"])
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            words = _words(file)
            if str(store.folder).encode() in words and b"import" in words and b"python" in words[0]:
                os.kill(int(file.parent.name), signal.SIGKILL)

    held = target.look(images)
    receiver = Receiver("node", target, images, held, need_of(images, held))
    outcome = deliver(Broken(source, fault), images, [receiver])["node"]
    assert isinstance(outcome.error, TemporaryError), outcome
    assert "did not get into containerd on node-a" in outcome.error.happened
    assert store.state()["images"] == {}
    assert bring(images, source, target) == Outcome(len(OWN) + len(images[0].config_content), None)


def _words(file: Path) -> list[bytes]:
    try:
        return file.read_bytes().split(b"\0")
    except OSError:
        return [b""]


def test_leaving_early_ends_the_import(source: ContainerdSource, another: Make) -> None:
    store, ctr = another()
    target = ContainerdTarget(HERE, "node-a", tool=ctr)
    images = source.find(parsed("apinizercloud/worker:2"), None)
    held = target.look(images)
    with target.inlet(images, need_of(images, held), held) as inlet:
        inlet.take(next(iter(source.read(images, frozenset()))))
    assert store.state()["images"] == {}
    assert not [file for file in Path("/proc").glob("[0-9]*/cmdline") if str(store.folder).encode() in _words(file)]


def test_layers_gone_since_the_look_are_sent_by_the_next_try(source: ContainerdSource, another: Make) -> None:
    store, ctr = another()
    store.add("docker.io/apinizercloud/worker:1", [BASE])
    target = ContainerdTarget(HERE, "node-a", tool=ctr)
    images = source.find(parsed("apinizercloud/worker:2"), None)
    held = target.look(images)
    store.forget(digest_of(BASE))
    outcome = deliver(source, images, [Receiver("node", target, images, held, need_of(images, held))])["node"]
    assert isinstance(outcome.error, TemporaryError)
    assert digest_of(BASE) in outcome.error.observed
    assert bring(images, source, target).error is None
    store.forget(digest_of(BASE))
    with pytest.raises(TemporaryError, match=r"does not hold docker\.io/apinizercloud/worker:2 complete"):
        target.prove(images)


def test_another_image_under_the_name_is_no_proof(source: ContainerdSource, another: Make) -> None:
    store, ctr = another()
    target = ContainerdTarget(HERE, "node-a", tool=ctr)
    (image,) = source.find(parsed("apinizercloud/worker:2"), None)
    store.add(WORKER, [BASE])
    with pytest.raises(UnprovenError, match="another image under the name") as caught:
        target.prove([image])
    assert image.config in caught.value.observed
    with pytest.raises(UnprovenError, match="does not hold"):
        target.prove([image.named("docker.io/apinizercloud/none:1")])


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


@pytest.mark.parametrize(("platform", "chosen"), [(None, "amd64"), (AMD, "amd64"), (ARM, "arm64")])
def test_of_an_index_the_platform_that_is_whole_is_taken(store: Store, platform: Platform | None, chosen: str) -> None:
    entries = [(each, store.add("", [BASE, OWN], architecture=each), 1) for each in ("arm64", "amd64")]
    index = store.add_index(WORKER, entries)
    (image,) = ContainerdSource(HERE).find(parsed("apinizercloud/worker:2"), platform)
    assert (image.platform.architecture, image.manifest_digest) == (chosen, index)


def test_a_platform_whose_blobs_are_absent_is_passed_over_or_refused(store: Store) -> None:
    there, absent = store.add("", [BASE], architecture="arm64"), store.add("", [OWN], architecture="amd64")
    store.add_index(WORKER, [("amd64", absent, 1), ("arm64", there, 1)])
    store.forget(digest_of(OWN))
    source = ContainerdSource(HERE)
    assert source.find(parsed("apinizercloud/worker:2"), None)[0].platform == ARM
    with pytest.raises(BlockedError, match="not whole") as caught:
        source.find(parsed("apinizercloud/worker:2"), AMD)
    assert "ctr -n k8s.io images pull --platform linux/amd64 docker.io/apinizercloud/worker:2" in caught.value.next
    assert "discard_unpacked_layers" in caught.value.next
    with pytest.raises(BlockedError, match="does not exist for linux/s390x"):
        source.find(parsed("apinizercloud/worker:2"), Platform("linux", "s390x"))


def test_names_as_people_write_them(store: Store) -> None:
    store.add("docker.io/library/cache:1", [OWN])
    store.add("docker.io/library/cache:latest", [OTHER])
    source = ContainerdSource(HERE)
    for text in ("cache:1", "docker.io/cache:1", "docker.io/library/cache:1", "index.docker.io/library/cache:1"):
        assert source.find(parsed(text), None)[0].diff_ids == (digest_of(OWN),)
    assert source.find(parsed("cache"), None)[0].diff_ids == (digest_of(OTHER),)
    store.add("my/tool:1", [BASE])
    assert source.find(parsed("my/tool:1"), None)[0].name == "docker.io/my/tool:1"


def test_what_is_not_there_is_said_with_what_is(source: ContainerdSource) -> None:
    with pytest.raises(NotFoundError, match="worker:3 is not in containerd of here") as caught:
        source.find(parsed("apinizercloud/worker:3"), None)
    assert WORKER in caught.value.observed
    with pytest.raises(NotFoundError) as caught:
        source.find(parsed("apinizercloud/portal:2"), None)
    assert "no image of docker.io/apinizercloud/portal" in caught.value.observed


def test_a_digest_is_held_to(source: ContainerdSource, store: Store) -> None:
    """With a tag beside it, by which the kubelet's pulls keep it, or alone."""
    digest, other = (store.state()["images"][name][0] for name in (WORKER, CACHE))
    image = source.find(parsed("apinizercloud/worker:2"), None)[0]
    assert source.find(parsed(f"apinizercloud/worker:2@{digest}"), None)[0].config == image.config
    with pytest.raises(UnprovenError, match="is another image in containerd of here") as caught:
        source.find(parsed(f"apinizercloud/worker:2@{other}"), None)
    assert digest in caught.value.observed
    store.name(f"docker.io/apinizercloud/portal@{digest}", digest)
    assert source.find(parsed(f"apinizercloud/portal@{digest}"), None)[0].config == image.config


def test_a_source_that_gives_less_than_it_names_is_told(source: ContainerdSource, store: Store, another: Make) -> None:
    _, ctr = another()
    images = source.find(parsed("apinizercloud/worker:2"), None)
    (store.blobs / digest_of(OWN)[7:]).write_bytes(OWN[:1000])
    outcome = bring(images, source, ContainerdTarget(HERE, "node-a", tool=ctr))
    assert isinstance(outcome.error, TemporaryError)
    assert "gave less than its manifests name" in outcome.error.happened
    (store.blobs / digest_of(OWN)[7:]).write_bytes(data(77, len(OWN)))
    assert isinstance(bring(images, source, ContainerdTarget(HERE, "node-a", tool=ctr)).error, UnprovenError)


DIAL = 'ctr: failed to dial "/run/c.sock": connection error: desc = "transport: error while dialing: dial unix /run/c.sock: '


@pytest.mark.parametrize(
    ("told", "kind", "says"),
    [
        (DIAL + 'connect: permission denied"', ForbiddenError, "sudo"),
        (DIAL + 'timeout"', AwayError, "containerd on node-a does not answer"),
        (DIAL + 'connect: no such file or directory": unavailable', AwayError, "socket"),
        (
            'ctr: failed to ingest "blobs/x": write /x: no space left on device: unknown',
            BlockedError,
            "disk of node-a is full",
        ),
        ('ctr: wrong diff id calculated on extraction "sha256:1"', UnprovenError, "not what the image's config says"),
        ("ctr: something else", UpgradeError, "something else"),
    ],
)
def test_what_ctr_says_is_told_with_what_to_do(another: Make, told: str, kind: type[UpgradeError], says: str) -> None:
    store, ctr = another()
    (store.folder / "fail").write_text(f"{told}\n1")
    with pytest.raises(kind) as caught:
        ContainerdTarget(HERE, "node-a", tool=ctr).look([])
    assert type(caught.value) is kind
    assert says in str(caught.value)


def test_no_ctr() -> None:
    with pytest.raises(NotFoundError, match="nosuchctr was not found on this machine") as caught:
        ContainerdTarget(Remote(Host("this machine")), "node-a", tool="/none/nosuchctr").look([])
    assert "sudo" in caught.value.next


def test_a_document_that_garbage_collection_takes_meanwhile_is_no_confusion(store: Store) -> None:
    """Blobs vanish and come while it is asked: the answers are whole, or it is asked again."""
    store.add(WORKER, [BASE, OWN])
    extra = [store.put(json.dumps({"n": number}).encode()) for number in range(30)]
    done: list[bool] = []

    def churn() -> None:
        while not done:
            for digest in extra:
                (store.blobs / digest[7:]).unlink(missing_ok=True)
            for number in range(30):
                (store.blobs / extra[number][7:]).write_bytes(json.dumps({"n": number}).encode())

    thread = Thread(target=churn)
    thread.start()
    try:
        for _ in range(5):
            try:
                held = ContainerdTarget(HERE, "node-a").look([])
            except TemporaryError:
                continue
            assert set(held.names) == {WORKER}
    finally:
        done.append(True)
        thread.join()
