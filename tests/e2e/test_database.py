"""Backup, proof and restore on the real cluster, and its database taken away in the middle of a dump."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bson
import pytest
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS
from pymongo import MongoClient

from tasks.database.place import Place, judge

DB = "apinizerdb"
BULK = "bulk"
MEGABYTE = 1_000_000

Client = MongoClient[dict[str, Any]]
Snapshot = dict[str, tuple[dict[str, Any], list[bytes], list[bytes]]]


@pytest.fixture(scope="module")
def address() -> str:
    """The database's address, with its password: for the environment of a process, never for its arguments."""
    return os.environ["REALCLUSTER_MONGO_URI"]


@pytest.fixture
def database(address: str) -> Iterator[Client]:
    with Client(address, serverSelectionTimeoutMS=60_000) as client:
        yield client


def snapshot(client: Client) -> Snapshot:
    """Every collection as the wire gives it: type and options, index definitions, documents; bytes, sorted."""
    found: Snapshot = {}
    for info in client[DB].list_collections():
        name = info["name"]
        if name == "system.views":
            continue
        view = info["type"] == "view"
        indexes = [] if view else client[DB].command("listIndexes", name)["cursor"]["firstBatch"]
        raw = client[DB].get_collection(name, codec_options=DEFAULT_RAW_BSON_OPTIONS)
        documents = [] if view else sorted(bytes(document.raw) for document in raw.find())
        found[name] = (
            {"type": info["type"], "options": info.get("options", {})},
            sorted(map(bson.encode, indexes)),
            documents,
        )
    return found


def enrich(client: Client) -> None:
    """What the installation's own database lacks: options, views, odd names, large and empty collections."""
    db = client[DB]
    db.create_collection("checked", validator={"$jsonSchema": {"required": ["a"]}}, validationLevel="moderate")
    db["checked"].insert_many([{"_id": i, "a": i} for i in range(500)])
    db["checked"].create_index([("a", -1), ("_id", 1)], name="odd name.ü", unique=True)
    db["checked"].create_index("b", partialFilterExpression={"b": {"$gt": 1.5}})
    db["checked"].create_index("c", collation={"locale": "tr", "strength": 2}, sparse=True)
    db.create_collection("capped", capped=True, size=1 << 20, max=100)
    db["capped"].insert_many([{"n": i} for i in range(50)])
    db.create_collection("empty", collation={"locale": "tr"})
    db.create_collection("proxies enabled", viewOn="api_proxy", pipeline=[{"$match": {"enabled": True}}])
    for name in ("a.b.c", "mit Umlaut ü", "n" * 200):
        db[name].insert_one({"_id": name})
    room = 16 * 1024 * 1024 - len(bson.encode({"_id": 1, "s": ""}))
    db["large"].insert_one({"_id": 1, "s": "x" * room})


def manager_to(cluster: Any, replicas: int) -> None:
    cluster.kubectl("scale", "-n", "apinizer", "deployment/manager", f"--replicas={replicas}")
    if replicas:
        cluster.kubectl("rollout", "status", "-n", "apinizer", "deployment/manager", "--timeout=120s")
        return
    cluster.kubectl("wait", "-n", "apinizer", "--for=delete", "pod", "-l", "app=manager", "--timeout=120s")


