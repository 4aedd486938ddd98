"""A bundle holds what the source had, says so, and other tools can read it."""

import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.domain.errors import BlockedError, NotFoundError
from tasks.domain.reference import ImageReference
from tasks.images.bundle import BundleSource, Compression, bundle_name, compression_for, verify_bundle, write_bundle
from tasks.images.bundle.body import FramedBody
from tasks.images.bundle.form import FRAME
from tasks.images.bundle.sums import Sum
from tasks.images.media import DOCKER_MANIFEST, OCI_MANIFEST
from tasks.images.model import Image, Platform, digest_of
from tests.tasks.images.bundle.shelf import AMD, AT, Shelf, bundle, everything, layer_of, names, release

FORMS = [(engine, compress) for engine in (False, True) for compress in ("none", "zstd")]


def unpacked(path: Path) -> bytes:
    """The archive in a bundle, by zstd's own reader where it is compressed."""
    raw = path.read_bytes()
    if not raw.startswith(b"\x28\xb5\x2f\xfd"):
        return raw
    return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(raw), read_across_frames=True).read()


def members(path: Path) -> dict[str, bytes]:
    """All files of a bundle, by tarfile."""
    with tarfile.open(fileobj=io.BytesIO(unpacked(path))) as archive:
        return {one.name: opened.read() for one in archive if (opened := archive.extractfile(one))}


def layers_of(images: Sequence[Image]) -> frozenset[str]:
    return frozenset(diff_id for image in images for diff_id in image.diff_ids)


@pytest.mark.parametrize(("engine", "compress"), FORMS)
def test_what_goes_in_comes_out(tmp_path: Path, *, engine: bool, compress: Compression) -> None:
    shelf = Shelf(engine)
    images = release(shelf, size=200_000)
    told: list[tuple[int, int]] = []
    path = tmp_path / "b"
    facts = write_bundle(
        shelf, images, path, version="2025.07.0", made_at=AT, compress=compress, progress=lambda *x: told.append(x)
    )

    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert names(tmp_path) == ["b"]
    assert facts.size == path.stat().st_size
    assert facts.sha256_line == f"{hashlib.sha256(path.read_bytes()).hexdigest()}  b"
    layers = sum(shelf.descriptor(diff_id).size for diff_id in layers_of(images))
    assert told[-1] == (layers, 0 if engine else layers)

    with BundleSource(path) as source:
        seen: list[tuple[int, int]] = []
        verified = source.verify(lambda *x: seen.append(x))
        assert seen[-1] == (facts.size, facts.size)
        assert verified.model_copy(update={"images": (), "unproven": []}) == facts.model_copy(update={"images": ()})
        assert [(one.name, one.config, one.manifest) for one in verified.images] == [
            (one.name, one.config, one.manifest) for one in facts.images
        ]
        found = source.find([ImageReference.parse(image.origin) for image in images], None)
        assert [(one.name, one.config, one.diff_ids) for one in found] == [
            (one.name, one.config, one.diff_ids) for one in images
        ]
        if not engine:
            assert [one.manifest for one in found] == [one.manifest for one in images]
        came = everything(source.read(found, layers_of(images)))
        assert came == {digest_of(content): content for _, content in shelf.contents.values()}


def test_only_what_is_wanted_is_read(tmp_path: Path) -> None:
    bundle(tmp_path / "b", size=9_000_000, engine=True, compress="zstd")
    with BundleSource(tmp_path / "b") as source:
        worker = source.find([ImageReference.parse("apinizercloud/worker:2025.07.0")], None)
        body = source._opened.body if source._opened else None
        assert isinstance(body, FramedBody)
        assert len(body.frames) > 4
        # The large layers come first; damaging their frames now must not matter to who reads only what is behind them.
        with (tmp_path / "b").open("r+b") as file:
            state = os.fstat(file.fileno())
            file.seek(body.frames[1].at + 100)
            file.write(b"damage")
            file.flush()
            os.utime(tmp_path / "b", ns=(state.st_atime_ns, state.st_mtime_ns))
        own = worker[0].layers[-1].diff_id
        got = everything(source.read(worker, frozenset({own})))
        assert set(got) == {own, worker[0].config}
        assert digest_of(got[own]) == own


def test_a_file_that_changes_after_its_verification_is_not_read_on(tmp_path: Path) -> None:
    bundle(tmp_path / "b")
    with BundleSource(tmp_path / "b") as source:
        images = source.images
        with (tmp_path / "b").open("ab") as file:
            file.write(b"x")
        with pytest.raises(Exception, match="damaged") as caught:
            everything(source.read(images, layers_of(images)))
        assert "written to while" in str(caught.value)


@pytest.mark.parametrize(("engine", "compress"), FORMS)
def test_it_is_an_oci_layout(tmp_path: Path, *, engine: bool, compress: Compression) -> None:
    bundle(tmp_path / "b", engine=engine, compress=compress)
    files = members(tmp_path / "b")
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    for name, content in files.items():
        if name.startswith("blobs/sha256/"):
            assert hashlib.sha256(content).hexdigest() == name.removeprefix("blobs/sha256/")
    index = json.loads(files["index.json"])
    names = {
        f"docker.io/apinizercloud/{n}:2025.07.0" for n in ("manager", "worker", "cache", "apiportal", "integration")
    }
    for key in ("io.containerd.image.name", "org.opencontainers.image.ref.name"):
        assert {entry["annotations"][key] for entry in index["manifests"]} == names
    for entry in index["manifests"]:
        manifest = files["blobs/" + entry["digest"].replace(":", "/")]
        assert (len(manifest), entry["mediaType"]) == (entry["size"], OCI_MANIFEST if engine else DOCKER_MANIFEST)
        for one in (json.loads(manifest)["config"], *json.loads(manifest)["layers"]):
            assert len(files["blobs/" + one["digest"].replace(":", "/")]) == one["size"]
    for_docker = json.loads(files["manifest.json"])
    assert for_docker[0]["RepoTags"] == ["apinizercloud/manager:2025.07.0"]
    assert all(path in files for entry in for_docker for path in (entry["Config"], *entry["Layers"]))
    assert (
        hashlib.sha256(unpacked(tmp_path / "b")[:-2048]).hexdigest() == files["apinizer-bundle.sha256"].decode().strip()
    )


