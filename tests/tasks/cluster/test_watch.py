"""The watch survives every way that a watch can end; the cache is right after each."""

import threading

import pytest

from tasks.cluster.watch import WatchHub
from tasks.domain.errors import ForbiddenError

PODS = ("pods",)


def pod(name: str, uid: str = "") -> dict:
    return {"metadata": {"name": name, "uid": uid or f"u-{name}"}}


def names(view) -> set[str]:
    return {thing["metadata"]["name"] for thing in view.objects("pods")}


@pytest.fixture
def hub(api):
    return WatchHub(api, server_seconds=10, idle_margin=5.0)


def test_events_reach_the_cache_and_wake_who_waits(server, hub, eventually) -> None:
    server.put("pods", pod("a"))
    with hub.view("prod", PODS) as view:
        eventually(view.synced)
        assert names(view) == {"a"}
        version = view.version
        threading.Timer(0.2, server.put, ("pods", pod("b"))).start()
        while "b" not in names(view):
            before, version = version, view.wait(version, 10)
            assert version != before, "nobody woke the waiter"
        server.drop("pods", "a")
        eventually(lambda: names(view) == {"b"})
        assert [thing["metadata"]["name"] for thing in view.gone("pods")] == ["a"]
        assert view.lists("pods") == 1


@pytest.mark.parametrize("fault", ["close", "gone", "error-event", "malformed", "cut", 410, 429, 500, 503])
def test_a_watch_that_ends_badly_goes_on(server, hub, eventually, fault) -> None:
    server.put("pods", pod("a"))
    server.watch_faults["pods"].extend([fault, fault, fault])
    with hub.view("prod", PODS) as view:
        eventually(lambda: "pods" in server.watchers)
        server.put("pods", pod("b"))
        eventually(lambda: names(view) == {"a", "b"})
    lists = server.count("GET", "pods")
    assert lists == (4 if fault in ("gone", 410) else 2 if fault == "malformed" else 1)


def test_what_went_missing_during_a_relist_is_gone(server, hub, eventually) -> None:
    server.put("pods", pod("a"))
    server.put("pods", pod("b"))
    server.watch_faults["pods"].append("close")
    with hub.view("prod", PODS) as view:
        eventually(lambda: "pods" in server.watchers)
        server.stop()
        with server.lock:
            del server.objects["pods"]["a"]  # nobody saw it go
        server.history.clear()
        server.forget()
        server.start()
        eventually(lambda: names(view) == {"b"})
        assert view.gone("pods") == (), "a list does not say how it ended"
        assert view.lists("pods") == 2


def test_a_half_open_connection_is_found(server, api, eventually) -> None:
    server.put("pods", pod("a"))
    server.watch_faults["pods"].append("silent")
    with WatchHub(api, server_seconds=1, idle_margin=0.5).view("prod", PODS) as view:
        eventually(lambda: names(view) == {"a"})
        server.put("pods", pod("b"))
        eventually(lambda: names(view) == {"a", "b"})


def test_an_api_server_that_restarts_is_watched_again_from_where_it_was(server, hub, eventually) -> None:
    server.put("pods", pod("a"))
    with hub.view("prod", PODS) as view:
        eventually(lambda: "pods" in server.watchers)
        server.stop()
        eventually(view.trouble)
        server.put("pods", pod("b"))
        server.start()
        eventually(lambda: names(view) == {"a", "b"})
        eventually(lambda: not view.trouble())
    assert server.count("GET", "pods") == 1, "a restart costs no new list"


def test_bookmarks_move_the_version_on(server, api, eventually) -> None:
    server.put("pods", pod("a"))
    with WatchHub(api, server_seconds=1, idle_margin=5).view("prod", PODS) as view:
        eventually(lambda: server.watchers.count("pods") == 1)
        server.put("deployments", pod("d"))  # the version grows without an event for pods
        eventually(lambda: server.watchers.count("pods") == 3)
        assert names(view) == {"a"}
    last = [query for _, path, query in server.requests if "watch" in query][-1]
    assert int(last["resourceVersion"]) == server.version


def test_no_permission_is_told_to_who_waits(server, hub, eventually) -> None:
    server.faults.extend([403] * 9)
    with (
        hub.view("prod", PODS) as view,
        pytest.raises(ForbiddenError, match="kubectl auth can-i list pods --namespace prod"),
    ):
        eventually(view.synced)


def test_a_watch_is_shared_and_ends_with_its_last_user(server, api, eventually) -> None:
    hub = WatchHub(api, server_seconds=300)  # far longer than the test waits
    with hub.view("prod", PODS) as one, hub.view("prod", PODS) as two:
        eventually(one.synced)
        eventually(two.synced)
        server.put("pods", pod("a"))
        eventually(lambda: names(one) == names(two) == {"a"})
        assert server.count("GET", "pods", watch=True) == 1
        thread = next(t for t in threading.enumerate() if t.name == "watch prod/pods")
    thread.join(10)
    assert not thread.is_alive(), "the stream was not ended"
