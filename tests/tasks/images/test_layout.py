"""Layouts from the pieces that are there: for whatever images and holdings, the image stays the same and nothing lacks."""

import gzip
import io
import json
import tarfile
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.errors import UnprovenError
from tasks.images.layout import (
    INDEX_NAME,
    LAYOUT_NAME,
    OCI_LAYOUT,
    TAR_END,
    assemble,
    blob_path,
    index_of,
    padding,
    tar_file,
    tar_member,
)
from tasks.images.manifest import image_of, parse_index, parse_manifest
from tasks.images.media import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
)
from tasks.images.missing import need_of
from tasks.images.model import Descriptor, HeldBlob, Holdings, Image, Layer, digest_of


@dataclass(frozen=True)
class Piece:
    """A layer's content in its forms."""

    plain: bytes

    @property
    def diff_id(self) -> str:
        return digest_of(self.plain)

    def form(self, kind: str, *, docker: bool = False) -> Descriptor:
        if kind == "plain":
            return Descriptor(DOCKER_LAYER if docker else OCI_LAYER, self.diff_id, len(self.plain))
        content = gzip.compress(self.plain, mtime=0)
        return Descriptor(DOCKER_LAYER_GZIP if docker else OCI_LAYER_GZIP, digest_of(content), len(content))


PIECES = [Piece(text.encode()) for text in ("base", "java", "manager", "worker", "cache", "")]


def made(name: str, pieces: list[Piece], forms: list[str], *, docker: bool = False, manifest: bool = True) -> Image:
    """An image with a real config and, where asked, a manifest over the given forms."""
    document = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [p.diff_id for p in pieces]},
    }
    config = json.dumps(document).encode()
    blobs = [piece.form(form, docker=docker) for piece, form in zip(pieces, forms, strict=True)]
    own = Descriptor(DOCKER_CONFIG if docker else OCI_CONFIG, digest_of(config), len(config))
    told = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST if docker else OCI_MANIFEST,
        "config": own.as_json(),
        "layers": [blob.as_json() for blob in blobs],
    }
    image = image_of(f"docker.io/apinizercloud/{name}:1", name, json.dumps(told, indent=3).encode(), config)
    if manifest:
        return image
    unread = tuple(Layer(layer.diff_id) for layer in image.layers)
    return Image(image.name, name, image.platform, image.config, unread)


def configs(images: list[Image]) -> dict[str, bytes]:
    return {image.config: image.config_content for image in images}


FORMS = st.sampled_from(["plain", "gzip"])


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Image], dict[str, bytes], Holdings]:
    images, contents = [], {}
    for number in range(draw(st.integers(1, 4))):
        pieces = draw(st.lists(st.sampled_from(PIECES), min_size=1, max_size=6))
        forms = [draw(FORMS) for _ in pieces]
        docker = draw(st.booleans())
        whole = made(f"image{number}", pieces, forms, docker=docker)
        contents[whole.config] = whole.config_content
        images.append(whole if draw(st.booleans()) else made(f"image{number}", pieces, forms, manifest=False))
    held = {}
    for piece in draw(st.lists(st.sampled_from(PIECES), max_size=6)):
        one = piece.form(draw(FORMS), docker=draw(st.booleans()))
        noted = one.digest != piece.diff_id and draw(st.booleans())
        media_type = one.media_type if draw(st.booleans()) else ""
        held[one.digest] = HeldBlob(one.digest, one.size, media_type, piece.diff_id if noted else "")
    return images, contents, Holdings(blobs=held)


@given(worlds(), st.data())
def test_every_layer_is_held_or_sent_and_the_image_stays(
    world: tuple[list[Image], dict[str, bytes], Holdings], data: st.DataObject
) -> None:
    images, contents, holdings = world
    need = need_of(images, holdings)
    by_diff_id = {piece.diff_id: piece for piece in PIECES}
    known = {layer.diff_id: layer.blob for image in images for layer in image.layers if layer.blob}
    # What the source sends: in the form that one of its manifests names, else as `docker save` does.
    came = {diff_id: known.get(diff_id) or by_diff_id[diff_id].form("plain", docker=True) for diff_id in need.layers}
    for image in images:
        assembled = assemble(image, came, need.reuse, contents[image.config])
        told = parse_manifest(assembled.manifest)
        assert told.config.digest == image.config
        assert told.config.size == len(contents[image.config])
        assert assembled.descriptor.digest == digest_of(assembled.manifest)
        assert assembled.descriptor.size == len(assembled.manifest)
        assert assembled.descriptor.media_type == told.media_type
        there = {one.digest for one in came.values()} | set(holdings.blobs)
        assert len(told.layers) == len(image.layers)
        for blob, diff_id in zip(told.layers, image.diff_ids, strict=True):
            piece = by_diff_id[diff_id]
            form = "plain" if blob.digest == diff_id else "gzip"
            assert blob.digest in there
            assert (blob.digest, blob.size) == (piece.form(form).digest, piece.form(form).size)
            assert blob.media_type.endswith("gzip") == (form == "gzip")
        assert assembled == assemble(image, came, need.reuse, contents[image.config])


