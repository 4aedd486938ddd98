"""What the components do, seen through the API: the right order works, every wrong one fails for real."""

import json
import time
from collections.abc import Iterator

import pymongo
import pytest

from deployments.sandbox.launch import Sandbox

from .client import Client, JsonObject, statuses

NEW = "2025.07.0"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(speed=10) as started:
        yield started


def schema(sandbox: Sandbox) -> JsonObject:
    with pymongo.MongoClient[JsonObject](sandbox.mongo_uri, serverSelectionTimeoutMS=5000) as client:
        found = client.apinizerdb.apinizer_schema.find_one()
        names = set(client.apinizerdb.list_collection_names())
        migrated = client.apinizerdb.api_proxy.count_documents({"migrated_2025_07_0": True})
        return {
            "version": found["version"] if found else "",
            "introduced": sorted(n for n in names if n.startswith("introduced")),
            "migrated": migrated,
        }


def log_of(client: Client, namespace: str, **query: str) -> str:
    pods = client.see(f"/api/v1/namespaces/{namespace}/pods")["items"]
    newest = max(pods, key=lambda pod: (pod["metadata"]["creationTimestamp"], int(pod["metadata"]["resourceVersion"])))
    answer = client.get(f"/api/v1/namespaces/{namespace}/pods/{newest['metadata']['name']}/log", params=query)
    answer.raise_for_status()
    return answer.text


def test_the_manager_first_then_the_others(sandbox: Sandbox, client: Client) -> None:
    client.set_image("apinizer", "manager", "apinizer-manager", f"apinizercloud/manager:{NEW}")
    client.roll_out("apinizer", "manager")
    assert schema(sandbox) == {"version": NEW, "introduced": ["introduced_2025_07_0"], "migrated": 120}
    assert f"manager {NEW} migrating the database from 2025.04.3 to {NEW}" in log_of(client, "apinizer")
    client.set_image("prod", "worker-prod", "worker", f"apinizercloud/worker:{NEW}")
    client.set_image("portal", "apinizer-portal", "portal", f"apinizercloud/apiportal:{NEW}")
    client.roll_out("prod", "worker-prod")
    client.roll_out("portal", "apinizer-portal")
    for place in ("prod/services/worker-http-service:8091", "portal/services/apinizer-portal-service:http"):
        found = client.see(f"/api/v1/namespaces/{place}/proxy/apinizer/management/version")
        assert found == {"version": NEW}


def test_a_worker_before_its_manager_crash_loops_and_heals(sandbox: Sandbox, client: Client) -> None:
    client.set_image("test", "cache", "apinizer-cache", f"apinizercloud/cache:{NEW}")
    seen = client.waiting("test", "CrashLoopBackOff")
    assert seen["lastState"]["terminated"]["exitCode"] == 1
    assert seen["restartCount"] >= 1
    assert "the database is at 2025.04.3, this cache needs 2025.07.0: update the manager first" in log_of(
        client, "test"
    )
    client.set_image("apinizer", "manager", "apinizer-manager", f"apinizercloud/manager:{NEW}")
    client.roll_out("apinizer", "manager")
    client.roll_out("test", "cache", 60)


def test_back_off_grows(client: Client) -> None:
    client.set_image("test", "cache", "apinizer-cache", f"apinizercloud/cache:{NEW}")
    for seconds in ("10s", "20s", "40s"):
        client.until(
            "/api/v1/namespaces/test/pods",
            lambda pods, text=f"back-off {seconds} restarting failed container=apinizer-cache pod=cache-": any(
                one["state"]["waiting"]["message"].startswith(text) for one in statuses(pods, "CrashLoopBackOff")
            ),
        )


def test_a_manager_that_is_older_than_the_database_refuses(client: Client) -> None:
    for version in (NEW, "2025.04.3"):
        client.set_image("apinizer", "manager", "apinizer-manager", f"apinizercloud/manager:{version}")
        if version == NEW:
            client.roll_out("apinizer", "manager")
    client.waiting("apinizer", "CrashLoopBackOff")
    assert "the database is at 2025.07.0, newer than this manager: downgrade is not supported" in log_of(
        client, "apinizer"
    )


