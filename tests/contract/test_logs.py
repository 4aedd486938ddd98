"""Container logs: whole, the end of it, as they come, and those of a container that is no more."""

import re

from .api import path
from .conftest import Release
from .world import Namespace, container, deployment, ready


def running(space: Namespace, release: Release, **env: str) -> str:
    """The log's path of a cache that has started."""
    space.create("deployments", deployment("app", release.component("cache", **env)))
    pod = space.pod_until("app", ready, "ready")
    return space.path("pods", pod["metadata"]["name"], "log")


def test_a_log_and_its_end(installed: Namespace, release: Release) -> None:
    where, api = running(installed, release), installed.api
    lines = api.text(where).splitlines()
    assert [each.split(" ", 3)[1:] for each in lines] == [
        ["cache", release.version, "starting"],
        ["cache", release.version, "ready"],
    ]
    assert api.text(where, container="main").splitlines() == lines
    assert api.text(where, tailLines=1).splitlines() == lines[-1:]
    assert api.text(where, tailLines=0) == ""
    stamped = api.text(where, timestamps="true").splitlines()
    assert [each.partition(" ")[2] for each in stamped] == lines
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z ", each) for each in stamped)
    assert api.text(where, limitBytes=10) == api.text(where)[:10]


def test_a_log_is_followed_while_it_is_written(installed: Namespace, release: Release) -> None:
    made = deployment("app", release.component("cache", BOOT_SECONDS="3"))
    installed.create("deployments", made)
    pod = installed.pod_until("app", lambda it: it["status"].get("phase") == "Running", "running")
    where = installed.path("pods", pod["metadata"]["name"], "log")
    with installed.api.lines(where, follow="true") as lines:
        assert next(lines).endswith("starting")
        assert next(lines).endswith("ready")
        installed.api.delete(installed.path("deployments", "app"))
        # It ends with its container; a kubelet that finds the container removed already says so in a last line.
        assert all(line.startswith("rpc error: ") for line in lines)


def test_the_log_of_a_crash_ends_by_itself(installed: Namespace, release: Release) -> None:
    wrong = release.component("cache", SPRING_DATA_MONGODB_DATABASE="contract_empty", BOOT_SECONDS="2")
    installed.create("deployments", deployment("app", wrong))
    pod = installed.pod_until("app", lambda it: it["status"].get("phase") == "Running", "running")
    with installed.api.lines(installed.path("pods", pod["metadata"]["name"], "log"), follow="true") as lines:
        said = list(lines)
    assert "FATAL" in said[-1]


def test_no_log_of_what_never_ran_before(installed: Namespace, release: Release) -> None:
    where = running(installed, release)
    pod = where.split("/")[-2]
    said = installed.api.send("GET", where, params={"previous": "true"}).refused(400, "BadRequest")
    assert said["message"] == f'previous terminated container "main" in pod "{pod}" not found'


def test_no_log_of_a_container_that_is_not_the_pods(installed: Namespace, release: Release) -> None:
    where = running(installed, release)
    pod = where.split("/")[-2]
    said = installed.api.send("GET", where, params={"container": "other"}).refused(400, "BadRequest")
    assert said["message"] == f"container other is not valid for pod {pod}"


def test_of_two_containers_one_is_to_be_named(space: Namespace) -> None:
    space.roll_out(deployment("app", container("main"), container("sidecar")))
    pod = space.pod("app")["metadata"]["name"]
    said = space.api.send("GET", space.path("pods", pod, "log")).refused(400, "BadRequest")
    assert said["message"] == f"a container name must be specified for pod {pod}, choose one of: [main sidecar]"
    assert space.api.text(space.path("pods", pod, "log"), container="sidecar") == ""


def test_no_log_of_a_pod_that_is_not(space: Namespace) -> None:
    said = space.api.send("GET", path("pods", space.name, "ghost", "log")).refused(404, "NotFound")
    assert said["message"] == 'pods "ghost" not found'
