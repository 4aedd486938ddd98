"""The kubelet: how a container starts, fails to, crashes and comes back; what its pod says meanwhile."""

import os

import pytest

from .api import JsonObject, eventually, path
from .conftest import Release
from .world import PAUSE, Namespace, condition, container, deployment, ready, rolling, waiting_for


def status_of(pod: JsonObject) -> JsonObject:
    found: JsonObject = pod["status"]["containerStatuses"][0]
    return found


def waiting(pod: JsonObject) -> JsonObject:
    found: JsonObject = status_of(pod)["state"]["waiting"]
    return found


def test_a_running_pod(space: Namespace) -> None:
    space.create("deployments", deployment("app", container("main"), container("sidecar")))
    pod = space.pod_until("app", ready, "ready")
    spec, status = pod["spec"], pod["status"]
    assert spec["nodeName"] in ("node-a", "node-b")
    assert spec["containers"][0]["image"] == PAUSE
    assert status["phase"] == "Running"
    assert status["podIP"]
    assert status["startTime"]
    types = {each["type"]: each["status"] for each in status["conditions"]}
    assert types == dict.fromkeys(("Initialized", "Ready", "ContainersReady", "PodScheduled"), "True")
    assert [each["name"] for each in status["containerStatuses"]] == ["main", "sidecar"]
    for each in status["containerStatuses"]:
        assert (each["ready"], each["started"], each["restartCount"]) == (True, True, 0)
        assert each["image"] == f"docker.io/{PAUSE}"
        assert "sha256:" in each["imageID"]
        assert "://" in each["containerID"]
        assert each["state"].keys() == {"running"}
        assert each["lastState"] == {}
        assert each["state"]["running"]["startedAt"].endswith("Z")


def test_the_events_of_a_start(space: Namespace) -> None:
    space.roll_out(deployment("app"))
    name = space.pod("app")["metadata"]["name"]
    space.event("Started", name=name)
    events = {each["reason"]: each for each in space.events(name=name, kind="Pod")}
    assert {"Scheduled", "Pulled", "Created", "Started"} <= events.keys()
    assert f"Successfully assigned {space.name}/{name} to node-" in events["Scheduled"]["message"]
    assert events["Pulled"]["message"] == f'Container image "{PAUSE}" already present on machine'
    assert events["Created"]["message"] == "Created container main"
    started = events["Started"]
    assert (started["type"], started["count"], started["source"]["component"]) == ("Normal", 1, "kubelet")
    assert started["involvedObject"]["fieldPath"] == "spec.containers{main}"
    assert started["involvedObject"]["namespace"] == space.name
    assert started["lastTimestamp"].endswith("Z")
    assert space.events(name="another") == []
    uid = space.pod("app")["metadata"]["uid"]
    assert {each["reason"] for each in space.events(uid=uid)} == events.keys()


def test_the_controllers_say_what_they_did(space: Namespace) -> None:
    space.roll_out(deployment("app"))
    (replicaset,) = space.replicasets("app").values()
    name = replicaset["metadata"]["name"]
    assert space.event("ScalingReplicaSet", name="app")["message"] == f"Scaled up replica set {name} to 1"
    pod = space.pod("app")["metadata"]["name"]
    assert space.event("SuccessfulCreate", name=name)["message"] == f"Created pod: {pod}"


def absent_image(target: str) -> str:
    """An image that a registry within reach says it does not have."""
    registry = f"{os.environ['REALCLUSTER_REGISTRY']}/" if target == "real" else ""
    return f"{registry}apinizercloud/worker:2099.01.0"


