"""Archives that other tools wrote: taken where they hold images, held to what digests can prove, refused else."""

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tasks.domain.errors import BlockedError, DamagedArchiveError, NotFoundError, UpgradeError, UsageError
from tasks.domain.reference import ImageReference
from tasks.images.bundle import BundleSource, verify_bundle
from tasks.images.media import DOCKER_LAYER, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_LAYER_GZIP, OCI_MANIFEST
from tasks.images.model import Platform, digest_of
from tests.tasks.images.bundle.shelf import everything, layer_of

FULL = "docker.io/apinizercloud/worker:1"
WORKER = ImageReference.parse("apinizercloud/worker:1")
LAYERS = (layer_of(b"one"), layer_of(b"two", 9000))


def packed(
    files: Mapping[str, bytes | str], path: Path, *, form: int = tarfile.GNU_FORMAT, prefix: str = "", mtime: float = 0
) -> Path:
    """A tar archive of `files`; a text is a symbolic link to it."""
    with tarfile.open(path, "w", format=form) as archive:
        for folder in sorted({name.rpartition("/")[0] for name in files if "/" in name}):
            info = tarfile.TarInfo(prefix + folder)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        for name, content in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.mtime = mtime
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def dumped(document: object) -> bytes:
    return json.dumps(document).encode()


def config(layers: Sequence[bytes] = LAYERS, architecture: str = "amd64") -> bytes:
    diff_ids = [digest_of(layer) for layer in layers]
    return dumped({"os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": diff_ids}})


class Layout:
    """An OCI layout as it grows."""

    def __init__(self) -> None:
        self.files: dict[str, bytes | str] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
        self.entries: list[dict[str, Any]] = []

    def blob(self, content: bytes, media_type: str) -> dict[str, Any]:
        self.files["blobs/" + digest_of(content).replace(":", "/")] = content
        return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}

    def image(
        self, layers: Sequence[bytes] = LAYERS, architecture: str = "amd64", *, zipped: bool = False
    ) -> dict[str, Any]:
        forms = [
            self.blob(gzip.compress(one, mtime=0), OCI_LAYER_GZIP) if zipped else self.blob(one, OCI_LAYER)
            for one in layers
        ]
        own = self.blob(config(layers, architecture), OCI_CONFIG)
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": own, "layers": forms}
        return self.blob(dumped(document), OCI_MANIFEST)

    def name(self, entry: dict[str, Any], **annotations: str) -> "Layout":
        names = {key.replace("_", "."): value for key, value in annotations.items()}
        self.entries.append({**entry, "annotations": names})
        return self

    def done(self) -> dict[str, bytes | str]:
        return {**self.files, "index.json": dumped({"schemaVersion": 2, "manifests": self.entries})}


def one_image(*, zipped: bool = False) -> dict[str, bytes | str]:
    layout = Layout()
    return layout.name(layout.image(zipped=zipped), io_containerd_image_name=FULL).done()


def old_save() -> dict[str, bytes | str]:
    """`docker save` up to Docker 24, whose second layer stands elsewhere."""
    own = config()
    name = digest_of(own).removeprefix("sha256:")
    files: dict[str, bytes | str] = {}
    for number, layer in enumerate(LAYERS):
        files |= {f"{number}{'a' * 63}/VERSION": b"1.0", f"{number}{'a' * 63}/json": b"{}"}
        files[f"{number}{'a' * 63}/layer.tar"] = layer
    files["2" + "a" * 63 + "/layer.tar"] = f"../1{'a' * 63}/layer.tar"
    paths = [f"0{'a' * 63}/layer.tar", f"2{'a' * 63}/layer.tar"]
    manifest = [{"Config": f"{name}.json", "RepoTags": ["apinizercloud/worker:1", "a/other:2"], "Layers": paths}]
    return {**files, f"{name}.json": own, "manifest.json": dumped(manifest), "repositories": b"{}"}


