"""Bad input to the commands on the database: the right exit code, an error in four parts, no secret, nothing changed."""

import gzip
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pymongo import MongoClient

from blocks.settings import InstallationSettings
from deployments.sandbox.launch import Sandbox
from tests.cli.conftest import SPEED, Ran
from tests.cli.database import NAME, snapshot
from tests.cli.test_backup import Person
from tests.cli.wire import Wire
from tests.flows.world import OLD, archives, leftovers

READER = "reader-with-a-passw0rd"


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory, prefect_env: dict[str, str]) -> Iterator[Person]:
    with Sandbox(version=OLD, speed=SPEED) as sandbox:
        with MongoClient(sandbox.mongo_uri) as client:
            client.admin.command("createUser", "reader", pwd=READER, roles=[{"role": "read", "db": "other"}])
        made = Person(sandbox, tmp_path_factory.mktemp("person"), prefect_env)
        assert made.run("backup", "--uri-file", _file(made, sandbox.mongo_uri)).code == 0
        yield made


def _file(person: Person, uri: str) -> Path:
    path = person.folder / "uri"
    path.write_text(uri)
    return path


def _as_reader(uri: str) -> str:
    parts = urlsplit(uri)
    return parts._replace(netloc=f"reader:{READER}@{parts.hostname}:{parts.port}").geturl()


def refused(person: Person, code: int, told: str, *arguments: object, uri: str = "") -> Ran:
    """Run a command that must be refused before anything is changed."""
    before, there = snapshot(person.sandbox.mongo_uri), archives(person.backups)
    ran = person.run(*arguments, "--uri-file", _file(person, uri or person.sandbox.mongo_uri), cluster=False)
    assert ran.code == code, ran
    lines = ran.err.splitlines()
    error = "\n".join(lines[next(n for n, line in enumerate(lines) if line.startswith(("Error: ", "Blocked: "))) :])
    assert told in error
    assert "\nSafe now: " in error
    assert "\nNext: " in error
    assert "Traceback" not in error
    assert READER not in ran.out + ran.err
    assert snapshot(person.sandbox.mongo_uri) == before
    assert archives(person.backups) == there
    assert leftovers(person.backups) == []
    return ran


def _archive(person: Person) -> Path:
    return archives(person.backups)[0]


def test_a_wrong_password(person: Person) -> None:
    wrong = person.sandbox.mongo_uri.replace(urlsplit(person.sandbox.mongo_uri).password or "?", "wr0ng-and-s3cret")
    ran = refused(person, 1, "refused the login", "backup", uri=wrong)
    assert "wr0ng" not in ran.out + ran.err
    refused(person, 1, "refused the login", "restore", _archive(person), "--dry-run", uri=wrong)


def test_a_permission_that_is_missing(person: Person) -> None:
    refused(person, 1, "may not do this", "backup", uri=_as_reader(person.sandbox.mongo_uri))
    refused(
        person, 1, "may not do this", "restore", _archive(person), "--yes", uri=_as_reader(person.sandbox.mongo_uri)
    )


def test_not_the_primary(person: Person) -> None:
    changes = {
        b"\x08secondary\x00\x00": b"\x08secondary\x00\x01",
        b"\x08isWritablePrimary\x00\x01": b"\x08isWritablePrimary\x00\x00",
        b"\x08ismaster\x00\x01": b"\x08ismaster\x00\x00",
    }
    with Wire(person.sandbox.mongo_uri, changes) as wire:
        refused(person, 2, "not the primary", "backup", uri=wire.uri)
        refused(person, 2, "not the primary", "restore", _archive(person), "--dry-run", uri=wire.uri)


def test_an_address_that_is_none(person: Person) -> None:
    refused(person, 2, "not a MongoDB URI", "backup", uri="https://db.example/")
    refused(person, 2, "is missing", "backup", uri=" ")
    ran = person.run("backup", "--uri-file", "nowhere", cluster=False)
    assert (ran.code, "nowhere cannot be read" in ran.err) == (2, True)


def test_a_database_that_is_not_there(person: Person) -> None:
    refused(person, 1, "no database nothing", "backup", "--database", "nothing")


def test_a_folder_that_cannot_be_written(person: Person) -> None:
    (person.folder / "file").touch()
    refused(person, 2, "--backup-dir", "backup", "--backup-dir", person.folder / "file")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_no_space(person: Person, small_disk: Path) -> None:
    refused(person, 3, "no room", "backup", "--backup-dir", small_disk, "--allow-ephemeral")
    assert list(small_disk.iterdir()) == []


def _rewritten(person: Person, folder: Path, old: bytes, new: bytes) -> Path:
    """The archive with other bytes, and without the manifest that would tell at once."""
    path = folder / _archive(person).name
    data = gzip.decompress(_archive(person).read_bytes())
    assert old in data
    path.write_bytes(gzip.compress(data.replace(old, new, 1)))
    return path


def test_an_archive_of_a_newer_format(person: Person, tmp_path: Path) -> None:
    version = b"\x02version\x00\x04\x00\x00\x000.1\x00"
    newer = _rewritten(person, tmp_path, version, version.replace(b"0.1", b"0.9"))
    ran = person.run("verify", newer)
    assert ran.code == 1
    assert "format that is not known" in ran.err
    refused(person, 1, "format that is not known", "restore", newer, "--yes")


def test_a_truncated_gzip(person: Person, tmp_path: Path) -> None:
    cut = tmp_path / _archive(person).name
    shutil.copy(_archive(person), cut)
    os.truncate(cut, cut.stat().st_size - 9)
    refused(person, 1, "damaged", "restore", cut, "--yes")


def test_a_directory(person: Person, tmp_path: Path) -> None:
    refused(person, 2, "is a directory", "restore", tmp_path, "--yes")
    refused(person, 1, "no archive", "restore", tmp_path / "none.archive", "--yes")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--engine", "pg_dump"),
        ("--keep", "0"),
        ("--keep-days", "-1"),
        ("--engine", "native", "--ssh", "db1"),
        ("--leave-out", " "),
        ("--whole-server", "--leave-out", "apinizer_log"),
        ("--engine", "mongodump"),
    ],
    ids=" ".join,
)
def test_options_that_cannot_be(person: Person, arguments: tuple[str, ...]) -> None:
    if arguments == ("--engine", "mongodump") and shutil.which("mongodump"):
        pytest.skip("mongodump is installed here")
    ran = refused(person, 2, "", "backup", *arguments)
    assert NAME not in ran.out or "backup:" in ran.out


def test_an_address_that_is_empty(person: Person) -> None:
    ran = person.run("backup", "--uri", "")
    assert ran.code == 2, ran
    assert "--uri is empty." in ran.err


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("mongodb://h:25080", ""),
        ("mongodb://h:25080/?authSource=admin", ""),
        ("mongodb://u:p%2F@h:25080,i:25080/small?replicaSet=rs", "small"),
        ("mongodb+srv://h/my%20db", "my db"),
        ("mongodb://u:p@h/admin", ""),
    ],
)
def test_the_database_in_an_address(uri: str, name: str) -> None:
    from deployments.cli.database_options import with_address

    settings = InstallationSettings()
    assert with_address(settings, uri, None, "").database.name == name
    assert with_address(settings, uri, None, "other").database.name == "other"