def test_the_release_that_crashes_leaves_the_database_half_way(sandbox: Sandbox, client: Client) -> None:
    client.set_image("apinizer", "manager", "apinizer-manager", "apinizercloud/manager:2025.08.0")
    client.waiting("apinizer", "CrashLoopBackOff")
    assert "migration V2025_08 left an index build unfinished" in log_of(client, "apinizer", previous="true")
    found = schema(sandbox)
    assert (found["version"], found["introduced"]) == ("2025.04.3", ["introduced_2025_08_0"])


def test_the_log_is_followed_while_the_manager_migrates(sandbox: Sandbox, client: Client) -> None:
    sandbox.faults(migration_seconds=10)
    client.set_image("apinizer", "manager", "apinizer-manager", f"apinizercloud/manager:{NEW}")

    def is_migrating(pods: JsonObject) -> bool:
        return any(
            one.get("state", {}).get("running") and one["image"].endswith(NEW)
            for pod in pods["items"]
            for one in pod["status"].get("containerStatuses", [])
        )

    found = client.until("/api/v1/namespaces/apinizer/pods", is_migrating)
    name = found["items"][-1]["metadata"]["name"]
    lines = []
    with client.stream("GET", f"/api/v1/namespaces/apinizer/pods/{name}/log", params={"follow": "true"}) as answer:
        for line in answer.iter_lines():
            lines.append(line.split(" ", 3)[3])
            if lines[-1] == "ready":
                break
    assert lines == ["starting", f"migrating the database from 2025.04.3 to {NEW}", "ready"]


def test_a_database_that_is_down_and_comes_back(sandbox: Sandbox, client: Client) -> None:
    sandbox.stop_database()
    client.set_image("test", "cache", "apinizer-cache", "apinizercloud/cache:2025.04.3")
    client.patch(
        "/apis/apps/v1/namespaces/test/deployments/cache",
        content=json.dumps({"spec": {"template": {"metadata": {"annotations": {"restarted": "1"}}}}}),
        headers={"Content-Type": "application/merge-patch+json"},
    ).raise_for_status()
    end = time.monotonic() + 40
    while "FATAL: ServerSelectionTimeoutError" not in log_of_or_nothing(client) and time.monotonic() < end:
        time.sleep(0.2)
    assert "FATAL: ServerSelectionTimeoutError" in log_of_or_nothing(client)
    sandbox.start_database()
    client.roll_out("test", "cache", 90)
    assert schema(sandbox)["version"] == "2025.04.3"


def log_of_or_nothing(client: Client) -> str:
    pods = client.see("/api/v1/namespaces/test/pods", labelSelector="app=cache")["items"]
    paths = [f"/api/v1/namespaces/test/pods/{pod['metadata']['name']}/log" for pod in pods]
    answers = [client.get(path, params={"previous": previous}) for path in paths for previous in ("true", "false")]
    return "".join(answer.text for answer in answers if answer.status_code == 200)


def test_nothing_goes_on_for_pods_that_were_deleted_by_force(sandbox: Sandbox, client: Client) -> None:
    """A probe that outlived its pod once spun until the API starved."""
    for _ in range(2):  # The second time, the pods are ones that were started and are probed.
        for pod in client.see("/api/v1/pods")["items"]:
            meta = pod["metadata"]
            path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
            client.delete(path, params={"gracePeriodSeconds": "0"})
        for namespace, name in (("prod", "worker-prod"), ("apinizer", "manager"), ("portal", "apinizer-portal")):
            client.roll_out(namespace, name)
    before = client.see("/sandbox/state")
    time.sleep(1)
    after = client.see("/sandbox/state")
    assert after["busy"] - before["busy"] < 0.6
    assert after["tasks"] < 60