def check(path: Path, kind: str, layers: Sequence[bytes] = LAYERS) -> None:
    facts = verify_bundle(path)
    assert facts.kind == kind
    assert facts.unproven
    with BundleSource(path) as source:
        (image,) = source.find([WORKER], None)
        assert (image.name, image.config) == (FULL, digest_of(config(layers)))
        came = everything(source.read([image], frozenset(image.diff_ids)))
        assert came[image.config] == config(layers)
        for layer, blob in zip(layers, image.layers, strict=True):
            assert blob.blob is not None
            content = came[blob.blob.digest]
            assert (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content) == layer


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("prefix", ["", "./"])
@pytest.mark.parametrize("zipped", [True, False])
def test_oci_layouts(tmp_path: Path, form: int, prefix: str, *, zipped: bool) -> None:
    mtime = 1.5 if form == tarfile.PAX_FORMAT else 1
    check(packed(one_image(zipped=zipped), tmp_path / "b", form=form, prefix=prefix, mtime=mtime), "oci-layout")


def test_docker_save(tmp_path: Path) -> None:
    path = packed(old_save(), tmp_path / "b")
    check(path, "docker-save")
    assert [one.name for one in verify_bundle(path).images] == [FULL, "docker.io/a/other:2"]
    with BundleSource(path) as source:
        assert [one.blob.media_type for one in source.images[0].layers if one.blob] == [DOCKER_LAYER] * 2


def test_docker_save_with_compressed_layers(tmp_path: Path) -> None:
    files = {name: gzip.compress(each, mtime=0) if name.endswith("layer.tar") and isinstance(each, bytes) else each
             for name, each in old_save().items()}  # fmt: skip
    check(packed(files, tmp_path / "b"), "docker-save")


@pytest.mark.parametrize("frames", [1, 5])
def test_compressed_with_zstd_by_hand(tmp_path: Path, frames: int) -> None:
    raw = packed(one_image(), tmp_path / "plain").read_bytes()
    step = len(raw) // frames + 1
    packer = zstandard.ZstdCompressor(write_checksum=True)
    pieces = [packer.compress(raw[at : at + step]) for at in range(0, len(raw), step)]
    (tmp_path / "b").write_bytes(b"".join(pieces))
    check(tmp_path / "b", "oci-layout")
    with BundleSource(tmp_path / "b") as source:
        # Backwards too, though that is slow.
        images = source.images
        for diff_id in reversed(images[0].diff_ids):
            assert diff_id in everything(source.read(images, frozenset({diff_id})))
    for broken in (b"".join(pieces)[:-1], b"".join(pieces)[:-5] + b"12345", b"".join(pieces) + b"x"):
        (tmp_path / "b").write_bytes(broken)
        with pytest.raises(UpgradeError, match="damaged"):
            verify_bundle(tmp_path / "b")


def test_two_readers_at_once(tmp_path: Path) -> None:
    """One asks for the other's layer while it is in the middle of its own."""
    layout = Layout()
    layout.name(layout.image([layer_of(b"one", 3_000_000), layer_of(b"two", 3_000_000)]), io_containerd_image_name=FULL)
    (tmp_path / "b").write_bytes(zstandard.compress(packed(layout.done(), tmp_path / "plain").read_bytes()))
    with BundleSource(tmp_path / "b") as source:
        images = source.images
        readers = [source.read(images, frozenset({diff_id})) for diff_id in images[0].diff_ids]
        blobs = [next(blob for blob in reader if blob.kind == "layer" or list(blob.chunks) == []) for reader in readers]
        parts = list(zip_longest(*(blob.chunks for blob in blobs), fillvalue=b""))
    assert len(parts) > 2
    for blob, chunks in zip(blobs, zip(*parts, strict=True), strict=True):
        assert digest_of(b"".join(chunks)) == blob.digest


def test_several_platforms(tmp_path: Path) -> None:
    layout = Layout()
    here, there = layout.image(), layout.image(LAYERS[:1], "arm64")
    away = {**there, "digest": "sha256:" + "0" * 64, "platform": {"os": "linux", "architecture": "s390x"}}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [here, there, away]}
    layout.name(layout.blob(dumped(index), OCI_INDEX), io_containerd_image_name=FULL)
    path = packed(layout.done(), tmp_path / "b")
    check(path, "oci-layout")
    with BundleSource(path) as source:
        (arm,) = source.find([WORKER], Platform("linux", "arm64"))
        assert arm.diff_ids == (digest_of(LAYERS[0]),)
        with pytest.raises(BlockedError, match="does not exist for linux/s390x"):
            source.find([WORKER], Platform("linux", "s390x"))