@pytest.mark.parametrize("docker", [True, False])
def test_a_manifest_whose_layers_are_all_there_in_their_form_is_kept_to_the_byte(docker: bool) -> None:  # noqa: FBT001
    image = made("worker", PIECES[:3], ["gzip"] * 3, docker=docker)
    came = {PIECES[0].diff_id: PIECES[0].form("gzip")}
    reuse = {piece.diff_id: piece.form("gzip") for piece in PIECES[1:3]}
    assembled = assemble(image, came, reuse)
    assert assembled.manifest == image.manifest
    assert assembled.descriptor.media_type == (DOCKER_MANIFEST if docker else OCI_MANIFEST)


def test_another_form_of_one_layer_makes_an_oci_manifest() -> None:
    image = made("worker", PIECES[:2], ["gzip", "gzip"], docker=True)
    reuse = {
        PIECES[0].diff_id: PIECES[0].form("plain", docker=True),
        PIECES[1].diff_id: PIECES[1].form("gzip", docker=True),
    }
    assembled = assemble(image, {}, reuse)
    told = json.loads(assembled.manifest)
    assert told["mediaType"] == OCI_MANIFEST
    assert told["config"]["mediaType"] == OCI_CONFIG
    assert [layer["mediaType"] for layer in told["layers"]] == [OCI_LAYER, OCI_LAYER_GZIP]


def test_a_layer_that_is_nowhere() -> None:
    image = made("worker", PIECES[:2], ["gzip", "gzip"])
    with pytest.raises(UnprovenError) as raised:
        assemble(image, {}, {PIECES[0].diff_id: PIECES[0].form("gzip")})
    assert PIECES[1].diff_id in raised.value.observed


def test_a_config_that_is_not_the_images() -> None:
    image, other = made("worker", PIECES[:1], ["gzip"]), made("worker", PIECES[:2], ["gzip"] * 2)
    reuse = {piece.diff_id: piece.form("gzip") for piece in PIECES}
    with pytest.raises(UnprovenError):
        assemble(image, {}, reuse, other.config_content)
    with pytest.raises(UnprovenError):
        assemble(made("worker", PIECES[:1], ["gzip"], manifest=False), {}, reuse)


def test_a_source_that_told_other_layers_than_the_config_names() -> None:
    image = made("worker", PIECES[:2], ["gzip"] * 2)
    lying = Image(image.name, "worker", image.platform, image.config, image.layers[:1])
    with pytest.raises(UnprovenError):
        assemble(lying, {}, {piece.diff_id: piece.form("gzip") for piece in PIECES}, image.config_content)


def test_the_index_names_every_image_as_containerd_and_as_others_read_it() -> None:
    image = made("worker", PIECES[:1], ["gzip"])
    one = assemble(image, {}, {PIECES[0].diff_id: PIECES[0].form("gzip")})
    content = index_of([(image, one), (image.named("docker.io/library/other:2"), one)], {"z": "1", "a": "2"})
    assert json.loads(content)["mediaType"] == OCI_INDEX
    assert list(json.loads(content)["annotations"]) == ["a", "z"]
    first, second = parse_index(content)
    assert first.descriptor == one.descriptor
    assert str(first.platform) == "linux/amd64"
    assert first.annotations == {
        "io.containerd.image.name": "docker.io/apinizercloud/worker:1",
        "org.opencontainers.image.ref.name": "1",
    }
    assert second.annotations["io.containerd.image.name"] == "docker.io/library/other:2"


def test_the_archive_is_one_that_others_read() -> None:
    content = {
        LAYOUT_NAME: OCI_LAYOUT,
        blob_path(digest_of(b"x")): b"x" * 700,
        INDEX_NAME: b"{}",
        "empty": b"",
        "block": bytes(512),
    }
    whole = b"".join(tar_file(name, each) for name, each in content.items()) + TAR_END
    assert whole == b"".join(tar_member(n, len(c)) + c + padding(len(c)) for n, c in content.items()) + TAR_END
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        found = {}
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            found[member.name] = file.read()
            assert (member.mode, member.mtime, member.uid) == (0o644, 0, 0)
    assert found == content


def test_a_file_larger_than_eight_gigabytes() -> None:
    header = tar_member(blob_path(digest_of(b"x")), 20 * 2**30)
    assert len(header) == 512
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == 20 * 2**30
