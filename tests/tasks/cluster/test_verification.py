"""Every pod is asked; what is not proven is an error that names the pod."""

import json

import pytest

from tasks.cluster.retry import Retry
from tasks.cluster.verification import Endpoint, endpoints, verify
from tasks.cluster.version_answer import healthy, verified, versions_in
from tasks.domain.component import Component
from tasks.domain.errors import DriftError, ForbiddenError, UnprovenError
from tasks.domain.version import Version

NEW = Version("2025.07.0")


@pytest.mark.parametrize(
    ("body", "versions"),
    [
        ('{"version": "2025.07.0"}', ["2025.07.0"]),
        ('{"data": {"app": {"version": "v2025.07.0"}}}', ["2025.07.0"]),
        ('{"javaVersion": "17.0.1", "appVersion": "2025.07.0-b12"}', ["2025.07.0"]),
        ('{"version": "2025.07.0", "previousVersion": "2025.04.3"}', ["2025.07.0"]),
        ('[{"version": "2026.04.01"}]', ["2026.04.01"]),
        ("2025.07.0", ["2025.07.0"]),
        ('"2025.07.0"', ["2025.07.0"]),
        ("Apinizer Worker 2025.07.0 (build 3)\n", ["2025.07.0"]),
        ('{"versions": [{"version": "2025.07.0"}, {"version": "2025.04.3"}]}', ["2025.07.0", "2025.04.3"]),
        ('{"version": "10.2025.07.0.1"}', []),
        ('{"version": null}', []),
        ("<html>login</html>", []),
        ("", []),
    ],
)
def test_versions_in_answers(body, versions) -> None:
    assert [v.text for v in versions_in(body)] == versions


def test_verified() -> None:
    assert verified('{"version": "2025.7.0"}', NEW) == ""
    assert "answers 2025.04.3, not 2025.07.0" in verified('{"version": "2025.04.3"}', NEW)
    assert "several" in verified("2025.04.3 2025.07.0", NEW)
    assert "no version" in verified("<html>", NEW)


@pytest.mark.parametrize(
    ("status", "body", "well"),
    [
        (200, '{"status": "UP"}', True),
        (200, "fine", True),
        (404, "", True),
        (503, '{"status": "UP"}', False),
        (200, '{"status": "DOWN"}', False),
    ],
)
def test_health(status, body, well) -> None:
    assert (healthy(status, body) == "") is well


def container(**more) -> dict:
    return {
        "spec": {
            "containers": [
                {"name": "istio", "image": "istio/proxyv2:1", "ports": [{"containerPort": 15001}]},
                {"name": "gw", "image": "x/worker:1", **more},
            ]
        }
    }


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ["http:8091", "https:8091"]),
        (
            {"ports": [{"containerPort": 9000}, {"containerPort": 53, "protocol": "UDP"}]},
            ["http:9000", "http:8091", "https:9000", "https:8091"],
        ),
        (
            {"ports": [{"containerPort": 9000}, {"containerPort": 8091}]},
            ["http:8091", "http:9000", "https:8091", "https:9000"],
        ),
        (
            {
                "ports": [{"containerPort": 8443, "name": "mgmt"}],
                "readinessProbe": {"httpGet": {"port": "mgmt", "scheme": "HTTPS"}},
            },
            ["https:8443", "https:8091", "http:8443", "http:8091"],
        ),
        ({"livenessProbe": {"httpGet": {"port": 8080}}}, ["http:8080", "http:8091", "https:8080", "https:8091"]),
    ],
)
def test_where_a_pod_is_asked(more, expected) -> None:
    assert [str(e) for e in endpoints(container(**more), Component.WORKER)] == expected


def test_the_proxy_s_path() -> None:
    assert Endpoint("http", 8091).path("prod", "a", "v") == "/api/v1/namespaces/prod/pods/a:8091/proxy/v"
    assert Endpoint("https", 8091).path("prod", "a", "v") == "/api/v1/namespaces/prod/pods/https:a:8091/proxy/v"


class Pods:
    """Two ready pods of a worker whose answers are scripted."""

    def __init__(self, server, controllers) -> None:
        self.server = server
        controllers.server.objects["deployments"]["gw"]["spec"]["replicas"] = 2
        controllers.replicaset("new")
        for name in ("a", "b"):
            controllers.pod(name, "new", ready=True)
            self.answer(name, 200, {"version": "2025.07.0"})
            health = f"/api/v1/namespaces/prod/pods/{name}:8091/proxy/apinizer/management/health"
            server.answers[health] = lambda _: (200, b'{"status": "UP"}')

    def answer(self, pod: str, *answers) -> None:
        """status, body, status, body ...: one pair a request, the last for ever."""
        pairs = list(zip(answers[::2], answers[1::2], strict=True))

        def reply(_) -> tuple[int, bytes]:
            status, body = pairs.pop(0) if len(pairs) > 1 else pairs[0]
            return status, body if isinstance(body, bytes) else json.dumps(body).encode()

        self.server.answers[f"/api/v1/namespaces/prod/pods/{pod}:8091/proxy/apinizer/management/version"] = reply