def test_names_that_are_not_full_are_passed_over(tmp_path: Path) -> None:
    layout = Layout()
    layout.name(layout.image(LAYERS[:1]), org_opencontainers_image_ref_name="latest")
    with pytest.raises(UsageError, match="no image with a full name"):
        verify_bundle(packed(layout.done(), tmp_path / "b"))
    layout.entries.append({**layout.image(), "annotations": {"org.opencontainers.image.ref.name": FULL}})
    path = packed(layout.done(), tmp_path / "b")
    check(path, "oci-layout")
    with BundleSource(path) as source, pytest.raises(NotFoundError, match="In it: docker"):
        source.find([ImageReference.parse("apinizercloud/cache:1")], None)


def without(part: str) -> Any:
    return lambda files: {name: each for name, each in files.items() if part not in name}


def changed(part: str, old: bytes, new: bytes) -> Any:
    def change(files: dict[str, bytes | str]) -> dict[str, bytes | str]:
        return {n: e.replace(old, new) if part in n and isinstance(e, bytes) else e for n, e in files.items()}

    return change


LAYER_PATH = digest_of(LAYERS[0]).removeprefix("sha256:")
CONFIG_PATH = digest_of(config()).removeprefix("sha256:")


@pytest.mark.parametrize(
    ("files", "change", "why"),
    [
        (one_image, without(LAYER_PATH), "is not in it"),
        (one_image, without(CONFIG_PATH), "is not in it"),
        (one_image, changed(LAYER_PATH, b"file", b"elif"), "not those of its name"),
        (one_image, changed(CONFIG_PATH, b"linux", b"xunil"), "not those of its name"),
        (one_image, changed("index.json", b"sha256", b"sha512"), "SHA-256 digest"),
        (one_image, changed("index.json", b"{", b"["), "no JSON"),
        (old_save, without("0" + "a" * 63 + "/layer.tar"), "is not in it"),
        (old_save, without("1" + "a" * 63 + "/layer.tar"), "is not in it"),
        (old_save, without(CONFIG_PATH), "is not in it"),
        (old_save, changed("layer.tar", b"file", b"elif"), "is not the one that the config of"),
        (old_save, changed(CONFIG_PATH, b"linux", b"xunil"), "not those of its name"),
        (old_save, changed("manifest.json", b"Layers", b"Lavers"), "cannot be read"),
        (old_save, changed("manifest.json", b'"Layers": [', b'"Layers": ["x", '), "layers"),
        (old_save, changed("manifest.json", b"[", b"[" * 200_000), "cannot be read"),
        (old_save, changed("manifest.json", b"[" + b'"apinizercloud', b'[1, "apinizercloud'), "not as `docker save`"),
        (old_save, changed("manifest.json", b'["apinizercloud/worker:1", "a/other:2"]', b'"abc"'), "not as `docker"),
        (old_save, changed("manifest.json", b'"Config": "', b'"Config": "\\ud800'), "\\ud800"),
        (one_image, changed("index.json", b"{", b"[" * 200_000), "no JSON"),
    ],
)
def test_what_does_not_fit_together(tmp_path: Path, files: Any, change: Any, why: str) -> None:
    path = packed(change(files()), tmp_path / "b")
    with pytest.raises(UpgradeError) as caught:
        verify_bundle(path)
    assert why in str(caught.value)
    assert str(caught.value).encode(), "it can be printed"
    with BundleSource(path) as source, pytest.raises(type(caught.value)):
        next(source.read((), frozenset()))


def test_cut_foreign_archives(tmp_path: Path) -> None:
    for files in (one_image(), old_save()):
        whole = packed(files, tmp_path / "b").read_bytes()
        content = len(whole.rstrip(b"\0")) + 512
        for size in range(1, content, 997):
            (tmp_path / "b").write_bytes(whole[:size])
            with pytest.raises(DamagedArchiveError):
                verify_bundle(tmp_path / "b")


def test_an_archive_without_images(tmp_path: Path) -> None:
    for files in ({"README": b"text"}, {"index.json": b"{}"}, {"oci-layout": b"{}"}):
        with pytest.raises(UsageError, match="holds no images"):
            verify_bundle(packed(files, tmp_path / "b"))


def test_links_in_a_circle(tmp_path: Path) -> None:
    files = {**old_save(), "manifest.json": "other.json", "other.json": "manifest.json"}
    with pytest.raises(DamagedArchiveError, match="is not in it"):
        verify_bundle(packed(files, tmp_path / "b"))
