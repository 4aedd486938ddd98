"""What is taken out of a `docker save`: samples of real engines, made-up images in every form, and broken archives."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.domain.errors import BlockedError, DamagedArchiveError, TemporaryError, UnprovenError, UpgradeError
from tasks.domain.reference import ImageReference
from tasks.images.model import DEFAULT_PLATFORM, Image, Layer, Platform
from tasks.images.saved import reader
from tasks.images.saved.catalogue import read_catalogue
from tasks.images.saved.reader import read_saved
from tasks.images.saved.tape import Tape
from tests.tasks.images.engine.standin import Engine, tar_of

SAMPLES = Path(__file__).parent / "samples"
NAMES = ("sample/worker:1", "sample/cache:1", "nexus.local:5000/sample/portal:1")
SAMPLE_CONFIGS = {
    "sample/worker:1": "sha256:abd579402e2089766d12e8435536c553a704936d57abd43ae5f2f4a28f931045",
    "sample/cache:1": "sha256:5f8ee9af21deef79fa23624e37f00f4b61a060680b0fd55eb9e62540eb4672be",
    "nexus.local:5000/sample/portal:1": "sha256:7b256b07f7fab14617c50183d9de2715347100d50481868e1075df301e3ad519",
}
BASE, LIB, JAR = (
    "sha256:7a3d6a948189de3f4e8566cb44551ad5837e5db67f61866120345531e921a6b4",
    "sha256:b3767da94257904f59c55049da1481d9f724b14e91b645af894ba20cbd6ff79d",
    "sha256:e6831a574011ec26ad08bf569605201cb2b2f78ad68cfd41d8d750613c1f0462",
)


def sha(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def sample(name: str) -> bytes:
    return gzip.decompress((SAMPLES / f"{name}.tar.gz").read_bytes())


def images_of(archive: bytes) -> list[Image]:
    """The images of an archive as `docker inspect` tells them: no bytes, no manifest."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:

        def content(name: str) -> bytes:
            file = opened.extractfile(name)
            assert file is not None
            return file.read()

        found = []
        for item in json.loads(content("manifest.json")):
            config = content(item["Config"])
            layers = tuple(Layer(each) for each in json.loads(config)["rootfs"]["diff_ids"])
            name = item["RepoTags"][0]
            found.append(Image(ImageReference.parse(name).normal, name, DEFAULT_PLATFORM, sha(config), layers))
        return found


def every_layer(images: Sequence[Image]) -> frozenset[str]:
    return frozenset(diff_id for image in images for diff_id in image.diff_ids)


def pieces(content: bytes, size: int) -> Iterator[bytes]:
    for begin in range(0, len(content), size):
        yield content[begin : begin + size]


def taken(archive: bytes, images: Sequence[Image], wanted: frozenset[str], size: int = 4096) -> dict[str, str]:
    """Kind of everything that was taken, by digest; each has the content that its digest says, and comes once."""
    kinds: dict[str, str] = {}
    for blob in read_saved(pieces(archive, size), images, wanted, "The engine"):
        content = b"".join(blob.chunks)
        assert sha(content) == blob.digest
        assert len(content) == blob.size
        assert blob.digest not in kinds
        kinds[blob.digest] = blob.kind
    return kinds


