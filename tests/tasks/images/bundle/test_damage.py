"""Whatever byte of a bundle is changed, missing or added: it is refused before anything comes out of it."""

import io
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.domain.errors import DamagedArchiveError, StoppedError, UpgradeError, UsageError
from tasks.domain.reference import ImageReference
from tasks.images.bundle import BundleSource, Compression, verify_bundle
from tasks.images.bundle.scan import Scan
from tasks.images.layout import tar_member
from tests.tasks.images.bundle.shelf import bundle

COMPRESSIONS = ("none", "zstd")


ASKED: tuple[Callable[[BundleSource], object], ...] = (
    lambda source: verify_bundle(source.path),
    lambda source: source.find([ImageReference.parse("apinizercloud/worker:2025.07.0")], None),
    lambda source: next(source.read((), frozenset())),
)


def refused(path: Path, *, asked: int = 0) -> UpgradeError:
    """By the verification, or by a source that is asked at once, which has given nothing."""
    with BundleSource(path) as source, pytest.raises(UpgradeError) as caught:
        ASKED[asked % 3](source)
    assert isinstance(caught.value, DamagedArchiveError | UsageError)
    assert caught.value.observed
    return caught.value


@pytest.fixture(params=COMPRESSIONS)
def whole(request: pytest.FixtureRequest, tmp_path: Path) -> bytes:
    compress: Compression = request.param
    bundle(tmp_path / "whole", compress=compress, size=6_000)
    verify_bundle(tmp_path / "whole")
    return (tmp_path / "whole").read_bytes()


def test_500_changed_bytes(whole: bytes, tmp_path: Path) -> None:
    dice = random.Random(5)  # noqa: S311
    for n in range(500):
        at, change = dice.randrange(len(whole)), dice.randrange(1, 256)
        (tmp_path / "b").write_bytes(whole[:at] + bytes([whole[at] ^ change]) + whole[at + 1 :])
        refused(tmp_path / "b", asked=n)


def test_every_byte_of_the_ends(whole: bytes, tmp_path: Path) -> None:
    """The mark, and the seals: here a change could make a bundle look like the archive of another tool."""
    for at in [*range(0, 1100, 7), *range(len(whole) - 2200, len(whole), 7)]:
        (tmp_path / "b").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        refused(tmp_path / "b")


def test_100_cuts(whole: bytes, tmp_path: Path) -> None:
    dice = random.Random(6)  # noqa: S311
    for size in [0, 1, 3, 4, 511, 512, 513, len(whole) - 1, *(dice.randrange(len(whole)) for _ in range(92))]:
        (tmp_path / "b").write_bytes(whole[:size])
        refused(tmp_path / "b")


def test_50_extensions(whole: bytes, tmp_path: Path) -> None:
    dice = random.Random(7)  # noqa: S311
    for n in range(50):
        more = bytes(512 * n + 1) if n % 2 else dice.randbytes(n * 40 + 1)
        (tmp_path / "b").write_bytes(whole + more)
        refused(tmp_path / "b")
    (tmp_path / "b").write_bytes(whole + whole)
    refused(tmp_path / "b")


def test_bytes_taken_out_put_in_and_swapped(whole: bytes, tmp_path: Path) -> None:
    dice = random.Random(8)  # noqa: S311
    for _ in range(60):
        a, b = sorted(dice.sample(range(0, len(whole), 512 if len(whole) % 512 == 0 else 1), 2))
        for changed in (whole[:a] + whole[b:], whole[:a] + whole[a:b] * 2 + whole[b:], whole[b:] + whole[:b]):
            if changed != whole:
                (tmp_path / "b").write_bytes(changed)
                refused(tmp_path / "b")


def rewritten(path: Path, *, more: tuple[tarfile.TarInfo, bytes]) -> None:
    """The same archive with one member more, its end as any tool writes it."""
    out = io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as new:
        for one in old:
            new.addfile(one, old.extractfile(one))
        new.addfile(more[0], io.BytesIO(more[1]))
    path.write_bytes(out.getvalue())


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


MORE = {
    "twice": entry("manifest.json", size=4),
    "absolute": entry("/etc/passwd", size=4),
    "out of it": entry("blobs/../../x", size=4),
    "symbolic link": entry("blobs/sha256/" + "0" * 64, tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": entry("blobs/sha256/" + "0" * 64, tarfile.LNKTYPE, "index.json"),
    "device": entry("null", tarfile.CHRTYPE),
    "pipe": entry("pipe", tarfile.FIFOTYPE),
    "unknown": entry("surprise", size=4),
}


@pytest.mark.parametrize("what", MORE)
@pytest.mark.parametrize("own", [True, False])
def test_members_that_do_not_belong(tmp_path: Path, what: str, *, own: bool) -> None:
    path = tmp_path / "b"
    bundle(path, compress="none")
    if not own:
        strip(path)
        assert verify_bundle(path).kind == "oci-layout"
    rewritten(path, more=(MORE[what], b"null"))
    if not own and what in ("unknown", "hard link"):
        # Other tools may write what they like beside the images.
        assert verify_bundle(path).kind == "oci-layout"
        return
    refused(path)


def strip(path: Path) -> None:
    """What only this project's bundles have, taken away: an OCI layout as any tool may write it."""
    out = io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=out, mode="w") as new:
        for one in old:
            if not one.name.startswith("apinizer-bundle"):
                new.addfile(one, old.extractfile(one))
    path.write_bytes(out.getvalue())


def test_a_bundle_without_its_seal_is_no_foreign_archive(tmp_path: Path) -> None:
    bundle(tmp_path / "b", compress="none")
    for keep in ("apinizer-bundle", "apinizer-bundle.json", "apinizer-bundle.sha256"):
        out = io.BytesIO()
        with tarfile.open(tmp_path / "b") as old, tarfile.open(fileobj=out, mode="w") as new:
            for one in old:
                if one.name == keep or not one.name.startswith("apinizer-bundle"):
                    new.addfile(one, old.extractfile(one))
        (tmp_path / "c").write_bytes(out.getvalue())
        refused(tmp_path / "c")


def test_no_file_a_folder_and_rubbish(tmp_path: Path) -> None:
    with pytest.raises(UpgradeError, match="no bundle"):
        verify_bundle(tmp_path / "none")
    with pytest.raises(UsageError):
        verify_bundle(tmp_path)
    for rubbish in (b"", b"rubbish" * 1000, bytes(4096), b"\x28\xb5\x2f\xfd" + os.urandom(5000), b"{}"):
        (tmp_path / "b").write_bytes(rubbish)
        refused(tmp_path / "b")
    (tmp_path / "b").write_bytes(b"\x1f\x8b" + bytes(100))
    with pytest.raises(UsageError, match="gunzip"):
        verify_bundle(tmp_path / "b")


def test_members_larger_than_eight_gigabytes_have_a_header() -> None:
    """Octal digits end there (POSIX ustar); what is written must be read."""
    scan = Scan(iter([tar_member("blobs/sha256/" + "0" * 64, 9 << 30), bytes(10_000)]), canonical=True)
    with pytest.raises(DamagedArchiveError, match="ends too early"):
        scan.run()


def test_a_verification_that_is_told_to_stop(tmp_path: Path) -> None:
    bundle(tmp_path / "b", compress="none")
    with pytest.raises(StoppedError):
        verify_bundle(tmp_path / "b", stop=lambda: True)
