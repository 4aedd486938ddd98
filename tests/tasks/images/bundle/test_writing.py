"""What goes wrong while a bundle is written: it is said, and nothing that looks like a bundle is left."""

import fcntl
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks.domain.errors import BlockedError, StoppedError, TemporaryError, UnprovenError, UsageError
from tasks.images.bundle import Compression, verify_bundle, write_bundle
from tasks.images.model import Blob, Image, Platform
from tasks.record import unfinished_file
from tests.tasks.images.bundle.shelf import AT, Shelf, bundle, layer_of, names, release

COMPRESSIONS = pytest.mark.parametrize("compress", ["none", "zstd"])


@COMPRESSIONS
def test_told_to_stop(tmp_path: Path, compress: Compression) -> None:
    shelf = Shelf()
    asked = iter([False] * 20)
    with pytest.raises(StoppedError):
        write_bundle(
            shelf, release(shelf), tmp_path / "b", version="1", made_at=AT, compress=compress,
            stop=lambda: next(asked, True),
        )  # fmt: skip
    assert names(tmp_path) == []
    assert shelf.closed == 1


@COMPRESSIONS
@pytest.mark.parametrize("how", ["other", "short", "long", "config"])
def test_a_source_whose_bytes_are_not_what_it_says(tmp_path: Path, compress: Compression, how: str) -> None:
    shelf = Shelf()
    images = release(shelf)
    key = images[1].config if how == "config" else images[1].diff_ids[-1]
    content = shelf.contents[key][1]
    shelf.broken[key] = {"short": content[:-1], "long": content + b"x"}.get(how, b"X" + content[1:])
    with pytest.raises(UnprovenError) as caught:
        write_bundle(shelf, images, tmp_path / "b", version="1", made_at=AT, compress=compress)
    assert shelf.descriptor(key).digest in caught.value.observed
    assert names(tmp_path) == []
    assert shelf.closed == 1


@dataclass
class Breaking(Shelf):
    """Raises in the middle, or ends too early."""

    silently: bool = False

    def read(self, images: Sequence[Image], wanted: frozenset[str]) -> Iterator[Blob]:
        for count, blob in enumerate(super().read(images, wanted)):
            if count == 7:
                if self.silently:
                    return
                raise TemporaryError("The registry went away.")
            yield blob


def test_a_source_that_breaks(tmp_path: Path) -> None:
    for silently, error in ((False, TemporaryError), (True, UnprovenError)):
        shelf = Breaking(silently=silently)
        with pytest.raises(error):
            write_bundle(shelf, release(shelf), tmp_path / "b", version="1", made_at=AT)
        assert names(tmp_path) == []
        assert shelf.closed == 1


# The limit on a file's size stands for a full disk: the kernel refuses the write in the same way.
_LIMITED = """
import resource, signal, sys
from pathlib import Path
from tests.tasks.images.bundle.shelf import bundle
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
try:
    bundle(Path(sys.argv[1]), engine=True, compress=sys.argv[2], size=9_000_000)
except Exception as error:
    print(type(error).__name__, error)
"""


@COMPRESSIONS
def test_a_disk_that_runs_full(tmp_path: Path, compress: Compression) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(tmp_path / "b"), compress],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[4],
    )  # fmt: skip
    assert "BlockedError The disk ran full while the bundle was written" in done.stdout
    assert names(tmp_path) == []


def test_room_is_asked_for_before_and_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(engine=False)
    images = release(shelf, size=2_000_000)
    free = unfinished_file.free_bytes(tmp_path)
    monkeypatch.setattr(unfinished_file, "RESERVE", free - 1_000_000)
    with pytest.raises(BlockedError, match="There is no room"):
        write_bundle(shelf, images, tmp_path / "b", version="1", made_at=AT)
    assert shelf.read_layers == []
    # An engine does not tell sizes before, so the disk is watched.
    shelf = Shelf(engine=True)
    images = release(shelf, size=2_000_000)
    monkeypatch.setattr(unfinished_file, "RESERVE", free + 10_000_000_000)
    monkeypatch.setattr(unfinished_file, "_WATCH_EVERY", 1_000_000)
    monkeypatch.setattr(unfinished_file.Words, "require_room", lambda *_: None)
    with pytest.raises(BlockedError, match="The disk ran full"):
        write_bundle(shelf, images, tmp_path / "b", version="1", made_at=AT, compress="none")
    assert names(tmp_path) == []


def test_names_that_are_taken(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("precious")
    with pytest.raises(UsageError, match="exists already"):
        bundle(tmp_path / "b")
    assert (tmp_path / "b").read_text() == "precious"
    shelf = Shelf()
    write_bundle(shelf, release(shelf), tmp_path / "b", version="1", made_at=AT, replace=True)
    assert verify_bundle(tmp_path / "b").version == "1"
    assert names(tmp_path) == ["b"]


def test_what_a_dead_run_left_is_written_over_and_a_live_one_is_not_disturbed(tmp_path: Path) -> None:
    partial = tmp_path / ".b.partial"
    partial.write_bytes(b"left" * 1_000_000)
    with partial.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BlockedError, match="another run"):
            bundle(tmp_path / "b")
        assert partial.stat().st_size == 4_000_000
    bundle(tmp_path / "b")
    verify_bundle(tmp_path / "b")
    assert names(tmp_path) == ["b"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "b", tmp_path / ("n" * 300)):
        with pytest.raises(UsageError, match="cannot be written"):
            bundle(path)


def test_a_folder_that_is_missing_is_not_made(tmp_path: Path) -> None:
    """It may be a disk that is not mounted: the bundle would fill another."""
    with pytest.raises(UsageError, match=r"cannot be written to .*/one") as raised:
        bundle(tmp_path / "one" / "b")
    assert raised.value.observed == "No such file or directory"
    assert "Make the folder" in raised.value.next
    assert names(tmp_path) == []


def test_nothing_to_bundle_and_two_images_of_one_name(tmp_path: Path) -> None:
    shelf = Shelf()
    with pytest.raises(BlockedError, match="nothing to bundle"):
        write_bundle(shelf, (), tmp_path / "b", version="1", made_at=AT)
    amd = shelf.put("a/b:1", [layer_of(b"1")])
    arm = shelf.put("a/b:1", [layer_of(b"2")], Platform("linux", "arm64"))
    with pytest.raises(BlockedError, match="would name two images"):
        write_bundle(shelf, (amd, arm), tmp_path / "b", version="1", made_at=AT)
    facts = write_bundle(shelf, (amd, amd), tmp_path / "b", version="1", made_at=AT)
    assert len(facts.images) == 1
