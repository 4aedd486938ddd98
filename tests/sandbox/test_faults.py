"""Every fault that can be switched on does what it says, over real HTTP; and ends when it is switched off."""

import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deployments.sandbox.launch import Sandbox, SandboxError

from .client import Client, JsonObject

PODS = "/api/v1/namespaces/prod/pods"
MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture(autouse=True)
def as_it_was(sandbox: Sandbox) -> Iterator[None]:
    before = sandbox.faults()
    yield
    sandbox.faults(**before)


def make_map(client: Client, name: str) -> str:
    """A configmap more; returns its resourceVersion."""
    answer = client.post(MAPS, json={"metadata": {"generateName": f"{name}-"}})
    answer.raise_for_status()
    return str(answer.json()["metadata"]["resourceVersion"])


def version(client: Client) -> str:
    return str(client.see(MAPS)["metadata"]["resourceVersion"])


def test_a_write_lands_and_its_answer_is_lost(sandbox: Sandbox, client: Client) -> None:
    before = len(client.see(MAPS)["items"])
    sandbox.fail_requests(code=504, path="configmaps", methods=("POST",), count=1, landed=True)
    answer = client.post(MAPS, json={"metadata": {"generateName": "landed-"}})
    assert answer.status_code == 504
    assert answer.json()["kind"] == "Status"
    assert len(client.see(MAPS)["items"]) == before + 1
    assert sandbox.audit()[-1]["status"] == 201, "the audit tells what was done"
    make_map(client, "heard")


def test_watches_end_cleanly_after_some_events(sandbox: Sandbox, client: Client) -> None:
    since = version(client)
    for _ in range(3):
        make_map(client, "drop")
    sandbox.faults(drop_watches_after=2)
    assert len(list(client.events(MAPS, resourceVersion=since))) == 2


def test_watches_break_off_after_some_events(sandbox: Sandbox, client: Client) -> None:
    since = version(client)
    for _ in range(3):
        make_map(client, "break")
    sandbox.faults(break_watches_after=1)
    seen = []
    with pytest.raises(httpx.RemoteProtocolError):
        seen.extend(client.events(MAPS, resourceVersion=since))


def test_all_watches_end_now(sandbox: Sandbox, client: Client) -> None:
    since = version(client)
    make_map(client, "now")
    seen = []
    for event in client.events(MAPS, seconds=60, resourceVersion=since):
        seen.append(event["type"])
        sandbox.drop_watches()
    assert seen == ["ADDED"]


def test_half_open_watches_say_nothing(sandbox: Sandbox, client: Client) -> None:
    sandbox.faults(half_open_watches=True, bookmark_seconds=0.1)
    since = version(client)
    make_map(client, "silent")
    assert list(client.events(MAPS, seconds=1, resourceVersion=since, allowWatchBookmarks="true")) == []


def test_bookmarks_come_while_nothing_happens(sandbox: Sandbox, client: Client) -> None:
    sandbox.faults(bookmark_seconds=0.1)
    seen = list(
        client.events(
            "/apis/apps/v1/namespaces/default/deployments",
            seconds=1,
            resourceVersion=version(client),
            allowWatchBookmarks="true",
        )
    )
    assert {event["type"] for event in seen} == {"BOOKMARK"}
    assert len(seen) > 3
    assert seen[0]["object"]["kind"] == "Deployment"


def test_gone_as_an_event_once(sandbox: Sandbox, client: Client) -> None:
    sandbox.faults(gone_as_event=1)
    since = version(client)
    seen = list(client.events(MAPS, resourceVersion=since))
    assert [(event["type"], event["object"]["code"], event["object"]["reason"]) for event in seen] == [
        ("ERROR", 410, "Expired")
    ]
    assert list(client.events(MAPS, seconds=1, resourceVersion=since)) == []


def test_gone_as_a_status_once(sandbox: Sandbox, client: Client) -> None:
    sandbox.faults(gone_as_status=1)
    answer = client.get(MAPS, params={"watch": "true", "resourceVersion": version(client)})
    assert (answer.status_code, answer.json()["reason"]) == (410, "Expired")
    assert list(client.events(MAPS, seconds=1, resourceVersion=version(client))) == []


def test_compaction_makes_everything_known_too_old(sandbox: Sandbox, client: Client) -> None:
    since = version(client)
    page = client.see("/api/v1/pods", limit=2)["metadata"]["continue"]
    sandbox.compact()
    (seen,) = client.events(MAPS, resourceVersion=since)
    assert seen["object"]["message"].startswith(f"too old resource version: {since} (")
    answer = client.get("/api/v1/pods", params={"limit": 2, "continue": page})
    assert (answer.status_code, answer.json()["reason"]) == (410, "Expired")


