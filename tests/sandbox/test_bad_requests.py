"""Requests that a client should not make: each a clear refusal, never a broken server."""

import pytest

from .client import Client

PODS = "/api/v1/namespaces/prod/pods"


@pytest.mark.parametrize(
    "path",
    [
        f"{PODS}?limit=many",
        f"{PODS}?watch=true&timeoutSeconds=soon",
        f"{PODS}?watch=true&resourceVersion=new",
        f"{PODS}?labelSelector=a b",
        f"{PODS}?fieldSelector=spec.colour=red",
        f"{PODS}?continue=nonsense",
    ],
)
def test_queries_that_cannot_be_read(client: Client, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("POST", "/api/v1/namespaces/default/configmaps", "{", 400),
        ("POST", "/api/v1/namespaces/default/configmaps", "[]", 400),
        ("POST", "/api/v1/namespaces/default/configmaps", '{"metadata": "x"}', 400),
        ("POST", "/api/v1/namespaces/default/configmaps", '{"metadata": {}}', 422),
        ("POST", "/api/v1/namespaces/nowhere/configmaps", '{"metadata": {"name": "a"}}', 404),
        ("PUT", "/apis/apps/v1/namespaces/prod/deployments/worker-prod", '{"metadata": {"name": "other"}}', 400),
        ("POST", "/apis/apps/v1/namespaces/prod/deployments/worker-prod", '{"metadata": {"name": "other"}}', 405),
        ("PUT", "/apis/apps/v1/namespaces/prod/deployments", "{}", 405),
        ("GET", "/apis/apps/v1/namespaces/prod/deployments/none", "", 404),
        ("GET", "/apis/apps/v1/namespaces/prod/gateways", "", 404),
        ("GET", "/apis/nothing.example/v1/things", "", 404),
        ("GET", "/nothing", "", 404),
    ],
)
def test_requests_that_are_refused(client: Client, method: str, path: str, body: str, code: int) -> None:
    answer = client.request(method, path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == code, answer.text


@pytest.mark.parametrize(
    "spec", ['{"replicas": "two"}', '{"template": 1}', '{"selector": null}', '{"strategy": "Recreate"}', "7"]
)
def test_specs_of_wrong_types(client: Client, spec: str) -> None:
    body = '{"metadata": {"name": "bad"}, "spec": ' + spec + "}"
    answer = client.post(
        "/apis/apps/v1/namespaces/prod/deployments", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["kind"] == "Status"


def test_strangers(client: Client) -> None:
    assert client.get("/api/v1/pods", headers={"Authorization": "Bearer wrong"}).status_code == 401
    del client.headers["Authorization"]
    answer = client.get("/api/v1/pods")
    assert answer.status_code == 403
    assert 'User "system:anonymous" cannot list resource "pods"' in answer.json()["message"]
    assert client.get("/readyz").text == "ok"
