"""A disk that fails under a backup: full, read-only, gone; and names that somebody else takes."""

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from tasks.database.archive.outlet import Outlet
from tasks.database.connection import open_database
from tasks.database.dump import dump
from tasks.database.manifest import manifest_path
from tasks.database.slot import BACKUP, claim
from tasks.database.sweep import sweep
from tasks.domain.errors import BlockedError, UpgradeError, UsageError
from tasks.record import unfinished_file

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
DB = "apinizerdb"
Client = MongoClient[dict[str, Any]]
Mount = Callable[..., Path]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a small tmpfs with these options; needs root."""
    points: list[Path] = []

    def mount(options: str) -> Path:
        point = tmp_path / "disk"
        point.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "small", str(point)]
        if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting needs root")
        points.append(point)
        return point

    yield mount
    for point in points:
        subprocess.run(["umount", "-l", str(point)], check=False)


def filled(client: Client, count: int = 3000) -> None:
    client[DB]["a"].insert_many([{"_id": i, "b": os.urandom(2000)} for i in range(count)])


def backup(uri: str, directory: Path, **options: Any) -> Path:
    with open_database(uri) as client:
        return dump(client, DB, directory, apinizer_version="1", now=lambda: NOW, **options).archive


def test_a_small_disk_runs_full_in_the_middle(
    client: Client, uri: str, mounted: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """6 MB that no compression shrinks, on a disk of 2 MB; the look beforehand is turned off, as if others wrote meanwhile."""
    filled(client)
    disk = mounted("size=2m")
    monkeypatch.setattr("tasks.database.dump.check_room", lambda *_, **__: None)
    with pytest.raises(BlockedError, match="ran full") as caught:
        backup(uri, disk)
    assert "unfinished file was removed" in caught.value.safe
    assert list(disk.iterdir()) == []


def test_a_disk_that_others_fill_is_left_its_reserve(
    client: Client, uri: str, mounted: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check while writing: the disk is not full yet, but the reserve is touched."""
    filled(client)
    disk = mounted("size=40m")
    monkeypatch.setattr("tasks.database.dump.check_room", lambda *_, **__: None)
    monkeypatch.setattr(unfinished_file, "_WATCH_EVERY", 1 << 20)
    with pytest.raises(BlockedError, match="ran full"):
        backup(uri, disk)  # RESERVE is 64 MiB.
    assert list(disk.iterdir()) == []


def test_too_small_a_disk_is_told_before(client: Client, uri: str, mounted: Mount) -> None:
    filled(client, 10)
    disk = mounted("size=2m")
    with pytest.raises(BlockedError, match="no room"):
        backup(uri, disk)
    assert list(disk.iterdir()) == []


def test_a_read_only_disk(client: Client, uri: str, mounted: Mount) -> None:
    filled(client, 10)
    disk = mounted("size=2m,ro")
    with pytest.raises(UsageError, match="cannot be written") as caught:
        backup(uri, disk)
    assert "Read-only" in caught.value.observed


def test_no_names_left(client: Client, uri: str, mounted: Mount) -> None:
    """A disk without a free inode."""
    filled(client, 10)
    disk = mounted("size=100m,nr_inodes=1")
    with pytest.raises(UsageError, match="cannot be written") as caught:
        backup(uri, disk)
    assert "No space" in caught.value.observed


def test_no_name_left_for_the_manifest(
    client: Client, uri: str, mounted: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive is whole, its manifest finds no room: no backup, and nothing of it stays."""
    filled(client, 10)
    disk = mounted("size=100m,nr_inodes=2")
    with pytest.raises(BlockedError, match="ran full"):
        backup(uri, disk)
    assert list(disk.iterdir()) == []


def test_the_directory_vanishes_meanwhile(client: Client, uri: str, tmp_path: Path) -> None:
    filled(client, 1000)
    directory, elsewhere = tmp_path / "backups", tmp_path / "elsewhere"

    def vanish(_: object) -> None:
        with contextlib.suppress(OSError):
            directory.rename(elsewhere)

    with pytest.raises(UpgradeError, match="could not be written") as caught:
        backup(uri, directory, progress=vanish)
    assert "No such file" in caught.value.observed
    assert [path.name for path in sweep(elsewhere)] == [".apinizer-backup--1--2026-11-22--01.archive.partial"]
    assert list(elsewhere.iterdir()) == []


def test_the_name_is_taken_meanwhile(client: Client, uri: str, tmp_path: Path) -> None:
    filled(client, 1000)
    name = tmp_path / "apinizer-backup--1--2026-11-22--01.archive"

    def take(_: object) -> None:
        name.write_bytes(b"somebody else's")

    with pytest.raises(UpgradeError, match="could not be written") as caught:
        backup(uri, tmp_path, progress=take)
    assert "exists" in caught.value.observed
    assert name.read_bytes() == b"somebody else's"
    assert not list(tmp_path.glob(".*"))


def test_a_write_that_fails(tmp_path: Path) -> None:
    """EIO in the middle, from a descriptor that answers so: /proc/self/mem at no address."""
    slot = claim(tmp_path, "1", NOW.date())
    with Path("/proc/self/mem").open("r+b", buffering=0) as broken, Outlet(broken, gzip=False) as outlet:
        outlet.write(b"x")
        with pytest.raises(OSError, match=r".+") as caught:
            outlet.finish()
    assert caught.value.errno == errno.EIO
    error = BACKUP.full(caught.value, tmp_path)
    assert not isinstance(error, BlockedError)
    assert "unfinished file was removed" in error.safe
    slot.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int) -> None:
    """FAT and some network shares: the answer of one is given here."""

    def link(*_: object, **__: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr("tasks.database.slot.os.link", link)
    one, two = claim(tmp_path, "1", NOW.date()), claim(tmp_path, "1", NOW.date())
    one.file.write(b"one")
    one.publish()
    assert one.archive.read_bytes() == b"one"
    two.archive.write_bytes(b"somebody else's")
    with pytest.raises(FileExistsError):
        two.publish()
    two.discard()
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [b"one", b"somebody else's"]


def test_a_directory_that_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archive has its name then: nothing that is told may say that it was removed."""
    opened = os.open

    def refuse(path: Any, flags: int, *more: Any) -> int:
        if path == tmp_path and flags == os.O_RDONLY:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, flags, *more)

    slot = claim(tmp_path, "1", NOW.date())
    monkeypatch.setattr(os, "open", refuse)
    slot.publish()
    assert slot.archive.exists()
    assert not slot.partial.exists()


def test_a_discard_on_a_disk_that_went_away_tells_the_first_error(mounted: Mount) -> None:
    disk = mounted("size=2m")
    slot = claim(disk, "1", NOW.date())
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=False, capture_output=True)
    slot.discard()


def test_killed_in_the_middle_and_swept_by_the_next(client: Client, uri: str, tmp_path: Path) -> None:
    filled(client, 1000)
    program = (
        "import os, sys, time\nfrom pathlib import Path\n"
        "from tasks.database.connection import open_database\nfrom tasks.database.dump import dump\n"
        "def wait(_):\n    os.write(1, b'middle\\n')\n    time.sleep(600)\n"
        f"with open_database(sys.argv[1]) as c: dump(c, {DB!r}, Path(sys.argv[2]), apinizer_version='1', progress=wait)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, uri, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "middle\n"
    (partial,) = tmp_path.iterdir()
    assert sweep(tmp_path) == []  # It lives.
    child.kill()
    child.wait()
    child.stdout.close()
    assert sweep(tmp_path) == [partial]
    archive = backup(uri, tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([archive, manifest_path(archive)])
