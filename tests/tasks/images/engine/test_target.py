"""Images into a Docker engine through its command: what travels, what is proved, what an engine refuses."""

import gzip
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard

from tasks.domain.errors import BlockedError, ForbiddenError, NotFoundError, TemporaryError, UnprovenError, UpgradeError
from tasks.domain.reference import ImageReference
from tasks.images.delivery import Outcome, Receiver, deliver
from tasks.images.engine import DockerNodeTarget, DockerSource
from tasks.images.engine.failures import LayerGoneError, load_refused, of_load
from tasks.images.media import OCI_LAYER_GZIP, OCI_LAYER_ZSTD
from tasks.images.missing import need_of
from tasks.images.model import Blob, Descriptor, Image, Layer, Platform
from tasks.images.remote import Host, Remote
from tests.tasks.images.engine.standin import Engine, command, serving, sha

BASE, LIB, JAR, OTHER = (random.Random(size).randbytes(size) for size in (40000, 2500, 30000, 900))  # noqa: S311
OLD, NEW, CACHE = "apinizercloud/worker:1", "apinizercloud/worker:2", "apinizercloud/cache:2"


@dataclass
class Site:
    """An engine that has the images, and a node whose engine does not."""

    source: Engine
    node: Engine
    address: str
    tool: str
    node_address: str

    def images(self, *names: str) -> tuple[Image, ...]:
        return DockerSource(self.address).find([ImageReference.parse(name) for name in names], None)

    @property
    def target(self) -> DockerNodeTarget:
        return DockerNodeTarget(Remote(Host("node-d")), "node-d", tool=self.tool, address=self.node_address)

    def bring(self, images: Sequence[Image], target: DockerNodeTarget | None = None) -> Outcome:
        target = target or self.target
        holdings = target.look(images)
        receiver = Receiver("node-d", target, images, holdings, need_of(images, holdings))
        return deliver(DockerSource(self.address), images, [receiver])["node-d"]


@pytest.fixture(params=["graph", "containerd"])
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def site(store: str, tmp_path: Path) -> Iterator[Site]:
    source, node = Engine(), Engine(store=store)
    source.add(OLD, [BASE, LIB])
    source.add(NEW, [BASE, LIB, JAR])
    source.add(CACHE, [BASE, JAR])
    tool = str(command(tmp_path / "docker"))
    with serving(source, tmp_path / "source.sock") as here, serving(node, tmp_path / "node.sock") as there:
        yield Site(source, node, here, tool, there)


graph_only = pytest.mark.parametrize("store", ["graph"])


def test_a_release_and_the_next_one(site: Site, store: str) -> None:
    """The first brings everything once; of the second only what is missing travels; then nothing does."""
    first = site.images(OLD)
    outcome = site.bring(first)
    assert outcome.error is None
    assert outcome.sent == len(BASE) + len(LIB) + len(site.source.configs[first[0].config])
    proofs = site.target.prove(first)
    assert [(proof.name, proof.config, proof.pinned) for proof in proofs] == [
        (f"docker.io/{OLD}", first[0].config, False)
    ]

    second = site.images(NEW, CACHE)
    outcome = site.bring(second)
    assert outcome.error is None
    configs = sum(len(site.source.configs[image.config]) for image in second)
    # Of NEW the layers below JAR are there; the JAR above BASE is another one than that above LIB, and sent once.
    held = len(BASE) + len(LIB) if store == "graph" else 0
    assert outcome.sent == len(BASE) + len(LIB) + len(JAR) - held + configs
    assert [proof.config for proof in site.target.prove(second)] == [image.config for image in second]

    loads = len(site.node.loaded)
    assert site.bring(second) == Outcome(0, None)
    assert len(site.node.loaded) == loads


@pytest.mark.parametrize("store", ["containerd"])
def test_an_image_is_saved_once_to_know_its_config(site: Site) -> None:
    images, target = site.images(NEW, CACHE), site.target
    assert site.bring(images, target).error is None
    for _ in range(3):
        assert target.look(images).names[images[0].name] == images[0].config
        assert [proof.config for proof in target.prove(images)] == [image.config for image in images]
    assert site.node.asked.count("images/get") == 2
    site.node.add(NEW, [BASE, LIB, JAR], created="2026-02-02T00:00:00Z")  # the same layers, another config
    with pytest.raises(UnprovenError):
        target.prove(images)


