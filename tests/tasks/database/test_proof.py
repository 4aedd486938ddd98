"""What a proof meets beside a good archive: other files, files that change, records that cannot be kept."""

import gzip
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import bson
import pytest

from tasks.database.archive.format import CollectionEntry, Header, Namespace
from tasks.database.archive.metadata import CollectionMetadata
from tasks.database.archive.outlet import Outlet
from tasks.database.archive.reader import Documents
from tasks.database.archive.writer import ArchiveWriter
from tasks.database.manifest import Manifest, RehearsalRecord, load, manifest_path, save
from tasks.database.proof import prove
from tasks.domain.errors import DamagedArchiveError, NotFoundError, StoppedError, UnprovenError, UsageError

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
Archive = Callable[..., bytes]
MEGABYTE = 1_000_000


@pytest.fixture
def path(archive: Archive, tmp_path: Path) -> Path:
    """A backup with its manifest, not yet proved."""
    path = tmp_path / "x.archive"
    path.write_bytes(gzip.compress(archive({"a": [{"_id": i} for i in range(50)], "b": []})))
    proof = prove(path)
    manifest = Manifest(
        archive=path.name, tool_version="1", apinizer_version="1", server_version=proof.server_version, database="db",
        started=NOW, ended=NOW, duration_seconds=0, read_concern="majority", gzip=True, size=proof.size,
        sha256=proof.sha256, namespaces=proof.namespaces,
    )  # fmt: skip
    save(path, manifest)
    return path