@pytest.mark.parametrize("compress", ["none", "zstd"])
def test_the_tools_of_every_machine_read_it(tmp_path: Path, compress: Compression) -> None:
    needed = "zstd" if compress == "zstd" else "tar"
    if not shutil.which(needed):
        pytest.skip(f"no {needed} here")
    bundle(tmp_path / "b", compress=compress, size=5_000_000, engine=True)
    how = ["tar", *(["--zstd"] if compress == "zstd" else []), "-xf", str(tmp_path / "b"), "-C", str(tmp_path)]
    done = subprocess.run(how, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for path in (tmp_path / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_a_compressed_bundle_unpacked_is_a_bundle(tmp_path: Path) -> None:
    facts = bundle(tmp_path / "b", compress="zstd")
    (tmp_path / "plain").write_bytes(unpacked(tmp_path / "b"))
    again = verify_bundle(tmp_path / "plain")
    assert (again.kind, again.compression) == ("bundle", "none")
    assert [one.config for one in again.images] == [one.config for one in facts.images]


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    for compress in ("none", "zstd"):
        one, two = (bundle(tmp_path / f"{n}{compress}", compress=compress) for n in "ab")
        assert one.sha256 == two.sha256


def test_compression_is_chosen_by_what_the_layers_are(tmp_path: Path) -> None:
    assert compression_for(release(Shelf(engine=True))) == "zstd"
    assert compression_for(release(Shelf(engine=False))) == "none"
    plain, packed = bundle(tmp_path), bundle(tmp_path, engine=True)
    assert Path(plain.path).name == "apinizer-images--2025.07.0.tar"
    assert Path(packed.path).name == "apinizer-images--2025.07.0.tar.zst"
    assert bundle_name("2", since="1", compress="zstd") == "apinizer-images--2--since-1.tar.zst"


def test_a_frame_that_ends_with_the_archive(tmp_path: Path) -> None:
    """Bundles whose sizes lie around a whole number of frames."""
    shelf = Shelf(engine=True)
    empty = shelf.put("a/b:1", [layer_of(b"x", 1000)])
    base = write_bundle(shelf, [empty], tmp_path / "0", version="1", made_at=AT, compress="none").size
    for more in (FRAME - base, FRAME - base + 512, 2 * FRAME - base):
        image = shelf.put("a/b:1", [layer_of(b"x", 1000 + more)])
        facts = write_bundle(shelf, [image], tmp_path / str(more), version="1", made_at=AT, compress="zstd")
        assert verify_bundle(tmp_path / str(more)).sha256 == facts.sha256


def test_a_sum_is_told_when_it_is_complete() -> None:
    data = bytes(40_000_000)
    with Sum(len(data) - 7) as total:
        total.update(data)
        assert total.sealed() == hashlib.sha256(data[:-7]).hexdigest()
        total.update(b"more")
        assert total.hexdigest() == hashlib.sha256(data + b"more").hexdigest()


def test_an_image_is_found_behind_another_registry(tmp_path: Path) -> None:
    bundle(tmp_path / "b")
    with BundleSource(tmp_path / "b") as source:
        wanted = ImageReference.parse("nexus.local:5000/x/worker:2025.07.0")
        (found,) = source.find([wanted], AMD)
        assert found.name == "nexus.local:5000/x/worker:2025.07.0"
        with pytest.raises(NotFoundError, match=r"In it: docker.io/apinizercloud/apiportal:2025.07.0"):
            source.find([ImageReference.parse("apinizercloud/worker:2025.08.0")], None)
        with pytest.raises(BlockedError, match="does not exist for linux/arm64"):
            source.find([wanted], Platform("linux", "arm64"))


_LAYER = st.integers(0, 5).map(lambda seed: layer_of(bytes([seed]), seed * 700))
_IMAGE = st.lists(_LAYER, min_size=1, max_size=6)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(all_layers=st.lists(_IMAGE, min_size=1, max_size=4), engine=st.booleans(), zstd=st.booleans())
def test_any_images(tmp_path: Path, *, all_layers: list[list[bytes]], engine: bool, zstd: bool) -> None:
    """Also the same layer twice in an image, and one that all images are."""
    shelf = Shelf(engine)
    images = [shelf.put(f"a/i{n}:1", layers, note=str(n)) for n, layers in enumerate(all_layers)]
    at = datetime(2026, 1, 1, tzinfo=UTC)
    write_bundle(
        shelf, images, tmp_path / "b", version="1", made_at=at, compress="zstd" if zstd else "none", replace=True
    )
    with BundleSource(tmp_path / "b") as source:
        assert [(one.config, one.diff_ids) for one in source.images] == [(one.config, one.diff_ids) for one in images]
        came = everything(source.read(source.images, layers_of(images)))
    assert came == {digest_of(content): content for _, content in shelf.contents.values()}
