"""The wait, against a server that plays the controllers: ends at ready, at hopeless, at drift, at the deadline."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.cluster.image_change import set_images
from tasks.cluster.rollout import wait_ready
from tasks.cluster.watch import WatchHub
from tasks.domain.errors import DriftError, ForbiddenError, RolloutError, StoppedError

CRASHED = {
    "ready": False,
    "restartCount": 1,
    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
    "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
}
PULL = {
    "ready": False,
    "imageID": "",
    "state": {"waiting": {"reason": "ErrImagePull", "message": "rpc error: not found"}},
}


@pytest.fixture
def hub(api):
    return WatchHub(api, server_seconds=10, idle_margin=5.0)


class Waiting:
    """A wait on its own thread."""

    def __init__(self, hub, step, **options) -> None:
        self.progress: list = []
        self.pool = ThreadPoolExecutor(1)
        options = {"deadline_seconds": 60.0, "progress": self.progress.append} | options
        self.result = self.pool.submit(wait_ready, hub, step, **options)

    def texts(self) -> list[str]:
        return [p.text for p in self.progress]


@pytest.fixture
def rolling(server, api, controllers, step, hub, eventually):
    """A rollout under way: the old pod serves, the image is set, somebody waits."""
    controllers.replicaset("old")
    controllers.pod("gw-old-1", "old", ready=True)
    set_images(api, step)

    def start(**options) -> Waiting:
        waiting = Waiting(hub, step, **options)
        eventually(lambda: waiting.progress)
        return waiting

    return start


def test_it_tells_each_change_and_ends_when_proven(server, controllers, rolling, eventually) -> None:
    waiting = rolling()
    controllers.replicaset("new")
    controllers.pod("gw-new-1", "new")
    controllers.deployment(replicas=2, updatedReplicas=1, readyReplicas=1, availableReplicas=1)
    eventually(lambda: "1 of 1 pods updated, 0 ready, 1 old left" in waiting.texts())
    assert not waiting.result.done()
    controllers.pod("gw-new-1", "new", ready=True)
    eventually(lambda: "1 of 1 pods updated, 1 ready, 1 old left" in waiting.texts())
    old = copy.deepcopy(server.objects["pods"]["gw-old-1"])
    old["metadata"]["deletionTimestamp"] = "2026-11-22T10:00:00Z"
    server.put("pods", old)
    eventually(lambda: "1 of 1 pods updated, 1 ready, 1 old leaving" in waiting.texts())
    server.drop("pods", "gw-old-1")
    controllers.deployment(replicas=1, updatedReplicas=1, readyReplicas=1, availableReplicas=1)
    evidence = waiting.result.result(20)
    assert evidence.generation == 4
    assert [pod.name for pod in evidence.pods] == ["gw-new-1"]
    assert waiting.texts()[-1] == "1 of 1 pods updated, 1 ready"
    assert server.count("GET", "pods") == 1, "it is watched, not polled"


def test_a_crash_ends_it_with_the_last_log_lines(server, controllers, rolling) -> None:
    server.answers["/api/v1/namespaces/prod/pods/gw-new-1/log"] = lambda q: (
        (200, b"starting\nFATAL: no database\n") if q.get("previous") == "true" else (400, b"{}")
    )
    event = {
        "type": "Warning",
        "reason": "BackOff",
        "message": "Back-off restarting",
        "count": 3,
        "lastTimestamp": "2026-11-22T10:00:00Z",
    }
    server.objects["events"]["e"] = {"metadata": {"name": "e"}, **event}
    waiting = rolling()
    controllers.replicaset("new")
    controllers.pod("gw-new-1", "new", **CRASHED)
    with pytest.raises(RolloutError, match="crashes again and again, exit code 1") as caught:
        waiting.result.result(20)
    error = caught.value
    assert "gw-new-1 on node node-b" in error.happened
    assert "FATAL: no database" in error.observed
    assert "BackOff: Back-off restarting (3 times)" in error.observed
    assert error.safe.startswith("1 pods of the old version still serve")
    assert "logs gw-new-1 -c gateway --previous" in error.next


def test_a_missing_image_ends_it_with_what_to_do(controllers, rolling) -> None:
    waiting = rolling()
    controllers.replicaset("new")
    controllers.pod("gw-new-1", "new", **PULL)
    with pytest.raises(RolloutError, match=r"cannot get image apinizercloud/worker:2025\.07\.0") as caught:
        waiting.result.result(20)
    assert "to node node-b (on it: ctr -n k8s.io images import FILE" in caught.value.next


def test_what_the_cache_says_is_confirmed_before_it_ends_the_wait(server, controllers, rolling, eventually) -> None:
    waiting = rolling()
    controllers.replicaset("new")
    with server.lock:  # only the watch sees the crash: fresh reads find the pod well
        controllers.pod("gw-new-1", "new", **CRASHED)
        crashed = server.history.pop()
        controllers.pod("gw-new-1", "new")
        server.history[-1] = (server.version, "pods", "ADDED", crashed[3])
    eventually(lambda: "hopeless" in {p.state for p in waiting.progress})
    eventually(lambda: server.count("GET", "pods") > 1)
    assert not waiting.result.done()
    controllers.complete()
    server.drop("pods", "gw-old-1")
    assert waiting.result.result(20).counts.ready == 1


def test_somebody_else_sets_the_image_back(server, controllers, rolling) -> None:
    waiting = rolling()
    thing = copy.deepcopy(server.objects["deployments"]["gw"])
    thing["spec"]["template"]["spec"]["containers"][0]["image"] = "apinizercloud/worker:2025.04.3"
    thing["metadata"]["generation"] += 1
    server.put("deployments", thing)
    with pytest.raises(DriftError, match=r"was given image apinizercloud/worker:2025\.04\.3 by somebody else"):
        waiting.result.result(20)


def test_a_deleted_deployment(server, rolling) -> None:
    waiting = rolling()
    server.drop("deployments", "gw")
    with pytest.raises(DriftError, match="deleted"):
        waiting.result.result(20)


def test_the_deadline_says_what_is_pending(controllers, rolling) -> None:
    waiting = rolling(deadline_seconds=1.0)
    with pytest.raises(RolloutError, match="did not become Ready within 1 s: waiting for the Deployment's controller"):
        waiting.result.result(20)


def test_it_stops_when_told(rolling) -> None:
    told = threading.Event()
    waiting = rolling(stop=told.is_set)
    told.set()
    with pytest.raises(StoppedError, match="was ended"):
        waiting.result.result(10)


def test_the_api_server_restarts_in_the_middle(server, controllers, rolling, eventually) -> None:
    waiting = rolling()
    controllers.replicaset("new")
    controllers.pod("gw-new-1", "new", ready=False)
    eventually(lambda: "1 of 1 pods updated, 0 ready, 1 old left" in waiting.texts())
    server.stop()
    controllers.complete()
    server.drop("pods", "gw-old-1")
    server.start()
    assert waiting.result.result(30).counts.ready == 1


def test_an_api_server_that_stays_away_is_the_deadline_s_matter(server, rolling) -> None:
    waiting = rolling(deadline_seconds=2.0)
    server.stop()
    with pytest.raises(RolloutError, match="within"):
        waiting.result.result(60)


def test_no_permission_ends_it(server, api, controllers, step, hub, eventually) -> None:
    set_images(api, step)
    server.watch_faults["pods"].extend([403] * 5)
    with pytest.raises(ForbiddenError, match="watch pods"):
        wait_ready(hub, step, deadline_seconds=30)


def test_a_cache_that_others_share_and_that_is_behind_is_no_drift(
    server, api, controllers, step, hub, eventually
) -> None:
    controllers.complete("old")
    with hub.view("prod") as view:
        eventually(view.synced)
        server.mute.add("deployments")
        set_images(api, step)
        waiting = Waiting(hub, step)
        eventually(lambda: waiting.progress)
        assert waiting.progress[-1].reason == "CacheBehind"
        server.mute.clear()
        controllers.complete("new")
        server.drop("pods", "gw-old-1")
        assert waiting.result.result(20).counts.ready == 1
