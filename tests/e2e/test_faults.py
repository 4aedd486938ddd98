"""Runs killed, frozen and cut off in the middle of a migration and of a restore, on the real cluster: `make faults-e2e`.

What `make faults` does at every step is done here where it hurts most.  Each fault is seen to land: the migration is made
slow and the database large, and the database itself is asked whether it is half done.
"""

import json
import os
import signal
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from pymongo import MongoClient

from .conftest import SEVEN, Cluster, Run
from .test_database import DB, Client, Snapshot, snapshot
from .test_rollback import NEW, OLD, backup_of, ready
from .test_upgrade import repository

MANAGER = "apinizer/manager"
LABEL = NEW.replace(".", "_")
MIGRATION_SECONDS, BULK_MB = 8, 120
AWAY_SECONDS = 30
OWN = "apinizer-restore."


@dataclass
class Site:
    """The installation at the old version, and what was there when the test began."""

    cluster: Cluster
    database: Client
    images: dict[str, str] = field(init=False)
    counts: dict[str, tuple[int, int]] = field(init=False)
    before: Snapshot = field(init=False)

    def __post_init__(self) -> None:
        self.images, self.counts = self.cluster.images(), ready(self.cluster)
        self.before = snapshot(self.database)

    # ------------------------------------------------------------------ the moments
    def migrating(self) -> bool:
        """The new manager has begun to change the database and has not ended."""
        names = self.database[DB].list_collection_names()
        begun = self.database[DB]["api_proxy"].count_documents({f"migrated_{LABEL}": True})
        return begun > 0 and f"introduced_{LABEL}" not in names

    def restoring(self) -> bool:
        """Documents of the backup are in the database beside those that they will replace."""
        names = [name for name in self.database[DB].list_collection_names() if name.startswith(OWN)]
        copies = [name for name in names if name.rpartition(".")[2].isdigit()]
        half = any(self.database[DB][name].estimated_document_count() for name in copies)
        return half and self.database[DB]["api_proxy"].count_documents({f"migrated_{LABEL}": True}) > 0

    # ------------------------------------------------------------------ what is done
    def upgrade_until_it_migrates(self) -> Run:
        run = self.cluster.start("upgrade", "--to", NEW, "--together")
        run.at("image set", timeout=180)
        until(self.migrating, run)
        return run

    def rollback_until_it_restores(self) -> Run:
        run = self.cluster.start("rollback", "--backup", backup_of(self.cluster))
        until(self.restoring, run)
        return run

    def resume(self) -> tuple[float, str]:
        """Seconds and text of a fresh process that goes on."""
        run = self.cluster.start("resume", "--yes")
        code, seconds = run.wait()
        assert code == 0, run.text
        return seconds, run.text

    def unfinished(self) -> list[str]:
        maps = self.cluster.get("configmaps", "-n", "apinizer", "-l", "app.kubernetes.io/component=journal")["items"]
        journals = [json.loads(each["data"]["journal.json"]) for each in maps]
        return [f"{one['kind']} {one['id']}" for one in journals if not one.get("ended")]

    # ------------------------------------------------------------------ what must be true
    def assert_back(self) -> None:
        """Everything is as it was: images, replicas, versions, and each byte of the database."""
        assert self.cluster.images() == self.images
        assert ready(self.cluster) == self.counts
        assert self.cluster.versions() == {name: {OLD} for name in SEVEN}
        after = snapshot(self.database)
        assert after.keys() == self.before.keys()
        assert [name for name in after if after[name] != self.before[name]] == []
        assert self.unfinished() == []


def until(condition: Callable[[], bool], run: Run, seconds: float = 120) -> None:
    """Wait for the moment; fail where the run ends or the time is over before it comes."""
    end = time.monotonic() + seconds
    while not condition():
        assert run.process.poll() is None, f"it ended before the moment came:\n{run.text}"
        assert time.monotonic() < end, f"the moment never came:\n{run.text}"
        time.sleep(0.05)


def kill(run: Run) -> None:
    run.process.kill()
    assert run.process.wait(10) == -signal.SIGKILL, run.text


def stopped_well(text: str) -> bool:
    return all(part in text for part in ("Observed:", "Safe now:", "Next:")) and "Traceback" not in text