OTHERS: dict[str, tuple[bytes, str]] = {
    "zip": (b"PK\x03\x04" + bytes(60), "a zip file"),
    "zstd": (bytes.fromhex("28b52ffd") + bytes(60), "zstd"),
    "xz": (b"\xfd7zXZ\x00" + bytes(60), "xz"),
    "bzip2": (b"BZh91AY&SY" + bytes(60), "bzip2"),
    "lz4": (bytes.fromhex("04224d18") + bytes(60), "lz4"),
    "encrypted": (b"Salted__" + bytes(60), "openssl"),
    "a manifest": (b'{"format": "apinizer-upgrade/backup-manifest/1"}', "manifest"),
    "tar": (b"dump/" + bytes(252) + b"ustar\x0000" + bytes(200), "a tar file"),
    "tar, gzipped": (gzip.compress(b"dump/" + bytes(252) + b"ustar\x0000" + bytes(200)), "a tar file"),
    "a .bson file": (bson.encode({"_id": 1, "name": "x"}) * 3, "without --archive"),
    "a .bson.gz file": (gzip.compress(bson.encode({"_id": 1, "name": "x"})), "without --archive"),
    "gzip twice": (gzip.compress(gzip.compress(b"x")), "gzip twice"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_file_of_another_kind_is_named(tmp_path: Path, kind: str) -> None:
    data, said = OTHERS[kind]
    file = tmp_path / "x.archive"
    file.write_bytes(data)
    with pytest.raises(UsageError, match="no archive") as caught:
        prove(file)
    assert said in caught.value.observed


def test_with_a_manifest_another_kind_is_damage(path: Path) -> None:
    path.write_bytes(OTHERS["zip"][0])
    with pytest.raises(DamagedArchiveError, match="damaged"):
        prove(path)


@pytest.mark.parametrize("data", [b"hello", b"\x00", b"#!/bin/sh\n", b"m\xe2\x99"])
def test_what_cannot_be_told_is_damaged(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "x.archive"
    file.write_bytes(data)
    with pytest.raises(DamagedArchiveError):
        prove(file)


class TestNoFile:
    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "x.archive")
        with pytest.raises(UsageError, match="pipe"):
            prove(tmp_path / "x.archive")

    def test_a_device(self) -> None:
        with pytest.raises(UsageError, match="device"):
            prove(Path("/dev/zero"))

    def test_a_socket(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as found:
            found.bind(str(tmp_path / "s"))
            with pytest.raises(UsageError, match="socket"):
                prove(tmp_path / "s")

    def test_a_path_through_a_file(self, path: Path) -> None:
        with pytest.raises(NotFoundError):
            prove(path / "x.archive")

    def test_links(self, path: Path, tmp_path: Path) -> None:
        elsewhere = tmp_path / "links"
        elsewhere.mkdir()
        (elsewhere / "good.archive").symlink_to(path)
        proof = prove(elsewhere / "good.archive")
        assert proof.against_manifest  # The one beside the file itself.
        assert proof.recorded
        assert load(path).proof is not None  # type: ignore[union-attr]
        (elsewhere / "dangling.archive").symlink_to("nowhere")
        with pytest.raises(NotFoundError):
            prove(elsewhere / "dangling.archive")
        (elsewhere / "loop.archive").symlink_to("loop.archive")
        with pytest.raises(UsageError, match="could not be opened"):
            prove(elsewhere / "loop.archive")

    def test_too_long_a_name(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="could not be opened"):
            prove(tmp_path / ("x" * 300))

    def test_no_right_to_read(self, path: Path) -> None:
        """In a process without root's rights, for root may read everything."""
        path.chmod(0)
        for folder in (path.parent, path.parent.parent):
            folder.chmod(0o755)
        program = (
            "import os, sys\nfrom pathlib import Path\nfrom tasks.database.proof import prove\n"
            "from tasks.domain.errors import UsageError\n"
            "if os.geteuid() == 0:\n    os.setgid(65534)\n    os.setuid(65534)\n"
            "try:\n    prove(Path(sys.argv[1]))\n"
            "except UsageError as error:\n    print(error.happened)\n"
        )
        command = [sys.executable, "-c", program, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert "may not be read by this user" in done.stdout, done.stderr


class TestChanges:
    def test_a_file_that_grows_while_it_is_read(self, path: Path) -> None:
        def grow(_: int, __: int) -> None:
            with path.open("ab") as file:
                file.write(b"x")

        with pytest.raises(UnprovenError) as caught:
            prove(path, progress=grow)
        assert "changed while it was read" in caught.value.happened

    def test_a_file_that_is_rewritten_in_place_meanwhile(self, path: Path) -> None:
        good = path.read_bytes()

        def rewrite(_: int, __: int) -> None:
            with path.open("r+b") as file:
                file.write(good)
            os.utime(path, ns=(1, 1))

        with pytest.raises(UnprovenError, match="changed while"):
            prove(path, progress=rewrite)

    def test_a_file_that_is_replaced_meanwhile(self, path: Path) -> None:
        """Another file under the name, though this one was read whole and is good."""

        def replace(_: int, __: int) -> None:
            other = path.with_name("other")
            other.write_bytes(b"another")
            other.replace(path)

        with pytest.raises(UnprovenError, match="changed while"):
            prove(path, progress=replace)

    def test_a_stopped_proof_withdraws_nothing(self, path: Path) -> None:
        prove(path)
        with pytest.raises(StoppedError):
            prove(path, stop=lambda: True)
        assert load(path).proof is not None  # type: ignore[union-attr]

    def test_what_else_is_recorded_meanwhile_stays(self, path: Path) -> None:
        def note(_: int, __: int) -> None:
            manifest = load(path)
            assert manifest is not None
            save(path, manifest.model_copy(update={"notes": ["rehearsed"]}))

        assert prove(path, progress=note).recorded
        recorded = load(path)
        assert recorded is not None
        assert recorded.notes == ["rehearsed"]
        assert recorded.proof is not None

    def test_what_a_rehearsal_tried_is_not_untried(self, path: Path) -> None:
        rehearsal = RehearsalRecord(
            rehearsed_at=NOW, tool_version="1", server_version="8.0.4", sha256=prove(path).sha256, collections=2,
            documents=50, unproven=["text indexes"],
        )  # fmt: skip
        manifest = load(path)
        assert manifest is not None
        save(path, manifest.model_copy(update={"rehearsal": rehearsal}))
        assert prove(path).untried == ["text indexes"]
        good = path.read_bytes()
        path.write_bytes(good[:-1])
        with pytest.raises(DamagedArchiveError):
            prove(path)
        withdrawn = load(path)
        assert withdrawn is not None
        assert (withdrawn.proof, withdrawn.rehearsal) == (None, None)

    def test_a_manifest_that_goes_away_meanwhile(self, path: Path) -> None:
        proof = prove(path, progress=lambda *_: manifest_path(path).unlink(missing_ok=True))
        assert proof.against_manifest
        assert not proof.recorded
        assert "could not be recorded" in proof.notes[0]
        assert not manifest_path(path).exists()

    def test_a_record_that_cannot_be_written(self, path: Path, tmp_path: Path) -> None:
        """A disk that is mounted read-only, or a store whose folder others own: the proof stands and says so."""
        point = tmp_path / "mount"
        point.mkdir()
        if os.geteuid() or subprocess.run(["mount", "--bind", str(tmp_path), str(point)], check=False).returncode:
            pytest.skip("mounting needs root")
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", str(point)], check=True)
            proof = prove(point / path.name)
            assert proof.against_manifest
            assert not proof.recorded
            assert "Read-only" in proof.notes[0]
        finally:
            subprocess.run(["umount", "-l", str(point)], check=True)
        assert load(path).proof is None  # type: ignore[union-attr]


def test_each_run_is_shown(path: Path) -> None:
    runs: list[Documents] = []
    proof = prove(path, seen=runs.append)
    assert sum(run.count for run in runs) == proof.documents == 50
    assert {run.namespace for run in runs} == {Namespace("db", "a")}


def test_a_manifest_stays_private(path: Path) -> None:
    prove(path)
    assert stat.S_IMODE(manifest_path(path).stat().st_mode) == 0o600


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 MB of documents in 30 MB or so of gzip, with one of 16 MiB."""
    path = tmp_path_factory.mktemp("large") / "x.archive"
    space = Namespace("db", "c")
    run = b"".join(bson.encode({"_id": i, "text": f"text of the proxy number {i % 97} " * 12}) for i in range(10_000))
    huge = bson.encode({"_id": -1, "b": os.urandom(15 * 1024 * 1024)})
    with path.open("wb", buffering=0) as file, Outlet(file) as outlet:
        entry = CollectionEntry(space, CollectionMetadata("c").encode(), "collection")
        writer = ArchiveWriter(outlet, Header("8.0.4", "t"), [entry])
        writer.begin(space)
        for turn in range(300 * MEGABYTE // len(run)):
            writer.documents(space, run, 10_000)
            if turn == 9:
                writer.documents(space, huge, 1)
        writer.end(space)
        writer.close()
        outlet.finish()
    return path


def test_memory_does_not_grow_with_the_archive(large: Path) -> None:
    program = (
        "import resource, sys\nfrom pathlib import Path\nfrom tasks.database.proof import prove\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "proof = prove(Path(sys.argv[1]))\n"
        "print(proof.bytes, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    command = [sys.executable, "-c", program, str(large)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    read, grown = map(int, done.stdout.split())
    assert read > 290 * MEGABYTE
    assert grown < 100, "MiB"
