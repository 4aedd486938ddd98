"""One reading of a source for many receivers: what arrives, what fails whom, and that nothing is left running."""

# ruff: noqa: ARG002 -- the sources and targets here have the whole interface and use a part of it.

import os
import random
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import pytest

from tasks.domain.errors import (
    ForbiddenError,
    StoppedError,
    TemporaryError,
    UnprovenError,
    UpgradeError,
)
from tasks.domain.reference import ImageReference
from tasks.images.delivery import Outcome, Receiver, deliver
from tasks.images.media import DOCKER_LAYER, OCI_CONFIG, OCI_LAYER_GZIP
from tasks.images.missing import need_of
from tasks.images.model import Blob, Descriptor, HeldBlob, Holdings, Image, Layer, Need, Platform, Proof, digest_of
from tasks.images.surveying import at_once

LINUX = Platform("linux", "amd64")


@dataclass
class MemorySource:
    """Images of given layers (content by name); `spoil` changes what goes over the line."""

    contents: dict[str, list[bytes]]
    plain: bool = True
    chunk: int = 100_000
    spoil: dict[str, bytes] = field(default_factory=dict)
    leave_out: set[str] = field(default_factory=set)
    break_at: int = -1
    error: Exception = field(default_factory=lambda: ConnectionResetError("reset by peer"))
    twice: bool = False
    gives_all: bool = False
    read_bytes: int = 0
    reads: int = 0
    closed: bool = False
    where: str = "the test's source"

    @property
    def images(self) -> tuple[Image, ...]:
        return tuple(self._image(name, layers) for name, layers in self.contents.items())

    def _image(self, name: str, layers: list[bytes]) -> Image:
        config = f"config of {name}".encode()
        blobs = (Descriptor(DOCKER_LAYER, digest_of(each), len(each)) for each in layers)
        return Image(
            name, name, LINUX, digest_of(config), tuple(Layer(b.digest, b) for b in blobs), config_content=config
        )

    def find(self, references: Sequence[ImageReference], platform: Platform | None) -> tuple[Image, ...]:
        return self.images

    def read(self, images: Sequence[Image], wanted: frozenset[str]) -> Iterator[Blob]:
        self.reads += 1
        try:
            given: set[str] = set()
            for image in images:
                yield self._blob("config", image.config_content)
                for content in self.contents[image.name]:
                    if self.gives_all or digest_of(content) in wanted - given - self.leave_out:
                        given.add(digest_of(content))
                        for _ in range(2 if self.twice else 1):
                            yield self._blob("layer", content)
        finally:
            self.closed = True

    def _blob(self, kind: str, content: bytes) -> Blob:
        digest = digest_of(content)
        sent = self.spoil.get(digest, content)
        if kind == "config":
            return Blob("config", "", digest, len(content), OCI_CONFIG, self._chunks(sent))
        return Blob("layer", digest, digest, len(content), DOCKER_LAYER, self._chunks(sent))

    def _chunks(self, content: bytes) -> Iterator[bytes]:
        for start in range(0, len(content), self.chunk):
            if 0 <= self.break_at <= self.read_bytes:
                raise self.error
            piece = content[start : start + self.chunk]
            self.read_bytes += len(piece)
            yield piece


class MemoryTarget:
    """Keeps what it gets, and counts it only when it is finished."""

    def __init__(self, where: str = "node", *, fail_at: int = -1, error: Exception | None = None) -> None:
        self.where = where
        self.fail_at = fail_at
        self.error = error or TemporaryError(f"{where} was cut off.")
        self.got: dict[str, bytes] = {}
        self.names: list[str] = []
        self.finished = False
        self.left = 0
        self.skip: set[str] = set()
        self.pause = 0.0
        self._bytes = 0

    def look(self, images: Sequence[Image]) -> Holdings:
        return Holdings()

    def inlet(self, images: Sequence[Image], need: Need, holdings: Holdings) -> "MemoryTarget":
        self.names = [image.name for image in images]
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.left += 1

    def take(self, blob: Blob) -> None:
        if blob.digest in self.skip:
            return
        parts = []
        for chunk in blob.chunks:
            self.write(chunk)
            parts.append(chunk)
        assert blob.digest not in self.got
        self.got[blob.digest] = b"".join(parts)

    def write(self, chunk: bytes) -> None:
        time.sleep(self.pause)
        self._bytes += len(chunk)
        if 0 <= self.fail_at < self._bytes:
            raise self.error

    def finish(self) -> None:
        assert not self.finished
        self.finished = True

    def keep(self, images: Sequence[Image]) -> None:
        pass

    def prove(self, images: Sequence[Image]) -> tuple[Proof, ...]:
        return ()