@graph_only
def test_a_layer_counts_only_above_the_same_ones(site: Site) -> None:
    """The engine has JAR and LIB, though not in this order: both have to come again."""
    site.node.add("other:1", [BASE, JAR])
    site.source.add("apinizercloud/portal:2", [BASE, LIB, JAR])
    images = site.images("apinizercloud/portal:2")
    assert set(site.target.look(images).blobs) == {sha(BASE)}
    assert site.bring(images).error is None
    assert site.target.prove(images)


@graph_only
def test_look_tells_names_and_platform(site: Site) -> None:
    config = site.node.add("nexus.local:5000/worker:1", [BASE])
    holdings = site.target.look(site.images(NEW))
    assert holdings.names == {"nexus.local:5000/worker:1": config}
    assert holdings.platform == Platform("linux", "amd64")
    assert holdings.free is not None
    assert holdings.free > 0
    assert not holdings.whole_layers


def test_an_image_that_is_there_under_another_name_only_gets_its_name(site: Site) -> None:
    first = site.images(OLD)
    assert site.bring(first).error is None
    renamed = [first[0].named("nexus.local:5000/apinizercloud/worker:1")]
    outcome = site.bring([*first, *renamed])
    assert outcome.error is None
    assert outcome.sent < 1000
    assert site.target.prove(renamed)[0].config == first[0].config


@graph_only
def test_a_name_that_means_another_image_is_moved(site: Site) -> None:
    site.node.add(NEW, [OTHER])
    images = site.images(NEW)
    with pytest.raises(UnprovenError) as caught:
        site.target.prove(images)
    assert images[0].config in caught.value.observed
    assert site.node.tags[images[0].name] in caught.value.observed
    assert site.bring(images).error is None
    assert site.target.prove(images)[0].config == images[0].config


def test_nothing_there_is_no_proof(site: Site) -> None:
    with pytest.raises(UnprovenError, match="found none"):
        site.target.prove(site.images(NEW))


@graph_only
def test_an_engine_that_lost_a_layer_gets_all_of_them_next_time(site: Site) -> None:
    """Between the look and the load the layers went away: refused, and with the same target the next try sends all."""
    site.node.add("old:1", [BASE, LIB])
    images, target = site.images(NEW), site.target
    holdings = target.look(images)
    site.node.layers.clear()
    receiver = Receiver("node-d", target, images, holdings, need_of(images, holdings))
    error = deliver(DockerSource(site.address), images, [receiver])["node-d"].error
    assert isinstance(error, LayerGoneError)
    assert isinstance(error, TemporaryError)
    assert site.node.find("old:1")
    assert target.look(images).whole_layers
    assert site.bring(images, target).error is None
    assert target.prove(images)


PACKED = {
    OCI_LAYER_GZIP: lambda content: gzip.compress(content, mtime=0),
    OCI_LAYER_ZSTD: zstandard.ZstdCompressor().compress,
}


def packed(engine: Engine, name: str, kind: str) -> tuple[Image, Callable[[frozenset[str]], Iterator[Blob]]]:
    """An image as a registry gives it: compressed layers."""
    config = engine.configs[engine.find(name)]
    image_id = sha(config)
    contents = [engine.layers[chain] for chain in engine.chains(config)]
    blobs = {sha(each): PACKED[kind](each) for each in contents}
    layers = tuple(Layer(diff_id, Descriptor(kind, sha(blob), len(blob))) for diff_id, blob in blobs.items())

    def read(wanted: frozenset[str]) -> Iterator[Blob]:
        yield Blob("config", "", image_id, len(config), "", iter((config,)))
        for layer in layers:
            if layer.diff_id in wanted and layer.blob:
                content = blobs[layer.diff_id]
                yield Blob(
                    "layer", layer.diff_id, layer.blob.digest, len(content), kind, iter((content[:9], content[9:]))
                )

    return Image(f"docker.io/{name}", name, Platform("linux", "amd64"), image_id, layers), read