def archives(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.archive"))


def test_drop_everything_and_put_it_back(cluster: Any, database: Client) -> None:
    cluster.reset()
    enrich(database)
    before = snapshot(database)
    backups = cluster.backups / "backups"

    code, text = cluster.run("backup", "--backup-dir", str(backups))
    assert code == 0, text
    (archive,) = archives(backups)
    assert "2025.04.3" in archive.name
    assert "password" not in text.lower()

    code, text = cluster.run("verify", str(archive), "-o", "json")
    assert code == 0, text
    assert json.loads(text)["documents"] == sum(len(documents) for _, _, documents in before.values())

    code, text = cluster.run("restore", str(archive), "--yes", "--backup-dir", str(backups))
    assert code == 3, text
    assert "manager" in text
    assert snapshot(database) == before

    manager_to(cluster, 0)
    for name in database[DB].list_collection_names():
        database[DB].drop_collection(name)
    assert snapshot(database) == {}
    code, text = cluster.run("restore", str(archive), "--yes", "--backup-dir", str(backups))
    assert code == 0, text
    after = snapshot(database)
    assert after.keys() == before.keys()
    for name, wanted in before.items():
        assert after[name] == wanted, name
    manager_to(cluster, 1)  # It accepts what was put back: its pod becomes Ready.

    code, text = cluster.run("backups", "--backup-dir", str(backups), "-o", "json")
    assert code == 0, text
    assert archive.name in text


def test_places_of_a_real_pod(cluster: Any) -> None:
    """A container's own file system, both kinds of emptyDir and a folder of the node, as a kubelet mounts them."""
    image = cluster.images()["apinizer/manager"]
    volumes = {
        "disk": {"emptyDir": {}},
        "memory": {"emptyDir": {"medium": "Memory"}},
        "host": {"hostPath": {"path": "/srv"}},
    }
    container = {
        "name": "c", "image": image, "imagePullPolicy": "Never", "command": ["sleep", "600"],
        "volumeMounts": [{"name": name, "mountPath": f"/on/{name}"} for name in volumes],
    }  # fmt: skip
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "places", "namespace": "apinizer"},
        "spec": {
            "terminationGracePeriodSeconds": 0, "containers": [container],
            "volumes": [{"name": name, **volume} for name, volume in volumes.items()],
        },
    }  # fmt: skip
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    try:
        cluster.kubectl("wait", "-n", "apinizer", "--for=condition=Ready", "pod/places", "--timeout=90s")
        mounts = cluster.kubectl("exec", "-n", "apinizer", "places", "--", "cat", "/proc/self/mountinfo")
    finally:
        cluster.kubectl("delete", "-n", "apinizer", "pod/places", "--wait=false")

    def judged(directory: str) -> Place:
        return judge(directory, mounts, container=False, kubernetes=True)

    assert "own file system" in judged("/backups").ephemeral
    assert "emptyDir" in judged("/on/disk/backups").ephemeral
    assert "in memory" in judged("/on/memory").ephemeral
    assert judged("/on/host/backups").ephemeral == judged("/on/host/backups").warning == ""


@pytest.fixture
def bulk(database: Client) -> Iterator[int]:
    """240 MB that no compression shrinks, gone after the test; how many documents."""
    count = 240
    for start in range(0, count, 20):
        database[DB][BULK].insert_many([{"_id": start + i, "blob": os.urandom(MEGABYTE)} for i in range(20)])
    yield count
    with Client(os.environ["REALCLUSTER_MONGO_URI"], serverSelectionTimeoutMS=60_000) as again:
        again[DB].drop_collection(BULK)


def test_the_database_goes_away_for_10_seconds_in_mid_dump(cluster: Any, address: str, bulk: int) -> None:
    """A complete backup by another try, or a clear refusal; in either case nothing else that looks like one."""
    backups = cluster.backups / "backups"
    run = cluster.start("backup", "--backup-dir", str(backups))
    run.at(f"{BULK}: ")  # The first of its batches came, most of the documents did not.
    partial = [path for path in backups.iterdir() if path.name.endswith(".partial")]
    assert len(partial) == 1
    restart = cluster.restart("mongo", 10)
    try:
        with Client(address, serverSelectionTimeoutMS=500) as probe:
            limit = time.monotonic() + 30
            while True:
                try:
                    probe.admin.command("ping")
                except Exception:  # noqa: BLE001 - gone, in whatever way
                    break
                assert time.monotonic() < limit, "the database did not go away"
        written = archives(backups)
        assert written == [], f"the dump was over before the database went away:\n{run.text}"
        code, _ = run.wait()
    finally:
        restart.wait(60)
    if code == 0:
        (archive,) = archives(backups)
        done, text = cluster.run("verify", str(archive), "-o", "json")
        assert done == 0, text
        found = {record["collection"]: record["documents"] for record in json.loads(text)["namespaces"]}
        assert found[BULK] == bulk
        assert "Trying again." in run.text, run.text
    else:
        assert archives(backups) == []
        assert "Observed:" in run.text
        assert "Next:" in run.text
    assert [path.name for path in backups.iterdir() if path.name.endswith(".partial")] == []