def test_an_image_that_is_not_there(space: Namespace, target: str) -> None:
    image = absent_image(target)
    space.create("deployments", deployment("app", container("main", image)))
    seen = waiting(space.pod_until("app", waiting_for("ErrImagePull"), "failed to pull"))
    assert seen["message"].startswith("rpc error: code = NotFound desc = failed to pull and unpack image "), seen
    assert seen["message"].endswith(f"{image}: not found"), seen
    pod = space.pod_until("app", waiting_for("ImagePullBackOff"), "backing off")
    assert waiting(pod)["message"] == f'Back-off pulling image "{image}"'
    assert pod["status"]["phase"] == "Pending"
    assert (status_of(pod)["image"], status_of(pod)["imageID"], status_of(pod)["ready"]) == (image, "", False)
    assert condition(pod, "Ready")["reason"] == "ContainersNotReady"
    name = pod["metadata"]["name"]
    assert space.event("Pulling", name=name)["message"] == f'Pulling image "{image}"'
    assert space.event("BackOff", name=name)["message"] == f'Back-off pulling image "{image}"'
    failed = {each["message"]: each["type"] for each in space.events(name=name) if each["reason"] == "Failed"}
    assert any(each.startswith(f'Failed to pull image "{image}": rpc error') for each in failed), failed
    assert "Error: ErrImagePull" in failed
    assert set(failed.values()) == {"Warning"}
    said = space.api.send("GET", space.path("pods", name, "log")).refused(400, "BadRequest")
    assert said["message"] == f'container "main" in pod "{name}" is waiting to start: trying and failing to pull image'


def test_a_registry_that_cannot_be_reached(space: Namespace) -> None:
    image = "127.0.0.1:1/apinizercloud/worker:2099.01.0"
    space.create("deployments", deployment("app", container("main", image)))
    seen = waiting(space.pod_until("app", waiting_for("ErrImagePull"), "failed to pull"))
    assert seen["message"].startswith("rpc error: code = Unknown desc = failed to pull and unpack image "), seen
    assert "connect: connection refused" in seen["message"]


def test_a_name_that_no_image_can_have(space: Namespace) -> None:
    space.create("deployments", deployment("app", container("main", "Not/An:Image:Name")))
    pod = space.pod_until("app", waiting_for("InvalidImageName"), "refused")
    message = waiting(pod)["message"]
    assert message.startswith('Failed to apply default image tag "Not/An:Image:Name": couldn\'t parse image reference')
    assert space.event("InspectFailed", name=pod["metadata"]["name"])["type"] == "Warning"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"name": "not-there", "key": "dbUrl"}, 'secret "not-there" not found'),
        ({"name": "mongo-db-credentials", "key": "nope"}, "couldn't find key nope in Secret {}/mongo-db-credentials"),
    ],
    ids=["secret", "key"],
)
def test_what_a_container_needs_is_missing(installed: Namespace, reference: JsonObject, message: str) -> None:
    env = [{"name": "X", "valueFrom": {"secretKeyRef": reference}}]
    installed.create("deployments", deployment("app", container("main", env=env)))
    pod = installed.pod_until("app", waiting_for("CreateContainerConfigError"), "refused")
    assert waiting(pod)["message"] == message.format(installed.name)
    event = installed.event("Failed", name=pod["metadata"]["name"])
    assert event["message"] == f"Error: {message.format(installed.name)}"


def test_an_optional_secret_may_be_missing(space: Namespace) -> None:
    reference = {"name": "not-there", "key": "x", "optional": True}
    space.roll_out(deployment("app", container("main", env=[{"name": "X", "valueFrom": {"secretKeyRef": reference}}])))


def crashing(release: Release) -> JsonObject:
    """A cache at a database that is nobody's: it says so and ends with 1."""
    return release.component("cache", SPRING_DATA_MONGODB_DATABASE="contract_empty")