class PipeTarget(MemoryTarget):
    """Writes into a pipe or a socket that something else reads, as a target over SSH does."""

    def __init__(self, where: str, write_end: int) -> None:
        super().__init__(where)
        self.write_end = write_end

    def write(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            view = view[os.write(self.write_end, view) :]


def receiver(name: str, target: MemoryTarget, images: Sequence[Image], holdings: Holdings | None = None) -> Receiver:
    holdings = holdings or Holdings()
    return Receiver(name, target, images, holdings, need_of(images, holdings))


def content(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 -- content only.


BASE, WORKER, CACHE = content(1, 3_000_000), content(2, 700_000), content(3, 1)


@pytest.fixture(autouse=True)
def no_thread_remains() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before and thread.name.startswith("images to")]
    assert left == []


@pytest.fixture
def source() -> MemorySource:
    return MemorySource({"worker": [BASE, WORKER], "cache": [BASE, CACHE]})


def whole(source: MemorySource) -> dict[str, bytes]:
    layers = [layer for layers in source.contents.values() for layer in layers]
    return {digest_of(each): each for each in [*layers, *(image.config_content for image in source.images)]}


@pytest.mark.parametrize("chunk", [7_000, 300_000, 2_500_000])
def test_every_receiver_gets_what_it_lacks_from_one_reading(source: MemorySource, chunk: int) -> None:
    source.chunk = chunk
    everything, some, names = MemoryTarget("a"), MemoryTarget("b"), MemoryTarget("c")
    base = HeldBlob(digest_of(BASE), len(BASE))
    names_only = Holdings(names={"x": source.images[0].config, "y": source.images[1].config}, whole_layers=True)
    told: dict[str, list[tuple[int, int]]] = {"a": [], "b": [], "c": []}
    outcomes = deliver(
        source,
        source.images,
        [
            receiver("a", everything, source.images),
            receiver("b", some, source.images[:1], Holdings(blobs={base.digest: base})),
            receiver("c", names, source.images, names_only),
        ],
        progress=lambda name, done, in_all: told[name].append((done, in_all)),
    )
    worker, cache = source.images
    size = len(BASE) + len(WORKER) + len(CACHE) + len(worker.config_content) + len(cache.config_content)
    in_b = len(WORKER) + len(worker.config_content)
    assert outcomes == {"a": Outcome(size, None), "b": Outcome(in_b, None), "c": Outcome(0, None)}
    assert everything.got == whole(source)
    assert some.got == {digest_of(WORKER): WORKER, worker.config: worker.config_content}
    assert names.got == {}
    assert all(target.finished and target.left == 1 for target in (everything, some, names))
    assert (everything.names, some.names, names.names) == (["worker", "cache"], ["worker"], ["worker", "cache"])
    assert source.reads == 1
    assert source.closed
    assert told["a"][-1] == (size, size)
    assert [done for done, _ in told["a"]] == sorted(done for done, _ in told["a"])
    assert told["b"][-1] == (in_b, in_b)


def test_what_is_told_of_the_progress_belongs_to_the_callers_run(source: MemorySource) -> None:
    """Prefect knows a run by a context variable, and writes what it is told outside of one down nowhere."""
    run: ContextVar[str] = ContextVar("run", default="none")
    token = run.set("mine")
    told: set[str] = set()
    receivers = [receiver(name, MemoryTarget(name), source.images) for name in "ab"]
    deliver(source, source.images, receivers, progress=lambda *_: told.add(run.get()))
    assert set(at_once(lambda _: run.get(), range(3), 2)) == told == {"mine"}
    run.reset(token)


def test_who_has_everything_is_left_alone(source: MemorySource) -> None:
    target = MemoryTarget()
    held = Holdings(names={image.name: image.config for image in source.images})
    assert deliver(source, source.images, [receiver("a", target, source.images, held)]) == {"a": Outcome(0, None)}
    assert target.left == 0
    assert source.reads == 0


def test_what_nobody_wants_is_passed_over_and_what_follows_the_last_wanted_blob_is_not_read() -> None:
    source = MemorySource({"worker": [BASE, WORKER, content(7, 9_000_000)]}, gives_all=True)
    blobs = {digest_of(each): HeldBlob(digest_of(each), len(each)) for each in (BASE, source.contents["worker"][2])}
    target = MemoryTarget()
    assert (
        deliver(source, source.images, [receiver("a", target, source.images, Holdings(blobs=blobs))])["a"].error is None
    )
    assert set(target.got) == {source.images[0].config, digest_of(WORKER)}
    assert len(BASE) + len(WORKER) <= source.read_bytes < 4_000_000
    assert source.closed


def test_a_layer_that_comes_twice_is_taken_once(source: MemorySource) -> None:
    source.twice = True
    target = MemoryTarget()
    assert deliver(source, source.images, [receiver("a", target, source.images)])["a"].error is None
    assert target.got == whole(source)


def test_a_target_that_finds_a_blob_there_need_not_take_it(source: MemorySource) -> None:
    target = MemoryTarget()
    target.skip = {digest_of(BASE)}
    outcome = deliver(source, source.images, [receiver("a", target, source.images)])["a"]
    assert outcome.error is None
    assert target.finished
    assert set(target.got) == set(whole(source)) - target.skip
    assert outcome.sent == sum(len(each) for each in target.got.values())


@pytest.mark.parametrize("fail_at", [0, 1_500_000, 3_200_000])
def test_one_that_fails_is_dropped_and_the_others_go_on(source: MemorySource, fail_at: int) -> None:
    good = MemoryTarget("good")
    error = ForbiddenError("no", observed="seen", safe="all", next="do")
    bad = MemoryTarget("bad", fail_at=fail_at, error=error)
    broken = MemoryTarget("broken", fail_at=fail_at, error=BrokenPipeError("the line is gone"))
    outcomes = deliver(
        source,
        source.images,
        [receiver(name, one, source.images) for name, one in {"bad": bad, "good": good, "broken": broken}.items()],
    )
    assert outcomes["good"].error is None
    assert good.got == whole(source)
    assert outcomes["bad"].error is error
    told = outcomes["broken"].error
    assert isinstance(told, TemporaryError)
    assert "the line is gone" in told.observed
    assert told.safe
    assert told.next
    assert not bad.finished
    assert not broken.finished
    assert bad.left == broken.left == 1


def test_two_that_fail_end_the_reading(source: MemorySource) -> None:
    bad = [MemoryTarget(name, fail_at=1) for name in ("a", "b")]
    source.chunk = 10_000
    source.contents["huge"] = [bytes(60_000_000)]
    outcomes = deliver(source, source.images, [receiver(one.where, one, source.images) for one in bad])
    assert [outcomes[one.where].error for one in bad] == [one.error for one in bad]
    assert source.closed
    # What the queues hold and one look at the stream; not the sixty megabytes.
    assert source.read_bytes < 40_000_000


def test_an_inlet_that_does_not_open(source: MemorySource) -> None:
    class Shut(MemoryTarget):
        def inlet(self, images: Sequence[Image], need: Need, holdings: Holdings) -> MemoryTarget:
            raise self.error

    good = MemoryTarget("good")
    outcomes = deliver(
        source, source.images, [receiver("shut", Shut(), source.images), receiver("good", good, source.images)]
    )
    assert isinstance(outcomes["shut"].error, TemporaryError)
    assert good.finished


def test_a_fault_in_a_target_is_told_and_ends_no_other(source: MemorySource) -> None:
    good, bad = MemoryTarget("good"), MemoryTarget("bad", fail_at=1, error=ZeroDivisionError("a fault of ours"))
    outcomes = deliver(
        source, source.images, [receiver("bad", bad, source.images), receiver("good", good, source.images)]
    )
    error = outcomes["bad"].error
    assert type(error) is UpgradeError
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert good.finished


@pytest.mark.parametrize("error", [TemporaryError("gone"), ConnectionResetError("reset"), UnprovenError("bad")])
@pytest.mark.parametrize("at", [0, 1_000_000, 3_400_000])
def test_a_source_that_fails_fails_all(source: MemorySource, at: int, error: Exception) -> None:
    source.break_at, source.error = at, error
    targets = [MemoryTarget(name) for name in ("a", "b")]
    outcomes = deliver(source, source.images, [receiver(one.where, one, source.images) for one in targets])
    for target in targets:
        told = outcomes[target.where].error
        expected = type(error) if isinstance(error, UpgradeError) else TemporaryError
        assert type(told) is expected
        assert not target.finished
        assert target.left == 1
    assert source.closed


def test_a_fault_in_the_source_comes_through_and_leaves_nothing(source: MemorySource) -> None:
    source.break_at, source.error = 1_000_000, ZeroDivisionError("a fault of ours")
    target = MemoryTarget()
    with pytest.raises(ZeroDivisionError):
        deliver(source, source.images, [receiver("a", target, source.images)])
    assert not target.finished
    assert source.closed


@pytest.mark.parametrize("change", ["one byte", "shorter", "longer", "empty"])
@pytest.mark.parametrize("which", ["layer", "config"])
def test_a_wrong_blob_fails_all_who_were_to_get_it(source: MemorySource, change: str, which: str) -> None:
    worker = source.images[0]
    right = WORKER if which == "layer" else worker.config_content
    wrong = {"one byte": bytes([right[0] ^ 1]) + right[1:], "shorter": right[:-1], "longer": right + b"x", "empty": b""}
    source.spoil[digest_of(right)] = wrong[change]
    both, other = MemoryTarget("both"), MemoryTarget("other")
    outcomes = deliver(
        source,
        source.images,
        [receiver("both", both, source.images), receiver("other", other, source.images[1:])],
    )
    told = outcomes["both"].error
    assert isinstance(told, UnprovenError)
    assert digest_of(right) in told.observed
    assert not both.finished
    assert outcomes["other"].error is None
    assert other.finished


def test_a_layer_under_a_digest_that_the_manifest_does_not_name(source: MemorySource) -> None:
    class Swapped(MemorySource):
        def _blob(self, kind: str, content: bytes) -> Blob:
            blob = super()._blob(kind, content)
            if content == WORKER:
                return Blob("layer", digest_of(WORKER), digest_of(CACHE), 1, OCI_LAYER_GZIP, iter([CACHE]))
            return blob

    target = MemoryTarget()
    swapped = Swapped(source.contents)
    told = deliver(swapped, swapped.images, [receiver("a", target, swapped.images)])["a"].error
    assert isinstance(told, UnprovenError)
    assert "the manifest names" in told.observed
    assert not target.finished


def test_a_layer_that_the_source_did_not_give(source: MemorySource) -> None:
    source.leave_out = {digest_of(WORKER)}
    both, other = MemoryTarget("both"), MemoryTarget("other")
    outcomes = deliver(
        source,
        source.images,
        [receiver("both", both, source.images), receiver("other", other, source.images[1:])],
    )
    told = outcomes["both"].error
    assert isinstance(told, UnprovenError)
    assert digest_of(WORKER) in told.observed
    assert digest_of(CACHE) not in told.observed
    assert not both.finished
    assert other.finished


def test_stop_ends_everybody(source: MemorySource) -> None:
    slow, quick = MemoryTarget("slow"), MemoryTarget("quick")
    slow.pause = 0.05
    source.contents["huge"] = [content(9, 50_000_000)]
    begun = time.monotonic()
    outcomes = deliver(
        source,
        source.images,
        [receiver(one.where, one, source.images) for one in (slow, quick)],
        stop=lambda: time.monotonic() - begun > 0.5,
    )
    assert all(isinstance(each.error, StoppedError) for each in outcomes.values())
    assert not slow.finished
    assert not quick.finished
    assert source.closed
    assert time.monotonic() - begun < 10


def test_one_that_takes_nothing_any_more_is_given_up(source: MemorySource) -> None:
    read_end, write_end = os.pipe()
    hung, good = PipeTarget("hung", write_end), MemoryTarget("good")
    source.contents["huge"] = [content(9, 12_000_000)]
    releaser = threading.Timer(1.2, lambda: os.close(read_end))
    releaser.start()
    outcomes = deliver(
        source,
        source.images,
        [receiver("hung", hung, source.images), receiver("good", good, source.images)],
        patience=0.3,
    )
    releaser.join()
    os.close(write_end)
    assert good.finished
    told = outcomes["hung"].error
    assert isinstance(told, TemporaryError)
    assert "no more bytes" in told.happened
    assert not hung.finished


def test_over_pipes_and_sockets_at_their_own_pace(source: MemorySource) -> None:
    pairs = [os.pipe(), tuple(one.detach() for one in socket.socketpair())]
    received: list[bytearray] = [bytearray(), bytearray()]

    def drain(number: int) -> None:
        while piece := os.read(pairs[number][0], 65536 if number else 3000):
            received[number] += piece

    drains = [threading.Thread(target=drain, args=(number,)) for number in range(2)]
    for thread in drains:
        thread.start()
    targets = [PipeTarget(f"line {number}", pairs[number][1]) for number in range(2)]
    outcomes = deliver(source, source.images, [receiver(one.where, one, source.images) for one in targets])
    for _, write_end in pairs:
        os.close(write_end)
    for thread in drains:
        thread.join()
    for read_end, _ in pairs:
        os.close(read_end)
    assert all(each.error is None for each in outcomes.values())
    assert len(received[0]) == outcomes["line 0"].sent
    assert received[0] == received[1]
    assert BASE in received[0]


@pytest.mark.parametrize("seed", range(100))
def test_whatever_order_things_happen_in(seed: int) -> None:
    """Random sizes, paces and failures; whoever has no error has everything, whoever has one counts nothing."""
    dice = random.Random(seed)  # noqa: S311 -- a test's dice.
    layers = [dice.randbytes(dice.choice([0, 1, 1000, 300_000, 1_100_000])) for _ in range(5)]
    contents = {f"image{n}": dice.choices(layers, k=dice.randint(1, 4)) for n in range(dice.randint(1, 3))}
    source = MemorySource(contents, chunk=dice.choice([1_000_000, 40_000]), twice=dice.random() < 0.2)
    total = sum(len(each) for each in whole(source).values())
    if dice.random() < 0.3:
        source.break_at = dice.randint(0, total)
    if dice.random() < 0.2:
        victim = dice.choice(layers)
        source.spoil[digest_of(victim)] = victim + b"x"
    targets = []
    for number in range(dice.randint(1, 4)):
        fail_at = dice.randint(0, total) if dice.random() < 0.3 else -1
        target = MemoryTarget(f"node{number}", fail_at=fail_at)
        target.pause = dice.choice([0, 0, 0.002])
        targets.append(target)
    receivers = []
    for target in targets:
        images = dice.sample(source.images, k=dice.randint(1, len(source.images)))
        blobs = {
            digest_of(each): HeldBlob(digest_of(each), len(each)) for each in dice.sample(layers, k=dice.randint(0, 2))
        }
        receivers.append(receiver(target.where, target, images, Holdings(blobs=blobs)))
    outcomes = deliver(source, source.images, receivers)
    for target, one in zip(targets, receivers, strict=True):
        if outcomes[target.where].error is None:
            assert target.finished
            assert set(target.got) == one.need.layers | one.need.configs
            assert all(digest_of(each) == digest for digest, each in target.got.items())
        else:
            assert not target.finished
        if target.fail_at < 0 and source.break_at < 0 and not source.spoil:
            assert target.finished
    assert source.closed