@pytest.mark.parametrize("version", ["20.10.24", "26.1.5"])
@pytest.mark.parametrize("kind", [OCI_LAYER_GZIP, OCI_LAYER_ZSTD])
def test_compressed_layers_of_a_registry(site: Site, kind: str, version: str) -> None:
    """They travel as they are; zstd is taken off where the engine does not know it."""
    site.node.version = version
    image, read = packed(site.source, NEW, kind)
    target = site.target
    holdings = target.look([image])
    need = need_of([image], holdings)
    with target.inlet([image], need, holdings) as inlet:
        for blob in read(need.layers):
            inlet.take(blob)
        inlet.finish()
    assert target.prove([image])[0].config == image.config
    if site.node.store == "graph":
        assert target.look([image.named("docker.io/a/b:1")]).blobs.keys() == set(image.diff_ids)


def test_left_without_finish_nothing_is_loaded(site: Site) -> None:
    images = site.images(NEW)
    target = site.target
    holdings = target.look(images)
    need = need_of(images, holdings)
    blobs = DockerSource(site.address).read(images, need.layers)
    with target.inlet(images, need, holdings) as inlet:
        inlet.take(next(blobs))
        inlet.take(next(blobs))
    with pytest.raises(ZeroDivisionError), target.inlet(images, need, holdings) as inlet:
        inlet.take(Blob("layer", sha(JAR), sha(JAR), 10, "", (bytes(10 // size) for size in (5, 0))))
    assert site.node.tags == {}
    assert site.bring(images).error is None
    assert target.prove(images)


def test_a_layer_of_another_size_than_said(site: Site) -> None:
    images = site.images(NEW)
    target = site.target
    holdings = target.look(images)
    blob = Blob("layer", sha(JAR), sha(JAR), 10, "", iter((b"short",)))
    with (
        pytest.raises(UnprovenError, match="expected 10 bytes, found 5"),
        target.inlet(images, need_of(images, holdings), holdings) as inlet,
    ):
        inlet.take(blob)
    assert site.node.tags == {}


@graph_only
def test_a_zstd_layer_that_is_none(site: Site) -> None:
    images = site.images(NEW)
    target = site.target
    holdings = target.look(images)
    blob = Blob("layer", sha(JAR), sha(JAR), 5, OCI_LAYER_ZSTD, iter((b"plain",)))
    with (
        pytest.raises(UnprovenError, match="cannot be unpacked"),
        target.inlet(images, need_of(images, holdings), holdings) as inlet,
    ):
        inlet.take(blob)


@graph_only
def test_content_that_is_not_what_its_digest_says(site: Site) -> None:
    """The engine itself sees it as well, should it ever get so far."""
    images = site.images(OLD)
    target = site.target
    holdings = target.look(images)
    config = site.source.configs[images[0].config]
    with target.inlet(images, need_of(images, holdings), holdings) as inlet:
        inlet.take(Blob("config", "", images[0].config, len(config), "", iter((config,))))
        inlet.take(Blob("layer", sha(BASE), sha(BASE), len(OTHER), "", iter((OTHER,))))
        inlet.take(Blob("layer", sha(LIB), sha(LIB), len(LIB), "", iter((LIB,))))
        with pytest.raises(UnprovenError, match="invalid diffID"):
            inlet.finish()
    assert site.node.tags == {}


def test_no_engine_no_command(site: Site, tmp_path: Path) -> None:
    images = site.images(NEW)
    away = DockerNodeTarget(Remote(Host("node-d")), "node-d", tool=site.tool, address=f"unix://{tmp_path}/none.sock")
    with pytest.raises(TemporaryError, match="Cannot connect to the Docker daemon"):
        away.look(images)
    with pytest.raises(TemporaryError, match="Cannot connect to the Docker daemon"):
        away.prove(images)
    with pytest.raises(NotFoundError, match="was not found on node-d"):
        DockerNodeTarget(Remote(Host("node-d")), "node-d", tool=str(tmp_path / "nodocker")).look(images)


def test_no_permission(site: Site, tmp_path: Path) -> None:
    """As Docker's client says it."""
    tool = tmp_path / "forbidden"
    tool.write_text(
        "#!/bin/sh\necho 'Got permission denied while trying to connect to the Docker daemon socket at"
        ' unix:///var/run/docker.sock: Get "http://%2Fvar%2Frun%2Fdocker.sock/v1.24/info": dial unix'
        " /var/run/docker.sock: connect: permission denied' >&2\nexit 1\n"
    )
    tool.chmod(0o755)
    with pytest.raises(ForbiddenError, match="sudo"):
        DockerNodeTarget(Remote(Host("node-d")), "node-d", tool=str(tool)).look(site.images(NEW))


@graph_only
@pytest.mark.parametrize("reads", ["cat >/dev/null", "head -c 100 >/dev/null"])
@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Error processing tar file(exit status 1): write /x: no space left on device", BlockedError),
        ('{"errorDetail":{"message":"write /x: no space left on device"},"error":"..."}', BlockedError),
        ("open /var/lib/docker/tmp/docker-import-1/ab.tar: no such file or directory", LayerGoneError),
    ],
)
def test_a_failure_that_ends_with_zero(
    site: Site, tmp_path: Path, said: str, kind: type[UpgradeError], reads: str
) -> None:
    """As Docker 20.10 tells some: on standard output, whether it has taken the archive or not."""
    tool = tmp_path / "told"
    tool.write_text(f'#!/bin/sh\n[ "$3" = load ] || exec {site.tool} "$@"\n{reads}\necho \'{said}\'\n')
    tool.chmod(0o755)
    site.tool = str(tool)
    error = site.bring(site.images(NEW)).error
    assert type(error) is kind
    assert said in error.observed


@pytest.mark.parametrize(
    ("said", "refused"),
    [
        ("Loaded image: apinizercloud/worker:2", False),
        ("Loaded image ID: sha256:ab", False),
        ("Loaded image(s): localhost/a:1", False),
        (
            "The image a:1 already exists, renaming the old one with ID sha256:ab to empty string\nLoaded image: a:1",
            False,
        ),
        ("WARNING: Error loading config file: /home/operator/.docker/config.json\nLoaded image: a:1\n", False),
        ("", False),
        ("Loaded image: a:1\nwrite /x: no space left on device", True),
        ('Loaded image: a:1\n{"errorDetail":{"message":"x"},"error":"x"}', True),
        ("unexpected EOF", True),
    ],
)
def test_what_a_load_that_ended_with_zero_says(said: str, *, refused: bool) -> None:
    assert load_refused(said) is refused


@pytest.mark.parametrize(
    "answer", ['{"host": {"arch": "amd64"}}', '{"ServerErrors": ["Cannot connect"]}', "", "no JSON"]
)
def test_an_answer_that_is_not_dockers(site: Site, tmp_path: Path, answer: str) -> None:
    """podman's command, a client without engine that ends with 0 (Docker before 23), anything."""
    tool = tmp_path / "odd"
    tool.write_text(f"#!/bin/sh\necho '{answer}'\n")
    tool.chmod(0o755)
    with pytest.raises(TemporaryError):
        DockerNodeTarget(Remote(Host("node-d")), "node-d", tool=str(tool)).look(site.images(NEW))


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Error processing tar file(exit status 1): write /x/layer.tar: no space left on device", BlockedError),
        ("open /var/lib/docker/tmp/docker-import-1/ab.tar: no such file or directory", LayerGoneError),
        ('failed to resolve layers: layer "ab/layer.tar" not found', LayerGoneError),
        ("invalid diffID for layer 0: expected x, got y", UnprovenError),
        ("unexpected EOF", TemporaryError),
        ('error during connect: Post "http://x/images/load": write: broken pipe', TemporaryError),
        (
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
            TemporaryError,
        ),
        ("something else", UpgradeError),
    ],
)
def test_what_a_refusal_means(said: str, kind: type[UpgradeError]) -> None:
    error = of_load("The engine", said)
    assert type(error) is kind
    assert said in error.observed
    assert error.next
    assert error.safe == "No component was changed."
