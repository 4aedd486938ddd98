"""`backup`, `backups` and `verify` as people run them, on a sandbox."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kubernetes import config
from pymongo import MongoClient

from deployments.sandbox.launch import Sandbox
from tasks.cluster.api import KubernetesApi
from tasks.database.manifest import Need, load
from tasks.database.needed import pin, release
from tasks.domain.journal import BackupMade
from tasks.record.journal_store import JournalStore
from tests.cli.conftest import COMMAND, SPEED, Ran, four_parts, run_at_terminal, run_command
from tests.cli.database import opened, snapshot
from tests.domain.journals import backup as recorded
from tests.domain.journals import journal, rollback, scale, set_image
from tests.flows.world import OLD, World, archives, clean_environment, leftovers


class Person:
    """Somebody at a sandbox, in a folder of their own."""

    def __init__(self, sandbox: Sandbox, folder: Path, prefect: dict[str, str]) -> None:
        self.sandbox, self.folder, self.world, self.prefect = sandbox, folder, World(sandbox), prefect
        self.backups = folder / "backups"

    def run(self, *arguments: object, cluster: bool = True, **env: str) -> Ran:
        # A home without a kubeconfig: what is not said is not there.
        given = self.sandbox.env() if cluster else {}
        env = {"HOME": str(self.folder), **self.prefect, **given, **env}
        ran = run_command(*arguments, folder=self.folder, env=env)
        assert not any(secret in ran.out + ran.err for secret in self.world.secrets())
        return ran

    def types(
        self, answers: bytes, *arguments: object, meanwhile: Callable[[], object] | None = None, **env: str
    ) -> Ran:
        """The same at a terminal."""
        env = {"HOME": str(self.folder), **self.prefect, **self.sandbox.env(), **env}
        ran = run_at_terminal(answers, *arguments, folder=self.folder, env=env, meanwhile=meanwhile)
        assert not any(secret in ran.out + ran.err for secret in self.world.secrets())
        return ran


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory, prefect_env: dict[str, str]) -> Iterator[Person]:
    with Sandbox(version=OLD, speed=SPEED) as sandbox:
        yield Person(sandbox, tmp_path_factory.mktemp("person"), prefect_env)


def test_by_the_clusters_secret(person: Person) -> None:
    ran = person.run("backup", "-o", "json")
    assert ran.code == 0, ran
    (archive,) = archives(person.backups)
    assert archive.name.startswith(f"apinizer-backup--{OLD}--")
    assert ran.document["archive"] == str(archive)
    assert (ran.document["host"], ran.document["version"]) == (os.uname().nodename, OLD)
    manifest = json.loads(archive.with_name(f"{archive.name}.json").read_text())
    assert manifest["sha256"] == ran.document["sha256"] == manifest["proof"]["sha256"]
    assert manifest["databases"] == ["apinizerdb"]
    assert leftovers(person.backups) == []


def test_by_an_address_no_cluster_is_needed(person: Person) -> None:
    (person.folder / "uri").write_text(person.sandbox.mongo_uri + "\n")
    ran = person.run("backup", "--uri-file", "uri", "--no-gzip", "--leave-out", "apinizer_log", cluster=False)
    assert ran.code == 0, ran
    newest = max(archives(person.backups), key=lambda p: p.stat().st_mtime)
    assert newest.name.startswith("apinizer-backup--unknown--")
    assert newest.read_bytes()[:4] == bytes.fromhex("6de29981")
    manifest = json.loads(newest.with_name(f"{newest.name}.json").read_text())
    assert manifest["left_out"] == ["apinizerdb.apinizer_log"]
    assert "apinizer_log" not in {n["collection"] for n in manifest["namespaces"]}
    assert ran.err == ""


def test_the_whole_server(person: Person) -> None:
    ran = person.run("backup", "--whole-server", "--apinizer-version", "2025.07.0", "-o", "json", APINIZER_UPGRADE_URI=person.sandbox.mongo_uri)  # fmt: skip
    assert ran.code == 0, ran
    archive = Path(ran.document["archive"])
    assert archive.name.startswith("apinizer-backup--2025.07.0--")
    manifest = json.loads(archive.with_name(f"{archive.name}.json").read_text())
    assert (manifest["databases"], manifest["database"]) == ([], "apinizerdb")
    assert {n["db"] for n in manifest["namespaces"]} >= {"apinizerdb"}


def test_a_password_in_the_arguments_is_told(person: Person) -> None:
    ran = person.run("backup", "--uri", "mongodb://u:hidden@127.0.0.1:1/", "--uri-file", "x", cluster=False)
    assert ran.code == 2
    ran = person.run(
        "restore", "nothing.archive", "--dry-run", "--uri", "mongodb://u:hidden@127.0.0.1:1/", cluster=False
    )
    assert ran.err.count("Note: a password in --uri is seen") == 1
    assert "hidden" not in ran.out + ran.err


def test_the_list(person: Person) -> None:
    rows = person.run("backups", "-o", "json").document["backups"]
    assert [row["version"] for row in rows] == ["2025.07.0", "unknown", OLD]
    assert all(row["proved"] and row["proved_at"] and not row["problem"] for row in rows)
    ran = person.run("backups")
    assert ran.code == 0
    head, *lines = ran.out.splitlines()
    assert head.split() == ["NAME", "VERSION", "TAKEN", "SIZE", "DOCUMENTS", "PROVED"]
    assert len([line for line in lines if line.strip()]) == 3
    newest = Path(rows[0]["archive"])
    need = Need(
        run="upgrade", database="db", hosts="h:1", since=datetime(2026, 11, 20, tzinfo=UTC), version="2025.08.0"
    )
    pin(newest, need)
    (sentence,) = person.run("backups", "-o", "json").document["backups"][0]["needed_by"]
    assert sentence == "the upgrade to 2025.08.0 of 2026-11-20, which has not ended"
    assert "needed by the upgrade to 2025.08.0" in " ".join(person.run("backups").out.split())
    release([newest], need.of_same)
    none = person.run("backups", "--backup-dir", "nowhere")
    assert none.code == 1
    assert "There is no directory nowhere" in none.err


def test_verify(person: Person) -> None:
    archive = next(p for p in archives(person.backups) if OLD in p.name)
    ran = person.run("verify", archive, "-o", "json", cluster=False)
    assert ran.code == 0, ran
    manifest = json.loads(archive.with_name(f"{archive.name}.json").read_text())
    assert ran.document["sha256"] == manifest["sha256"]
    assert ran.document["documents"] == sum(n["documents"] for n in manifest["namespaces"])
    assert "Whole:" in person.run("verify", archive).out


def test_verify_on_trial(person: Person) -> None:
    archive = next(p for p in archives(person.backups) if OLD in p.name)
    before = snapshot(person.sandbox.mongo_uri)
    ran = person.run("verify", archive, "--scratch-database", "tried_here", "-o", "json")
    assert ran.code == 0, ran
    assert ran.document["rehearsal"]["record"]["collections"] == len(before)
    ran = person.run("verify", archive, cluster=False, APINIZER_UPGRADE_SCRATCH_URI=person.sandbox.mongo_uri)
    assert ran.code == 0, ran
    assert "Restored on trial:" in ran.out
    assert "password" not in ran.err
    ran = person.run("verify", archive, "--scratch-database", "apinizerdb")
    assert ran.code == 2, ran
    assert snapshot(person.sandbox.mongo_uri) == before
    with MongoClient(person.sandbox.mongo_uri) as client:
        assert not {"tried_here", "apinizer_rehearsal"} & set(client.list_database_names())
    assert "restored on trial" in person.run("backups").out


@pytest.mark.parametrize(
    ("spoil", "code", "told"),
    [
        pytest.param(lambda data: data[: len(data) // 2], 1, "damaged", id="truncated gzip"),
        pytest.param(lambda data: data[:2000] + bytes([data[2000] ^ 1]) + data[2001:], 1, "damaged", id="one bit"),
        pytest.param(lambda _: b"", 1, "", id="empty"),
        pytest.param(lambda _: b"PK\x03\x04" + bytes(100), 1, "", id="a zip"),
    ],
)
def test_an_archive_that_is_spoilt(person: Person, tmp_path: Path, spoil, code: int, told: str) -> None:  # type: ignore[no-untyped-def]
    whole = next(p for p in archives(person.backups) if OLD in p.name)
    spoilt = tmp_path / whole.name
    shutil.copy(f"{whole}.json", f"{spoilt}.json")
    spoilt.write_bytes(spoil(whole.read_bytes()))
    for command in (("verify", spoilt), ("restore", spoilt, "--dry-run", "--no-cluster")):
        ran = person.run(*command, APINIZER_UPGRADE_URI=person.sandbox.mongo_uri)
        assert ran.code == code, ran
        four_parts(ran.err)
        assert told in ran.err


def test_what_is_no_archive(person: Person, tmp_path: Path) -> None:
    assert person.run("verify", tmp_path).code == 2
    ran = person.run("verify", tmp_path / "none.archive")
    assert ran.code == 1
    assert "There is no archive" in ran.err
    assert "Error: Missing argument" in person.run("verify").err


def made_of(archive: Path) -> BackupMade:
    """As a journal records it."""
    manifest = load(archive)
    assert manifest is not None
    return recorded(archive.name).model_copy(update={"archive": str(archive), "sha256": manifest.sha256})


def test_retention(person: Person) -> None:
    """What the journal of an unfinished run names stays, marked or not; what cannot be known stays too."""
    before = sorted(archives(person.backups), key=lambda path: path.stat().st_mtime)
    assert len(before) == 3
    upgrade = journal("a", set_image(), backup=made_of(before[0]))
    store = JournalStore(KubernetesApi(config.new_client_from_config(str(person.sandbox.kubeconfig))), "apinizer")
    place = "/api/v1/namespaces/apinizer/configmaps/apinizer-upgrade-"
    for each in (upgrade, rollback(upgrade, "b", scale(), safety=made_of(before[1]))):
        store.create(each)
    store.api.patch(f"{place}b", {"data": {"journal.json": "rubbish"}}, "merge")
    ran = person.run("backup", "--keep", "1")
    assert ran.code == 0, ran
    assert "No old backup was removed" in ran.out
    assert set(before) < set(archives(person.backups))
    store.api.delete(f"{place}b")
    store.create(rollback(upgrade, "b", scale(), safety=made_of(before[1])))
    assert person.run("backup", "--keep", "1").code == 0
    assert set(before[:2]) < set(archives(person.backups))
    for run in "ab":
        store.api.delete(f"{place}{run}")
    ran = person.run("backup", "--keep", "2", "-o", "json")
    assert ran.code == 0, ran
    assert {path.name for path in before[:2]} <= set(ran.document["removed"])
    assert len(archives(person.backups)) == 3  # the one of the whole server, that no newer one stands for
    assert leftovers(person.backups) == []


def bulk(person: Person, megabytes: int) -> None:
    """Enough documents that a backup takes a while."""
    with opened(person.sandbox.mongo_uri) as database:
        text = os.urandom(2000).hex()
        for start in range(0, megabytes * 250, 1000):
            database.bulk.insert_many([{"_id": start + n, "text": text} for n in range(1000)])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_leaves_nothing(person: Person, tmp_path: Path, number: signal.Signals, code: int) -> None:
    with opened(person.sandbox.mongo_uri) as database:
        if "bulk" not in database.list_collection_names():
            bulk(person, 120)
    with subprocess.Popen(
        [COMMAND, "backup", "--backup-dir", str(tmp_path)],
        env=clean_environment() | person.prefect | person.sandbox.env(),
        cwd=person.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert any("backup: bulk" in line for line in process.stdout)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    four_parts(err)
    assert "interrupted" in err
    assert "Nothing was changed" in err
    assert list(tmp_path.iterdir()) == []