@pytest.fixture
def pods(server, controllers) -> Pods:
    return Pods(server, controllers)


@pytest.fixture
def check(api, step):
    return lambda: verify(api, step.key, "d-1", Component.WORKER, NEW, retry=Retry(0.5, base=0.05, cap=0.1))


def test_all_answer(pods, check) -> None:
    answers = check()
    assert [(a.pod, a.node, a.version, a.endpoint) for a in answers] == [
        ("a", "node-b", "2025.07.0", "http:8091"),
        ("b", "node-b", "2025.07.0", "http:8091"),
    ]


def test_one_answers_another_version(pods, check) -> None:
    pods.answer("b", 200, {"version": "2025.04.3"})
    with pytest.raises(UnprovenError) as caught:
        check()
    assert "pod b: http:8091: it answers 2025.04.3, not 2025.07.0" in caught.value.observed
    assert "pod a" not in caught.value.observed


def test_one_that_runs_another_image_than_the_proved_one(pods, api, step) -> None:
    """It answers the version all the same."""

    def held_to(digest: str):
        images = {step.container: frozenset({digest})}
        return verify(api, step.key, "d-1", Component.WORKER, NEW, images=images, retry=Retry(0.5, base=0.05, cap=0.1))

    assert len(held_to("sha256:1")) == 2
    with pytest.raises(UnprovenError, match="another image") as caught:
        held_to("sha256:2")
    assert "pod a" in caught.value.observed
    assert "sha256:1" in caught.value.observed


def test_a_pod_that_answers_a_moment_later(pods, check) -> None:
    refused = {"kind": "Status", "code": 503, "message": "error trying to reach service: connection refused"}
    pods.answer("a", 503, refused, 500, b"starting", 200, {"version": "2025.07.0"})
    assert len(check()) == 2


def test_a_pod_that_never_answers(pods, check) -> None:
    pods.answer(
        "a", 503, {"kind": "Status", "code": 503, "message": "error trying to reach service: connection refused"}
    )
    with pytest.raises(UnprovenError, match="connection refused"):
        check()


def test_a_pod_that_is_not_well(server, pods, check) -> None:
    server.answers["/api/v1/namespaces/prod/pods/a:8091/proxy/apinizer/management/health"] = lambda _: (
        503,
        b'{"status": "DOWN"}',
    )
    with pytest.raises(UnprovenError, match="pod a: its health answers HTTP 503"):
        check()


def test_no_permission_for_the_proxy(pods, check) -> None:
    denied = {"kind": "Status", "code": 403, "message": 'pods "a" is forbidden: cannot get resource "pods/proxy"'}
    pods.answer("a", 403, denied)
    with pytest.raises(ForbiddenError, match="kubectl auth can-i get pods/proxy --namespace prod"):
        check()


def test_a_pod_that_is_deleted_while_it_is_asked_has_a_successor(server, controllers, pods, check) -> None:
    def vanish(_) -> tuple[int, bytes]:
        if "a" in server.objects["pods"]:
            server.drop("pods", "a")
            controllers.pod("c", "new", ready=True)
            pods.answer("c", 200, {"version": "2025.07.0"})
            well = "/api/v1/namespaces/prod/pods/c:8091/proxy/apinizer/management/health"
            server.answers[well] = lambda _: (200, b'{"status": "UP"}')
        return 404, b'{"kind": "Status", "code": 404, "message": "pods \\"a\\" not found"}'

    server.answers["/api/v1/namespaces/prod/pods/a:8091/proxy/apinizer/management/version"] = vanish
    assert sorted(answer.pod for answer in check()) == ["b", "c"]


def test_too_few_pods_to_ask(server, pods, check) -> None:
    server.drop("pods", "a")
    with pytest.raises(UnprovenError, match="only 1 of 2 pods"):
        check()


def test_another_deployment(server, pods, check) -> None:
    server.objects["deployments"]["gw"]["metadata"]["uid"] = "d-2"
    with pytest.raises(DriftError, match="made anew"):
        check()
