"""The way back on the real cluster: from a manager that crashed in its migration, and from a complete upgrade."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from .conftest import SEVEN, Cluster
from .test_database import Client, Snapshot, snapshot
from .test_upgrade import repository

OLD, BAD, NEW, NEXT = "2025.04.3", "2025.08.0", "2025.07.0", "2025.11.1"


@pytest.fixture
def database() -> Iterator[Client]:
    with MongoClient[dict[str, Any]](os.environ["REALCLUSTER_MONGO_URI"], serverSelectionTimeoutMS=60_000) as client:
        yield client


def settings(found: Snapshot) -> Snapshot:
    """What the product's components write at any time left out."""
    return {name: content for name, content in found.items() if name not in ("apinizer_log", "audit_event")}


def backup_of(cluster: Cluster) -> str:
    """The beginning of the SHA-256 of the backup of before the upgrade."""
    (archive,) = (path for path in (cluster.backups / "backups").glob("*.archive") if OLD in path.name)
    return str(json.loads(Path(f"{archive}.json").read_text())["sha256"])[:12]


def ready(cluster: Cluster) -> dict[str, tuple[int, int]]:
    return {
        f"{d['metadata']['namespace']}/{d['metadata']['name']}": (
            d["spec"]["replicas"],
            d["status"].get("readyReplicas", 0),
        )
        for d in cluster.get("deployments", "-A")["items"]
    }


def test_back_from_a_crashed_migration_then_on_to_another_release(cluster: Cluster, database: Client) -> None:
    cluster.reset()
    cluster.import_images(BAD)
    cluster.import_images(NEW)
    limited = cluster.limited_kubeconfig()
    images, counts, before = cluster.images(), ready(cluster), settings(snapshot(database))
    code, text = cluster.run("upgrade", "--to", BAD, KUBECONFIG=limited)
    assert code == 1, text
    assert "apinizer-upgrade rollback" in text
    broken = snapshot(database)
    assert any(name.startswith("introduced_") for name in broken)

    code, text = cluster.run("rollback", "--dry-run", KUBECONFIG=limited)
    assert code == 0, text
    assert "introduced_" in text
    code, text = cluster.run("rollback", KUBECONFIG=limited)
    assert code == 2, text
    assert cluster.images()["apinizer/manager"] == repository("apinizer/manager", BAD)

    run = cluster.start("rollback", "--backup", backup_of(cluster), KUBECONFIG=limited)
    code, seconds = run.wait()
    print(f"rollback of a crashed migration: {seconds:.1f} s")
    assert code == 0, run.text
    assert run.at("no pod left") < run.at("every collection checked") < run.at("apinizer/manager: image set")
    assert cluster.images() == images
    assert ready(cluster) == counts
    assert cluster.versions() == {name: {OLD} for name in SEVEN}
    after = settings(snapshot(database))
    assert after == before
    assert not any(name.startswith("introduced_") for name in after)

    code, text = cluster.run("upgrade", "--to", NEW, "--together", KUBECONFIG=limited)
    assert code == 0, text
    assert cluster.images() == {name: repository(name, NEW) for name in SEVEN}


@pytest.mark.part
def test_back_across_both_renames_after_all_was_upgraded(cluster: Cluster, database: Client) -> None:
    cluster.reset()
    cluster.import_images(NEXT)
    images, counts, before = cluster.images(), ready(cluster), settings(snapshot(database))
    code, text = cluster.run("upgrade", "--to", NEXT, "--together")
    assert code == 0, text
    assert cluster.images() == {name: repository(name, NEXT) for name in SEVEN}

    run = cluster.start("rollback", "--backup", backup_of(cluster))
    code, seconds = run.wait()
    print(f"rollback of a complete upgrade: {seconds:.1f} s")
    assert code == 0, run.text
    assert cluster.images() == images
    assert ready(cluster) == counts
    assert cluster.versions() == {name: {OLD} for name in SEVEN}
    assert settings(snapshot(database)) == before
    history = cluster.kubectl("rollout", "history", "-n", "apinizer", "deployment/manager")
    assert "rollback of" in history


@pytest.mark.part
def test_an_upgrade_goes_back_by_itself_where_it_was_told_to(cluster: Cluster, database: Client) -> None:
    cluster.reset()
    cluster.import_images(BAD)
    images, before = cluster.images(), settings(snapshot(database))
    code, text = cluster.run("upgrade", "--to", BAD, "--on-failure", "rollback")
    assert code == 1, text
    assert "It was rolled back" in text
    assert cluster.images() == images
    assert cluster.versions() == {name: {OLD} for name in SEVEN}
    assert settings(snapshot(database)) == before
