"""The client: typed errors, retries in sight, bounded time, no secrets."""

import random
import time

import pytest
from kubernetes.client import ApiClient, Configuration

from tasks.cluster.answers import Access, GoneError, Request, ServerAwayError, access, clean
from tasks.cluster.api import KubernetesApi
from tasks.cluster.retry import Retry, backoff, pause
from tasks.domain.errors import (
    ConflictError,
    ForbiddenError,
    NotFoundError,
    TemporaryError,
    UnauthorizedError,
    UpgradeError,
)

PODS = "/api/v1/namespaces/prod/pods"


def dice(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - jitter, not a secret


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, UnauthorizedError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (409, ConflictError),
        (410, GoneError),
        (422, UpgradeError),
    ],
)
def test_each_status_has_its_error_and_no_second_try(server, api, status, kind) -> None:
    server.faults.extend([status, status])
    with pytest.raises(kind, match=f"scripted {status}") as caught:
        api.get(f"{PODS}/x", fieldManager="m")
    assert type(caught.value) is kind
    assert len(server.requests) == 1
    text = str(caught.value)
    assert "very-secret-token" not in text
    assert "in prod" in text, "the cluster is named"
    assert {k.lower(): v for k, v in server.headers[0].items()}["authorization"] == "Bearer very-secret-token"


@pytest.mark.parametrize("status", [429, 500, 503, 504])
def test_reads_are_tried_again(server, api, status) -> None:
    server.put("pods", {"metadata": {"name": "x"}})
    server.faults.extend([status, status])
    assert api.get(f"{PODS}/x")["metadata"]["name"] == "x"
    assert len(server.requests) == 3


@pytest.mark.parametrize(("status", "requests"), [(429, 2), (500, 1), (503, 1)])
def test_writes_are_tried_again_only_where_they_surely_had_no_effect(server, api, status, requests) -> None:
    server.faults.append(status)
    with pytest.raises(UpgradeError):
        api.create(PODS + "x", {})
    assert len(server.requests) == requests


def test_a_list_comes_in_pages(server, api) -> None:
    for number in range(1201):
        server.objects["pods"][f"p{number:04}"] = {"metadata": {"name": f"p{number:04}", "uid": str(number)}}
    listing = api.list(PODS, labels="app=gw")
    assert [item["metadata"]["name"] for item in listing.items] == [f"p{n:04}" for n in range(1201)]
    assert listing.resource_version == str(server.version)
    assert [q.get("continue") for _, _, q in server.requests] == [None, "500", "1000"]
    assert {q["labelSelector"] for _, _, q in server.requests} == {"app=gw"}


def test_a_list_whose_page_expired_begins_again(server, api) -> None:
    for number in range(600):
        server.objects["pods"][f"p{number}"] = {"metadata": {"name": f"p{number}", "uid": str(number)}}
    server.faults.extend([0, 410])  # 0: no fault
    server.faults[0] = ""
    assert len(api.list(PODS).items) == 600
    assert len(server.requests) == 4


def test_a_slow_drip_ends_with_the_request_s_time(server) -> None:
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{server.port}"
    api = KubernetesApi(ApiClient(configuration), timeout=0.5, retry=Retry(0))
    server.faults.append("drip")
    begin = time.monotonic()
    with pytest.raises(ServerAwayError, match=r"not whole after 0\.5 s"):
        api.get(f"{PODS}/x")
    assert time.monotonic() - begin < 20  # the whole drip takes 50


def test_a_server_that_is_not_there(server, api) -> None:
    server.stop()
    with pytest.raises(ServerAwayError, match="could not be reached") as caught:
        api.patient(0.2).get(PODS)
    assert caught.value.unsent


def test_a_restarting_server_is_waited_for_even_by_a_write(server, api, controllers) -> None:
    import threading

    server.stop()
    threading.Timer(0.5, server.start).start()
    path = "/apis/apps/v1/namespaces/prod/deployments/gw"
    body = {"metadata": {}, "spec": {"template": {"spec": {"containers": []}}}}
    assert api.patient(20).patch(path, body)["metadata"]["generation"] == 4


def test_a_proxied_pod_s_own_refusal_is_an_answer_and_the_server_s_is_an_error(server, api) -> None:
    server.answers["/x"] = lambda _: (403, b"<html>login</html>")
    assert api.answer("/x").status == 403
    server.faults.append(403)
    with pytest.raises(ForbiddenError):
        api.answer("/x")


def test_a_login_that_fails_is_said(server) -> None:
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{server.port}"

    def hook(_: Configuration) -> None:
        raise RuntimeError("exec: cloud-login exited with 1, Bearer abcdefghijklmno")

    configuration.refresh_api_key_hook = hook
    configuration.api_key = {"authorization": "x"}
    with pytest.raises(UnauthorizedError, match="cloud-login exited with 1") as caught:
        KubernetesApi(ApiClient(configuration)).get(PODS)
    assert "abcdefghijklmno" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "path", "watch", "expected"),
    [
        ("GET", "/api/v1/namespaces/prod/pods/x/log", False, Access("get", "pods/log", "prod", "x")),
        ("GET", "/api/v1/namespaces/prod/pods", True, Access("watch", "pods", "prod")),
        ("GET", "/api/v1/nodes", False, Access("list", "nodes")),
        ("GET", "/api/v1/namespaces/prod", False, Access("get", "namespaces", "", "prod")),
        (
            "PATCH",
            "/apis/apps/v1/namespaces/prod/deployments/gw",
            False,
            Access("patch", "deployments.apps", "prod", "gw"),
        ),
        (
            "POST",
            "/apis/coordination.k8s.io/v1/namespaces/a/leases",
            False,
            Access("create", "leases.coordination.k8s.io", "a"),
        ),
    ],
)
def test_the_permission_that_a_request_needs(method, path, watch, expected) -> None:
    assert access(Request(method, path, watch=watch)) == expected


def test_messages_hold_no_secrets() -> None:
    text = clean("at https://admin:pw@host/x with Bearer abc.def.ghi and\x00 more")
    assert text == "at https://***@host/x with Bearer *** and  more".replace("abc.def.ghi", "***")


def test_backoff_is_jittered_and_bounded() -> None:
    rng = dice(1)
    for attempt in range(40):
        top = min(8.0, 0.2 * 2 ** min(attempt, 16))
        waits = [backoff(attempt, rng) for _ in range(200)]
        assert 0 <= min(waits) < top * 0.2
        assert top * 0.8 < max(waits) <= top


def test_retry_after_is_honoured() -> None:
    error = ServerAwayError("x")
    error.retry_after = 7.0
    assert 7.0 <= pause(error, 0, dice(1)) <= 7.2


def test_patience_is_spent_and_no_more() -> None:
    slept: list[float] = []

    def act() -> None:
        raise TemporaryError("away")

    with pytest.raises(TemporaryError):
        Retry(5.0, sleep=slept.append, rng=dice(3)).call(act)
    assert sum(slept) == pytest.approx(5.0, abs=0.05)