@pytest.fixture
def database() -> Iterator[Client]:
    with MongoClient[dict[str, Any]](os.environ["REALCLUSTER_MONGO_URI"], serverSelectionTimeoutMS=60_000) as client:
        yield client


_as_it_was: list[bool] = []
"""Whether the last test left the installation as it had found it; else it is made anew."""


@pytest.fixture
def site(cluster: Cluster, database: Client, monkeypatch: pytest.MonkeyPatch) -> Site:
    if not (_as_it_was and _as_it_was.pop()):
        monkeypatch.setenv("REALCLUSTER_MIGRATION_SECONDS", str(MIGRATION_SECONDS))
        monkeypatch.setenv("REALCLUSTER_BULK_MB", str(BULK_MB))
        cluster.reset()
        cluster.import_images(NEW)
    return Site(cluster, database)


def test_killed_in_mid_migration_then_in_mid_restore(site: Site) -> None:
    cluster, generations = site.cluster, site.cluster.generations()
    run = site.upgrade_until_it_migrates()
    kill(run)
    assert site.migrating(), "the fault did not land in the middle of the migration"
    assert site.unfinished()
    seconds, text = site.resume()
    print(f"resume of an upgrade killed in mid-migration: {seconds:.1f} s")
    assert cluster.images() == {name: repository(name, NEW) for name in SEVEN}
    assert cluster.versions() == {name: {NEW} for name in SEVEN}
    assert {name: n - generations[name] for name, n in cluster.generations().items()} == dict.fromkeys(SEVEN, 1), text
    assert len(list((cluster.backups / "backups").glob("*.archive"))) == 1
    assert site.unfinished() == []

    run = site.rollback_until_it_restores()
    kill(run)
    assert site.restoring(), "the fault did not land in the middle of the restore"
    assert cluster.get("deployment", "manager", "-n", "apinizer")["spec"]["replicas"] == 0
    generation = cluster.generations()[MANAGER]
    seconds, text = site.resume()
    print(f"resume of a rollback killed in mid-restore: {seconds:.1f} s")
    assert cluster.generations()[MANAGER] == generation + 2, text  # its image, and one pod: nothing was done twice
    site.assert_back()
    _as_it_was.append(True)


def test_frozen_in_mid_restore_for_longer_than_its_lock(site: Site) -> None:
    kill(site.upgrade_until_it_migrates())
    frozen = site.rollback_until_it_restores()
    frozen.process.send_signal(signal.SIGSTOP)
    try:
        assert site.restoring(), "the fault did not land in the middle of the restore"
        seconds, _ = site.resume()
        print(f"taken over from a frozen rollback: {seconds:.1f} s")
        assert frozen.process.poll() is None
        site.assert_back()
        generations = site.cluster.generations()
    finally:
        frozen.process.send_signal(signal.SIGCONT)
    code, _ = frozen.wait()
    assert code in {1, 3}, frozen.text
    assert "Traceback" not in frozen.text
    assert site.cluster.generations() == generations
    site.assert_back()
    _as_it_was.append(True)


def test_the_api_server_restarts_in_mid_restore(site: Site) -> None:
    kill(site.upgrade_until_it_migrates())
    run = site.rollback_until_it_restores()
    restart = site.cluster.restart("kube-apiserver", AWAY_SECONDS)
    try:
        until(lambda: not answers(site.cluster), run, 20)
        assert site.restoring(), "the fault did not land in the middle of the restore"
    finally:
        assert restart.wait(120) == 0
    code, seconds = run.wait()
    print(f"rollback with the API server away for {AWAY_SECONDS} s: exit code {code} after {seconds:.1f} s")
    if code:
        assert stopped_well(run.text), run.text
        seconds, _ = site.resume()
        print(f"gone on with in {seconds:.1f} s")
    site.assert_back()
    _as_it_was.append(True)


def answers(cluster: Cluster) -> bool:
    """Whether anything listens where the API server does."""
    address = yaml.safe_load(Path(cluster.kubeconfig).read_text())["clusters"][0]["cluster"]["server"]
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        urllib.request.urlopen(f"{address}/livez", timeout=2, context=context).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