@pytest.mark.parametrize(
    ("code", "reason"),
    [(500, "InternalError"), (503, "ServiceUnavailable"), (504, "Timeout"), (429, "TooManyRequests")],
)
def test_requests_fail_so_many_times(sandbox: Sandbox, client: Client, code: int, reason: str) -> None:
    sandbox.fail_requests(code, path=r"/configmaps$", count=2, methods=("GET",), retry_after=7)
    answers = [client.get(MAPS) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [code, code, 200]
    assert answers[0].json()["reason"] == reason
    assert answers[0].headers.get("Retry-After") == ("7" if code == 429 else None)


def test_only_watches_fail(sandbox: Sandbox, client: Client) -> None:
    sandbox.fail_requests(503, path=r"\?watch$", count=1)
    assert client.get(MAPS).status_code == 200
    assert client.get(MAPS, params={"watch": "true"}).status_code == 503


def test_latency(sandbox: Sandbox, client: Client) -> None:
    sandbox.faults(latency_seconds=0.4)
    begun = time.monotonic()
    client.see(MAPS)
    assert time.monotonic() - begun >= 0.4


def test_the_api_goes_down_and_comes_back(sandbox: Sandbox, client: Client) -> None:
    since = version(client)
    sandbox.api_down(1.0)
    refused = 0
    end = time.monotonic() + 20
    came_back = False
    while time.monotonic() < end and not (refused and came_back):
        try:
            came_back = client.get("/readyz").status_code == 200 and refused > 0
        except httpx.TransportError as error:
            refused += isinstance(error, httpx.ConnectError)
        time.sleep(0.05)
    assert refused
    assert came_back
    make_map(client, "after")
    assert [event["type"] for event in client.events(MAPS, seconds=1, resourceVersion=since)] == ["ADDED"], (
        "nothing is lost"
    )


def test_an_open_watch_breaks_when_the_api_goes_down(sandbox: Sandbox, client: Client) -> None:
    since = version(client)
    make_map(client, "open")
    events = client.events(MAPS, seconds=60, resourceVersion=since)
    assert next(events)["type"] == "ADDED"
    sandbox.api_down(0.3)
    with pytest.raises(httpx.TransportError):
        next(events)
    end = time.monotonic() + 20
    while not is_up(client) and time.monotonic() < end:
        time.sleep(0.05)
    assert is_up(client)


def is_up(client: Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_an_image_that_one_node_cannot_get(sandbox: Sandbox, client: Client) -> None:
    image = "apinizercloud/integration:2025.07.0"
    sandbox.lose_image(image, "node-a", "node-b")
    client.set_image("integration", "apinizer-integration", "integration", image)
    seen = client.waiting("integration", "ErrImagePull")["state"]["waiting"]
    assert seen["message"].endswith(f"docker.io/{image}: not found")
    assert (
        client.waiting("integration", "ImagePullBackOff")["state"]["waiting"]["message"]
        == f'Back-off pulling image "{image}"'
    )
    events = client.see("/api/v1/namespaces/integration/events", fieldSelector="involvedObject.kind=Pod,type=Warning")[
        "items"
    ]
    assert {"Error: ErrImagePull", "Error: ImagePullBackOff"} <= {event["message"] for event in events}
    for node in ("node-a", "node-b"):
        sandbox.load_image(image, node)
    client.until(
        "/api/v1/namespaces/integration/pods", lambda pods: any(has_run(pod, image) for pod in pods["items"]), 60
    )


def has_run(pod: JsonObject, image: str) -> bool:
    found = pod["status"].get("containerStatuses", [])
    return any(one["image"].endswith(image) and ("running" in one["state"] or one["restartCount"]) for one in found)


def test_a_registry_that_is_out_of_reach(sandbox: Sandbox, client: Client) -> None:
    sandbox.faults(unreachable_registries=["nexus.local:8082"])
    client.set_image("portal", "apinizer-portal", "portal", "nexus.local:8082/apinizercloud/portal:2025.04.3")
    message = client.waiting("portal", "ErrImagePull")["state"]["waiting"]["message"]
    assert (
        'Head "https://nexus.local:8082/v2/apinizercloud/portal/manifests/2025.04.3": dial tcp: lookup nexus.local'
        in message
    )
    sandbox.faults(unreachable_registries=[])
    client.roll_out("portal", "apinizer-portal", 60)


def test_a_release_that_crashes_and_one_that_hangs(sandbox: Sandbox, client: Client) -> None:
    sandbox.faults(crashing=["cache:2025.04.3"], hanging=["worker:*"])
    for name in ("cache", "worker"):
        patch = {"spec": {"template": {"metadata": {"annotations": {"again": "1"}}}}}
        headers = {"Content-Type": "application/merge-patch+json"}
        client.patch(f"/apis/apps/v1/namespaces/test/deployments/{name}", content=json.dumps(patch), headers=headers)
    client.waiting("test", "CrashLoopBackOff")
    path = "/apis/apps/v1/namespaces/test/deployments/worker"
    late = client.until(path, lambda one: reason_of(one) == "ProgressDeadlineExceeded", 60)
    assert late["status"]["unavailableReplicas"] == 1
    sandbox.faults(crashing=[], hanging=[])


def reason_of(deployment: JsonObject) -> str:
    return next((one["reason"] for one in deployment["status"]["conditions"] if one["type"] == "Progressing"), "")


def test_pods_that_are_refused(sandbox: Sandbox, client: Client) -> None:
    sandbox.faults(refused_pods={"prod": "no more of them"})
    client.set_image("prod", "worker-prod", "worker", "apinizercloud/worker:2025.07.0")
    path = "/apis/apps/v1/namespaces/prod/deployments/worker-prod"

    def failure(one: JsonObject) -> list[JsonObject]:
        return [found for found in one["status"]["conditions"] if found["type"] == "ReplicaFailure"]

    (seen,) = failure(client.until(path, failure))
    assert (seen["status"], seen["reason"]) == ("True", "FailedCreate")
    assert seen["message"].endswith("is forbidden: no more of them")


def test_controllers_that_stand_still(sandbox: Sandbox, client: Client) -> None:
    sandbox.faults(stalled_controllers=True)
    path = "/apis/apps/v1/namespaces/integration/deployments/apinizer-integration"
    changed = client.set_image(
        "integration", "apinizer-integration", "integration", "apinizercloud/integration:2025.11.1"
    )
    time.sleep(0.5)
    assert client.see(path)["status"]["observedGeneration"] < changed["metadata"]["generation"]
    sandbox.faults(stalled_controllers=False)
    client.until(path, lambda one: one["status"]["observedGeneration"] == changed["metadata"]["generation"])


def test_a_user_who_may_only_look(sandbox: Sandbox, tmp_path: Path) -> None:
    rules: list[JsonObject] = [{"verbs": ["get", "list"], "apiGroups": ["apps"], "resources": ["deployments"]}]
    token = sandbox.restricted_token("reader", "prod", rules)
    with Client(sandbox, token) as reader:
        assert reader.get("/apis/apps/v1/namespaces/prod/deployments").status_code == 200
        refused = reader.get("/apis/apps/v1/deployments")
        assert refused.status_code == 403
        assert (
            refused.json()["message"]
            == 'deployments.apps is forbidden: User "reader" cannot list resource "deployments" in API group "apps" at the cluster scope'
        )
        refused = reader.delete("/apis/apps/v1/namespaces/prod/deployments/worker-prod")
        assert refused.json()["message"].startswith(
            'deployments.apps "worker-prod" is forbidden: User "reader" cannot delete resource'
        )
        assert reader.post("/sandbox/faults", json={}).status_code == 401
    path = sandbox.restricted_kubeconfig(tmp_path / "reader", "reader", "prod", rules)
    assert path.stat().st_mode & 0o077 == 0


def test_orders_that_make_no_sense(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match="no such fault: latency"):
        sandbox.faults(latency=1)
    with pytest.raises(SandboxError, match="no such action: explode"):
        sandbox.do("explode")


def test_the_server_proves_who_it_is(sandbox: Sandbox) -> None:
    with pytest.raises(httpx.ConnectError, match="certificate"):
        httpx.get(f"{sandbox.api_url}/readyz", verify=ssl.create_default_context())


def test_every_write_is_in_the_audit(sandbox: Sandbox, client: Client) -> None:
    last = max((one["seq"] for one in sandbox.audit()), default=0)
    client.see(MAPS)
    client.post(MAPS, json={"metadata": {"name": "audited"}}, headers={"User-Agent": "somebody"}).raise_for_status()
    assert client.post(MAPS, json={"metadata": {"name": "audited"}}).status_code == 409
    client.delete(f"{MAPS}/audited").raise_for_status()
    writes = sandbox.audit(after=last)
    assert [(one["method"], one["path"], one["status"]) for one in writes] == [
        ("POST", MAPS, 201),
        ("POST", MAPS, 409),
        ("DELETE", f"{MAPS}/audited", 200),
    ]
    assert writes[0]["agent"] == "somebody"
    assert writes[0]["body"]["metadata"]["name"] == "audited"
    assert [one["seq"] for one in writes] == [last + 1, last + 2, last + 3]
