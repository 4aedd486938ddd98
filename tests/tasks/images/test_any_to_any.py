"""Any source to any target, an old release from one source and the new one from another: only what is new travels."""

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import count, product
from pathlib import Path

import pytest

from tasks.domain.reference import ImageReference
from tasks.images.bundle import Base, BundleSource, write_bundle
from tasks.images.delivery import Receiver, deliver
from tasks.images.missing import need_of, nothing_to_do
from tasks.images.model import Image, Need, Source, Target, digest_of
from tasks.images.registry.access import Access
from tasks.images.registry.source import RegistrySource
from tasks.images.registry.target import RegistryTarget
from tests.tasks.images.bundle.shelf import layer_of
from tests.tasks.images.registry.served import OCI, Served, served
from tests.tasks.images.stores import ContainerdStore, EngineStore, plain

AT = datetime(2025, 7, 1, tzinfo=UTC)
PARTS = ("manager", "worker", "cache")
EMPTY = layer_of(b"empty", 0)
OLD, NEW = "2025.04.3", "2025.07.0"
SOURCES = ("registry", "another registry", "Docker", "bundle of a registry", "bundle of Docker", "bundle by others")
TARGETS = ("containerd", "Docker", "registry")
# A registry asks a hundred questions a case: each source first and second, among them registry and Docker both ways.
PAIRS = [
    (first, second, kind)
    for (one, first), (two, second), kind in product(enumerate(SOURCES), enumerate(SOURCES), TARGETS)
    if kind != "registry" or (two - one) % len(SOURCES) in (2, 4)
]


@cache
def layers(part: str, version: str) -> list[bytes]:
    """A base that all share, one layer of the release, one of the image's own, and twice the same empty one."""
    return [
        layer_of(b"base", 90_000),
        EMPTY,
        layer_of(version.encode(), 20_000),
        layer_of((part + version).encode()),
        EMPTY,
    ]


def reference(part: str, version: str, folder: str = "apinizercloud") -> ImageReference:
    return ImageReference.parse(f"{folder}/{part}:{version}")


@dataclass
class Origin:
    """A source, and where in it the releases are."""

    source: Source
    folder: str = "apinizercloud"

    def find(self, version: str) -> tuple[Image, ...]:
        images = self.source.find([reference(part, version, self.folder) for part in PARTS], None)
        return tuple(image.named(reference(part, version).normal) for part, image in zip(PARTS, images, strict=True))


@pytest.fixture(scope="module")
def registry() -> Iterator[Served]:
    with served() as one:
        yield one


@pytest.fixture(scope="module")
def origins(registry: Served, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Origin]:
    """Both releases in every source."""
    engine = EngineStore("the connected side")
    for part, version in product(PARTS, (OLD, NEW)):
        name = f"{part}:{version}"
        made = registry.put_image(f"first/{name}", layers(part, version))
        registry.put_image(f"second/{name}", layers(part, version), media_type=OCI, level=1)
        engine.put(f"apinizercloud/{name}", registry.blobs[made.config], layers(part, version))
    access = Access(insecure=True)
    there = {
        "registry": Origin(RegistrySource(access), f"{registry.host}/first"),
        "another registry": Origin(RegistrySource(access), f"{registry.host}/second"),
        "Docker": Origin(engine.source()),
    }
    folder = tmp_path_factory.mktemp("bundles")
    for name, origin in (("bundle of a registry", there["registry"]), ("bundle of Docker", there["Docker"])):
        both = [image for version in (OLD, NEW) for image in origin.find(version)]
        facts = write_bundle(origin.source, both, folder / name.replace(" ", "-"), version=NEW, made_at=AT)
        there[name] = Origin(BundleSource(Path(facts.path)))
    saved = folder / "saved.tar"
    with engine.save([reference(part, version).normal for part, version in product(PARTS, (OLD, NEW))]) as chunks:
        saved.write_bytes(b"".join(chunks))
    there["bundle by others"] = Origin(BundleSource(saved))
    return there


NUMBERS = count()


@dataclass
class Place:
    """A target, under which names it has the images, and how its layers are read back."""

    kind: str
    registry: Served
    folder: str = "apinizercloud"

    def __post_init__(self) -> None:
        self.node = ContainerdStore()
        self.engine = EngineStore()
        if self.kind == "registry":
            self.folder = f"{self.registry.host}/place{next(NUMBERS)}"

    def target(self) -> Target:
        if self.kind == "registry":
            known = [reference(part, OLD, self.folder) for part in PARTS]
            return RegistryTarget(Access(insecure=True), known=known)
        return self.node if self.kind == "containerd" else self.engine.target()

    def named(self, images: Sequence[Image]) -> list[Image]:
        def name(image: Image) -> str:
            told = ImageReference.parse(image.name)
            return reference(told.repository, told.tag or "", self.folder).normal

        return [image.named(name(image)) for image in images]

    def layers(self, image: Image) -> list[bytes]:
        """What the target holds of the image, unpacked, in order."""
        if self.kind == "registry":
            path = image.name.removeprefix(f"{self.registry.host}/")
            held = self.registry.repositories[path.partition(":")[0]].blobs
            digests = [layer["digest"] for layer in self.registry.manifest(path)["layers"]]
            assert held.issuperset(digests)
            return [plain(self.registry.blobs[digest]) for digest in digests]
        read = self.node.layer if self.kind == "containerd" else self.engine.layer
        return [read(diff_id) for diff_id in image.diff_ids]

    def bring(self, origin: Origin, version: str) -> tuple[Need, int]:
        """What was missing, and the bytes that went there; all is proved."""
        images, target = self.named(origin.find(version)), self.target()
        holdings = target.look(images)
        need = need_of(images, holdings)
        outcome = deliver(origin.source, images, [Receiver("it", target, images, holdings, need)])["it"]
        assert outcome.error is None, outcome.error
        proofs = self.target().prove(images)
        assert [(proof.name, proof.config) for proof in proofs] == [(image.name, image.config) for image in images]
        again = need_of(images, self.target().look(images))
        assert nothing_to_do(again, images)
        return need, outcome.sent


