"""Asking a component through the API server: by its pod and by its service."""

from .api import Answer
from .conftest import Release
from .world import Namespace, container, deployment, ready, service

HEALTH, VERSION = "proxy/apinizer/management/health", "proxy/apinizer/management/version"


def test_a_ready_component_tells_its_version_and_health(installed: Namespace, release: Release) -> None:
    installed.create("services", service("cache-http", "app", 8090))
    installed.roll_out(deployment("app", release.component("cache")))
    api, pod = installed.api, installed.pod("app")["metadata"]["name"]
    assert api.get(installed.path("pods", f"{pod}:8080", VERSION)) == {"version": release.version}
    assert api.get(installed.path("pods", f"{pod}:8080", HEALTH)) == {"status": "UP"}
    assert api.get(installed.path("pods", f"http:{pod}:8080", HEALTH)) == {"status": "UP"}
    # Without a port it is the first that a container declares.
    assert api.get(installed.path("pods", pod, VERSION)) == {"version": release.version}
    for name in ("cache-http:8090", "cache-http:http"):
        assert api.get(installed.path("services", name, VERSION)) == {"version": release.version}
    answer = api.send("GET", installed.path("pods", f"{pod}:8080", "proxy/nothing/here"))
    assert (answer.status, answer.body) == (404, {"error": "not found"}), "the component's own answer"


def unreachable(answer: Answer) -> str:
    """The API server could not reach the pod: 500 without a reason up to 1.20, 503 in later releases."""
    said = answer.body
    assert answer.status in (500, 503), answer.text
    assert (said["kind"], said["status"], said["code"]) == ("Status", "Failure", answer.status), said
    return str(said["message"])


def test_a_component_that_boots_is_not_reached(installed: Namespace, release: Release) -> None:
    installed.create("services", service("cache-http", "app", 8090))
    installed.create("deployments", deployment("app", release.component("cache", BOOT_SECONDS="600")))
    pod = installed.pod_until("app", lambda it: it["status"].get("phase") == "Running", "running")["metadata"]["name"]
    message = unreachable(installed.api.send("GET", installed.path("pods", f"{pod}:8080", VERSION)))
    assert "connection refused" in message, message
    # A service sends nobody to a pod that is not ready.
    message = unreachable(installed.api.send("GET", installed.path("services", "cache-http:8090", VERSION)))
    assert message == 'no endpoints available for service "cache-http:8090"'


def test_a_port_that_nobody_listens_on(installed: Namespace, release: Release) -> None:
    installed.roll_out(deployment("app", release.component("cache")))
    pod = installed.pod("app")["metadata"]["name"]
    assert "connection refused" in unreachable(
        installed.api.send("GET", installed.path("pods", f"{pod}:8081", VERSION))
    )


def test_a_pod_without_an_address(space: Namespace) -> None:
    made = deployment("app", container("main"))
    made["spec"]["template"]["spec"]["nodeSelector"] = {"nowhere": "yes"}
    space.create("deployments", made)
    pod = space.pod("app")["metadata"]["name"]
    said = space.api.send("GET", space.path("pods", f"{pod}:8080", VERSION)).refused(400, "BadRequest")
    assert said["message"] == "address not allowed"


def test_a_service_or_pod_that_is_not(space: Namespace) -> None:
    for resource in ("services", "pods"):
        said = space.api.send("GET", space.path(resource, "ghost:8080", VERSION)).refused(404, "NotFound")
        assert said["message"] == f'{resource} "ghost" not found'


def test_a_service_port_that_is_not(installed: Namespace, release: Release) -> None:
    installed.create("services", service("cache-http", "app", 8090))
    installed.roll_out(deployment("app", release.component("cache")))
    message = unreachable(installed.api.send("GET", installed.path("services", "cache-http:9999", VERSION)))
    assert message == 'no service port 9999 found for service "cache-http"'


def test_the_manager_of_the_installation_answers(installed: Namespace, release: Release) -> None:
    manager = Namespace(installed.api, "apinizer")
    seen = manager.api.get(manager.path("services", "manager:8080", VERSION))
    assert seen == {"version": release.version}
    assert all(ready(pod) for pod in manager.pods("manager"))