@pytest.mark.parametrize("size", [1, 511, 65536])
@pytest.mark.parametrize("name", ["docker-20.10.24", "docker-26.1.5", "docker-26.1.5-containerd"])
def test_real_engines(name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No layer has to be written down to be recognised, and what is not wanted is not given."""
    monkeypatch.setattr(reader.tempfile, "TemporaryFile", None)
    archive = sample(name)
    images = images_of(archive)
    assert {image.origin: image.config for image in images} == SAMPLE_CONFIGS
    configs = dict.fromkeys(SAMPLE_CONFIGS.values(), "config")
    assert taken(archive, images, every_layer(images), size) == {**configs, **dict.fromkeys((BASE, LIB, JAR), "layer")}
    assert taken(archive, images, frozenset({JAR}), size) == {**configs, JAR: "layer"}


def test_catalogue_of_a_real_engine_with_containerds_store() -> None:
    catalogue = read_catalogue(pieces(sample("docker-26.1.5-containerd"), 700))
    for name in NAMES:
        reference = ImageReference.parse(name)
        image = catalogue.image(reference.normal, reference, None)
        assert (image.name, image.origin, image.config) == (reference.normal, name, SAMPLE_CONFIGS[name])
        assert all(layer.blob is not None and layer.blob.digest == layer.diff_id for layer in image.layers)
    reference = ImageReference.parse(NAMES[0])
    with pytest.raises(BlockedError, match="does not exist for linux/s390x"):
        catalogue.image(reference.normal, reference, Platform("linux", "s390x"))
    with pytest.raises(DamagedArchiveError, match=r"does not hold docker\.io/sample/other"):
        catalogue.image("docker.io/sample/other:1", reference, None)


def test_reading_ends_with_the_last_wanted_piece() -> None:
    """What follows is not asked for: an engine need not send it."""
    archive = sample("docker-26.1.5")
    images = [image for image in images_of(archive) if image.origin == NAMES[1]]
    given = 0

    def counted() -> Iterator[bytes]:
        nonlocal given
        for piece in pieces(archive, 512):
            given += 1
            yield piece

    assert len([list(blob.chunks) for blob in read_saved(counted(), images, frozenset({BASE}), "The engine")]) == 2
    assert given * 512 < len(archive) // 2


def test_a_chunk_left_in_a_blob_is_passed_over() -> None:
    archive = sample("docker-20.10.24")
    images = images_of(archive)
    digests = []
    for blob in read_saved(pieces(archive, 300), images, every_layer(images), "The engine"):
        next(blob.chunks)
        digests.append(blob.digest)
    assert len(digests) == 6


def test_a_layer_that_nothing_names_is_recognised_by_its_content(tmp_path: Path) -> None:
    """Directories under names that are no v1 IDs: what another version might write."""
    layers = [b"one" * 500, b"two" * 900]
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [sha(each) for each in layers]}}
    )
    image = Image(
        "docker.io/a/b:1", "a/b:1", DEFAULT_PLATFORM, sha(config.encode()), tuple(Layer(sha(e)) for e in layers)
    )
    files = [(f"{number:064x}/layer.tar", layer) for number, layer in enumerate(layers)]
    archive = tar_of([*files, (f"{sha(config.encode())[7:]}.json", config.encode()), ("manifest.json", b"[]")])
    blobs = {
        blob.digest: b"".join(blob.chunks)
        for blob in read_saved(pieces(archive, 100), [image], frozenset({sha(layers[1])}), "The engine", str(tmp_path))
    }
    assert blobs == {sha(layers[1]): layers[1], image.config: config.encode()}
    assert list(tmp_path.iterdir()) == []


def test_podmans_form() -> None:
    """Its service answers `docker save` with a layer under its diffID (containers/image, docker/internal/tarfile)."""
    layer, config = b"layer" * 300, b'{"rootfs": {}}'
    image = Image("localhost/a:1", "localhost/a:1", DEFAULT_PLATFORM, sha(config), (Layer(sha(layer)),))
    archive = tar_of(
        [
            (f"{sha(layer)[7:]}.tar", layer),
            (f"{'a' * 64}/layer.tar", f"../{sha(layer)[7:]}.tar"),
            (f"{sha(config)[7:]}.json", config),
        ]
    )
    assert taken(archive, [image], frozenset({sha(layer)})) == {sha(layer): "layer", image.config: "config"}


LAYERS = st.lists(st.integers(0, 9).map(lambda number: bytes([number]) * (700 + 100 * number)), min_size=1, max_size=4)


@settings(deadline=None, max_examples=50)
@given(
    shared=LAYERS,
    own=st.lists(LAYERS, min_size=1, max_size=3),
    form=st.sampled_from([20, 25]),
    text=st.text(max_size=20),
    wanted=st.data(),
)
def test_made_up_images(
    shared: list[bytes], own: list[list[bytes]], form: int, text: str, wanted: st.DataObject
) -> None:
    """Images that share layers below their own, the same layer at several places, any text in the config."""
    engine = Engine(form=form)
    names = [f"a/b{number}:1" for number in range(len(own))]
    for name, layers in zip(names, own, strict=True):
        engine.add(name, [*shared, *layers], config={"Env": [text], "Labels": {text: name}})
    archive = engine.save(names)
    images = images_of(archive)
    chosen = frozenset(wanted.draw(st.sets(st.sampled_from(sorted(every_layer(images))))))
    expected = {**dict.fromkeys(chosen, "layer"), **{image.config: "config" for image in images}}
    assert taken(archive, images, chosen, wanted.draw(st.integers(100, 5000))) == expected


@pytest.mark.parametrize("name", ["docker-20.10.24", "docker-26.1.5"])
def test_an_archive_that_breaks_off(name: str) -> None:
    """Wherever it ends, reading says so, or has all that was wanted."""
    archive = sample(name)
    images = images_of(archive)
    refused = 0
    for end in range(0, len(archive), 997):
        outcome = outcome_of(archive[:end], images)
        if isinstance(outcome, int):
            assert outcome == 6
        else:
            refused += 1
            assert isinstance(outcome, TemporaryError)
            assert outcome.happened == "The engine broke off while it sent the images."
            assert str(end) in outcome.observed
    assert refused > 10


def test_the_reason_that_an_engine_writes_into_its_stream_is_told() -> None:
    """moby ends a stream that it cannot finish with JSON and a clean end (api/server/router/image, getImagesGet)."""
    archive = sample("docker-20.10.24")
    images = images_of(archive)
    said = b'{"errorDetail":{"message":"write /x: no space left"},"error":"write /x: no space left"}\n'
    for end in (512 * 9, 512 * 9 + 100):
        with pytest.raises(TemporaryError, match="no space left") as caught:
            taken(archive[:end] + said, images, every_layer(images), 333)
        assert caught.value.observed == "It said: write /x: no space left."


def test_what_is_no_archive() -> None:
    with pytest.raises(DamagedArchiveError, match="no archive of images"):
        taken(b"<html>" * 500, images_of(sample("docker-20.10.24")), frozenset())


def test_something_wanted_is_not_there() -> None:
    archive = sample("docker-20.10.24")
    absent = sha(b"absent")
    with pytest.raises(UnprovenError, match=absent):
        taken(archive, images_of(archive), frozenset({absent, JAR}))


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_a_changed_byte_never_passes_as_something_else(data: st.DataObject) -> None:
    """A byte of the archive is another one: a clear error, or blobs whose digests tell."""
    archive = bytearray(sample("docker-20.10.24"))
    images = images_of(bytes(archive))
    archive[data.draw(st.integers(0, len(archive) - 1))] ^= data.draw(st.integers(1, 255))
    outcome = outcome_of(bytes(archive), images)
    assert outcome == 6 or (isinstance(outcome, UpgradeError) and outcome.next)


def outcome_of(archive: bytes, images: Sequence[Image]) -> int | UpgradeError:
    """How many blobs came of all that there are, each with its size; or the error."""
    known = {image.config for image in images} | every_layer(images)
    count = 0
    try:
        for blob in read_saved(pieces(archive, 4096), images, every_layer(images), "The engine"):
            assert blob.digest in known
            assert sum(map(len, blob.chunks)) == blob.size
            count += 1
    except UpgradeError as error:
        return error
    return count


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
@settings(deadline=None, max_examples=50)
@given(
    names=st.lists(
        st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=90), min_size=1, max_size=4
    ),
    content=st.binary(max_size=2000),
    size=st.integers(50, 3000),
)
def test_tape_reads_what_tarfile_writes(form: int, names: list[str], content: bytes, size: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name in names:
            info = tarfile.TarInfo(f"{name}/{name}" + ("/ü" * 30 if form != tarfile.USTAR_FORMAT else ""))
            info.size, info.mtime = len(content), 1.5 if form == tarfile.PAX_FORMAT else 1
            archive.addfile(info, io.BytesIO(content))
    tape = Tape(pieces(out.getvalue(), size))
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        for info in archive:
            entry = tape.advance()
            assert entry is not None
            assert (entry.name, entry.size, entry.regular) == (info.name, info.size, True)
            assert tape.content(3000) == content
    assert tape.advance() is None
