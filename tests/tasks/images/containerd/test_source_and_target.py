"""From one containerd to another: what is found, what is missing, what travels, what is proved, what went wrong."""

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from tasks.domain.errors import (
    BlockedError,
    ForbiddenError,
    NotFoundError,
    TemporaryError,
    UnprovenError,
    UpgradeError,
)
from tasks.images.containerd import ContainerdSource, ContainerdTarget
from tasks.images.containerd.refusals import AwayError
from tasks.images.delivery import Outcome, Receiver, deliver
from tasks.images.missing import need_of
from tasks.images.model import Blob, Image, Platform, digest_of
from tasks.images.remote import Host, Remote
from tests.tasks.images.containerd.bringing import (
    AMD,
    ARM,
    BASE,
    CACHE,
    DIAL,
    HERE,
    OTHER,
    OWN,
    PART,
    WORKER,
    Make,
    bring,
    data,
    parsed,
    until,
)
from tests.tasks.images.containerd.standin import Store


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
