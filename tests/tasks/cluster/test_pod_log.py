"""A followed log: each line once, across ends, restarts and containers that have not started."""

import pytest

from tasks.cluster.image_change import set_images
from tasks.cluster.pod_log import PodLog, RolloutLog
from tasks.cluster.watch import WatchHub

PATH = "/api/v1/namespaces/prod/pods/gw-new-1/log"


class Log:
    """What a pod has logged so far; a follow ends at once, as when the connection breaks."""

    def __init__(self, server) -> None:
        self.lines: list[tuple[str, str]] = []
        self.started = True
        server.answers[PATH] = self.reply

    def reply(self, query) -> tuple[int, bytes]:
        if not self.started:
            return 400, b'{"kind":"Status","code":400,"message":"container \\"gateway\\" is waiting to start"}'
        since = query.get("sinceTime", "")
        told = [f"{at} {text}\n" for at, text in self.lines if at[:19] >= since[:19]]
        return 200, "".join(told).encode()


@pytest.fixture
def log(server):
    return Log(server)


def test_each_line_once(server, api, log, eventually) -> None:
    log.started = False
    heard: list[str] = []
    follower = PodLog(api, "prod", "gw-new-1", "gateway", heard.append)
    follower.start()
    eventually(lambda: server.requests)
    log.lines = [("2026-11-22T10:00:00.1Z", "starting"), ("2026-11-22T10:00:00.25Z", "migrating 1")]
    log.started = True
    eventually(lambda: heard == ["starting", "migrating 1"])
    log.lines.append(("2026-11-22T10:00:00.9Z", "migrating 2"))
    log.lines.append(("2026-11-22T10:00:07.000000001Z", "ready"))
    eventually(lambda: len(heard) >= 4)
    seen = len(server.requests)
    eventually(lambda: len(server.requests) > seen + 1)
    follower.stop()
    assert heard == ["starting", "migrating 1", "migrating 2", "ready"]
    assert server.requests[-1][2]["sinceTime"] == "2026-11-22T10:00:07Z"


def test_it_survives_a_restart_of_the_api_server_and_ends_with_the_pod(server, api, log, eventually) -> None:
    heard: list[str] = []
    log.lines = [("2026-11-22T10:00:00Z", "one")]
    follower = PodLog(api, "prod", "gw-new-1", "gateway", heard.append)
    follower.start()
    eventually(lambda: heard == ["one"])
    server.stop()
    log.lines.append(("2026-11-22T10:00:01Z", "two"))
    server.start()
    eventually(lambda: heard == ["one", "two"])
    del server.answers[PATH]
    eventually(lambda: not follower._thread.is_alive())


def test_the_new_pod_s_log_is_found_and_the_old_one_s_is_not_told(
    server, api, controllers, step, log, eventually
) -> None:
    controllers.replicaset("old")
    controllers.pod("gw-old-1", "old", ready=True)
    set_images(api, step)
    heard: list[tuple[str, str]] = []
    log.lines = [("2026-11-22T10:00:00Z", "migrating")]
    with RolloutLog(WatchHub(api), step, lambda pod, line: heard.append((pod, line))):
        controllers.replicaset("new")
        controllers.pod("gw-new-1", "new")
        eventually(lambda: heard == [("gw-new-1", "migrating")])
    assert not [path for _, path, _ in server.requests if "gw-old-1/log" in path]