def sent_form(origin: Origin, version: str, new: frozenset[str]) -> int:
    """The bytes of the layers in the form in which the source has them, and of the configs."""
    forms = {layer.diff_id: layer.blob for image in origin.find(version) for layer in image.layers}
    contents = {digest_of(each): each for part in PARTS for each in layers(part, version)}
    blobs = [forms[diff_id] for diff_id in new]
    sizes = [blob.size if blob else len(contents[diff_id]) for blob, diff_id in zip(blobs, new, strict=True)]
    return sum(sizes) + sum(len(config_of(part, version)) for part in PARTS)


def config_of(part: str, version: str) -> bytes:
    diff_ids = [digest_of(each) for each in layers(part, version)]
    return json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    ).encode()


@pytest.mark.parametrize(("first", "second", "kind"), PAIRS)
def test_only_what_is_new_travels(
    origins: Mapping[str, Origin], registry: Served, first: str, second: str, kind: str
) -> None:
    place = Place(kind, registry)
    before, _ = place.bring(origins[first], OLD)
    assert before.layers == {digest_of(each) for part in PARTS for each in layers(part, OLD)}
    need, sent = place.bring(origins[second], NEW)
    new = {digest_of(each) for part in PARTS for each in layers(part, NEW)} - before.layers
    if kind == "Docker":
        # Docker finds a layer by what lies below it: the empty one above a new layer is a new one there.
        new |= {digest_of(EMPTY)}
    assert need.layers == new
    assert sent == sent_form(origins[second], NEW, frozenset(new))
    for image in place.named(origins[first].find(OLD)) + place.named(origins[second].find(NEW)):
        assert tuple(digest_of(each) for each in place.layers(image)) == image.diff_ids
    # The old ones are whole still.
    place.target().prove(place.named(origins[first].find(OLD)))


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", SOURCES)
def test_the_same_images_under_another_name_need_no_layer(
    origins: Mapping[str, Origin], registry: Served, name: str, kind: str
) -> None:
    place = Place(kind, registry)
    place.bring(origins["Docker"], OLD)
    renamed = [image.named(image.name + "-again") for image in place.named(origins[name].find(OLD))]
    target = place.target()
    holdings = target.look(renamed)
    need = need_of(renamed, holdings)
    assert need.layers == frozenset()
    assert not nothing_to_do(need, renamed)
    outcome = deliver(origins[name].source, renamed, [Receiver("it", target, renamed, holdings, need)])["it"]
    assert outcome.error is None
    assert outcome.sent <= sum(len(config_of(part, OLD)) for part in PARTS)
    assert len(place.target().prove(renamed)) == len(PARTS)


@pytest.mark.parametrize("kind", TARGETS[:1])
@pytest.mark.parametrize(("first", "second"), list(product(SOURCES, ("registry", "Docker"))))
def test_a_differential_bundle_onto_whatever_form_the_old_release_came_in(
    origins: Mapping[str, Origin], registry: Served, tmp_path: Path, first: str, second: str, kind: str
) -> None:
    place = Place(kind, registry)
    before, _ = place.bring(origins[first], OLD)
    origin = origins[second]
    base = Base.of_images(OLD, origin.find(OLD))
    facts = write_bundle(origin.source, origin.find(NEW), tmp_path / "bundle", version=NEW, made_at=AT, held=base)
    with BundleSource(Path(facts.path)) as source:
        need, _ = place.bring(Origin(source), NEW)
    assert need.layers.isdisjoint(before.layers)
    assert facts.left_out


def test_three_kinds_of_targets_from_one_reading(origins: Mapping[str, Origin], registry: Served) -> None:
    origin = origins["Docker"]
    places = [Place(kind, registry) for kind in TARGETS]
    for place, old in zip(places, ("registry", "another registry", "bundle by others"), strict=True):
        place.bring(origins[old], OLD)
    for kind_images in (places[:2], places[2:]):  # Names are one for all in a delivery: a registry's are other ones.
        images = kind_images[0].named(origin.find(NEW))
        receivers = []
        for place in kind_images:
            target = place.target()
            holdings = target.look(images)
            receivers.append(Receiver(place.kind, target, images, holdings, need_of(images, holdings)))
        outcomes = deliver(origin.source, images, receivers)
        assert [one.error for one in outcomes.values()] == [None] * len(receivers)
        for place in kind_images:
            assert len(place.target().prove(images)) == len(PARTS)


def test_the_forms_really_differ(origins: Mapping[str, Origin]) -> None:
    """What the others say would be worth little if all sources had the same bytes."""
    base = {
        name: next(iter(origin.find(NEW))).layers[0].blob for name, origin in origins.items() if name in SOURCES[:4]
    }
    digests = {blob.digest if blob else "" for blob in base.values()}
    assert len(digests) == 3
    assert gzip.compress(layers("worker", NEW)[0], 6, mtime=0) != gzip.compress(layers("worker", NEW)[0], 1, mtime=0)