def test_a_crash_loop(installed: Namespace, release: Release) -> None:
    installed.create("deployments", deployment("app", crashing(release)))
    pod = installed.pod_until("app", waiting_for("CrashLoopBackOff"), "crash-looping")
    name, status = pod["metadata"]["name"], status_of(pod)
    uid = pod["metadata"]["uid"]
    said = waiting(pod)["message"]
    assert said.startswith("back-off ")
    assert said.endswith(f"s restarting failed container=main pod={name}_{installed.name}({uid})")
    assert status["restartCount"] >= 1
    assert status["ready"] is False
    assert status["started"] is False
    last = status["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (1, "Error")
    assert last["startedAt"] <= last["finishedAt"]
    assert "://" in last["containerID"]
    assert pod["status"]["phase"] == "Running"
    assert condition(pod, "Ready")["status"] == "False"
    event = installed.event("BackOff", name=name)
    assert (event["type"], event["message"]) == ("Warning", "Back-off restarting failed container")
    complaint = f"FATAL: the database is at 0.0.0, this cache needs {release.version}: update the manager first"
    where = installed.path("pods", name, "log")

    def told(**params: str) -> bool:
        return complaint in installed.api.send("GET", where, params=params).text

    # A real kubelet is between two containers now and then.
    eventually(lambda: told(previous="true"), "the log of the container before")
    eventually(told, "the log")
    restarts = status["restartCount"]
    installed.pod_until("app", lambda it: status_of(it)["restartCount"] > restarts, "restarted once more")


def test_the_right_database_makes_it_ready(installed: Namespace, release: Release) -> None:
    """A crash loop does not stop a Deployment from being mended by the next template."""
    made = deployment("app", crashing(release), strategy=rolling(surge=1, unavailable=0))
    installed.create("deployments", made)
    installed.pod_until(
        "app", lambda it: bool(it["status"].get("containerStatuses")) and status_of(it)["restartCount"] > 0, "crashed"
    )
    mended = release.component("cache")
    for each in mended["env"]:
        if "valueFrom" in each:
            each["value"] = None  # a value that is merged with a reference would be refused
    patch = {"spec": {"template": {"spec": {"containers": [mended]}}}}
    installed.api.patch(installed.path("deployments", "app"), patch)
    installed.settled("app")
    installed.deployment_until("app", lambda _: all(ready(each) for each in installed.pods("app")), "only ready pods")
    (pod,) = installed.pods("app")
    assert status_of(pod)["restartCount"] == 0


def test_a_pod_is_ready_only_after_its_boot(installed: Namespace, release: Release) -> None:
    installed.create("deployments", deployment("app", release.component("cache", BOOT_SECONDS="3")))
    pod = installed.pod_until(
        "app",
        lambda it: it["status"].get("phase") == "Running" and status_of(it)["state"].keys() == {"running"},
        "running",
    )
    if not ready(pod):
        assert (condition(pod, "ContainersReady")["status"], status_of(pod)["ready"]) == ("False", False)
        assert condition(pod, "Ready")["message"] == "containers with unready status: [main]"
    booted = installed.pod_until("app", ready, "ready")
    started = status_of(booted)["state"]["running"]["startedAt"]
    assert condition(booted, "Ready")["lastTransitionTime"] >= started


def test_no_pod_is_bound_to_a_cordoned_node(space: Namespace) -> None:
    node = path("nodes", None, "node-b")
    made = deployment("app")
    made["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "node-b"}
    space.api.patch(node, {"spec": {"unschedulable": True}})
    try:
        space.create("deployments", made)
        pod = space.pod_until("app", lambda it: condition(it, "PodScheduled").get("status") == "False", "unschedulable")
        assert condition(pod, "PodScheduled")["reason"] == "Unschedulable"
        message = condition(pod, "PodScheduled")["message"]
        assert message.startswith("0/2 nodes are available: ")
        assert "nodeName" not in pod["spec"]
        assert pod["status"]["phase"] == "Pending"
        assert "containerStatuses" not in pod["status"]
        event = space.event("FailedScheduling", name=pod["metadata"]["name"])
        assert event["type"] == "Warning"
        assert event["message"].startswith("0/2 nodes are available: ")
    finally:
        space.api.patch(node, {"spec": {"unschedulable": None}})
    assert space.pod_until("app", ready, "ready")["spec"]["nodeName"] == "node-b"


def at_database(component: JsonObject, database: str) -> JsonObject:
    """The same component at another database of the same server."""
    variables = [each for each in component["env"] if each["name"] != "SPRING_DATA_MONGODB_DATABASE"]
    return {**component, "env": [*variables, {"name": "SPRING_DATA_MONGODB_DATABASE", "value": database}]}


def test_in_the_wrong_order_a_component_crashes_until_its_manager_has_migrated(
    installed: Namespace, release: Release
) -> None:
    database = installed.name.replace("-", "_")
    repository = release.manager.rpartition("/")[2]
    installed.create("deployments", deployment("cache", at_database(release.component("cache"), database)))
    installed.pod_until("cache", waiting_for("CrashLoopBackOff"), "crash-looping")
    installed.roll_out(deployment("manager", at_database(release.component(repository), database)))
    manager = installed.pod("manager")["metadata"]["name"]
    log = installed.api.text(installed.path("pods", manager, "log"))
    assert f"migrating the database from 0.0.0 to {release.version}" in log
    # Nobody touches the cache: it comes back by itself.
    pod = installed.pod_until("cache", ready, "ready")
    assert status_of(pod)["restartCount"] >= 1
    assert status_of(pod)["lastState"]["terminated"]["exitCode"] == 1
