"""Watches: exactly the later changes, in order, until the server ends them; 410 when it no longer knows."""

import time
from itertools import islice

from .api import MERGE, Event, JsonObject, path
from .world import Namespace, configmap


def set_note(space: Namespace, name: str, note: str) -> None:
    space.api.patch(space.path("configmaps", name), {"data": {"note": note}}, MERGE)


def told(events: list[Event]) -> list[tuple[str, str, str | None]]:
    return [(each.type, each.name, each.object.get("data", {}).get("note")) for each in events]


def taken(
    space: Namespace, since: str | None, count: int, labels: str = "suite=contract", fields: str | None = None
) -> list[Event]:
    """The first events about the test's own objects."""
    return list(islice(space.api.watch(space.path("configmaps"), since, labels=labels, fields=fields), count))


def test_from_a_list_on_every_later_change_in_order(space: Namespace) -> None:
    space.create("configmaps", configmap("before"))
    since = space.api.version(space.path("configmaps"))
    space.create("configmaps", configmap("x", {"note": "0"}))
    for note in "12":
        set_note(space, "x", note)
    space.create("configmaps", configmap("y"))
    space.api.delete(space.path("configmaps", "x"))
    events = taken(space, since, 5)
    assert told(events) == [
        ("ADDED", "x", "0"),
        ("MODIFIED", "x", "1"),
        ("MODIFIED", "x", "2"),
        ("ADDED", "y", None),
        ("DELETED", "x", "2"),
    ]
    versions = [int(each.version) for each in events]
    assert versions == sorted({*versions}), "a deletion has a version of its own"
    assert versions[0] > int(since)
    assert events[0].object["kind"] == "ConfigMap"
    assert events[0].object["apiVersion"] == "v1"


def test_from_the_middle_only_the_rest(space: Namespace) -> None:
    since = space.api.version(space.path("configmaps"))
    space.create("configmaps", configmap("x"))
    for note in "123":
        set_note(space, "x", note)
    events = taken(space, since, 4)
    assert told(taken(space, events[1].version, 2)) == told(events)[2:]


def test_without_a_version_what_is_there_comes_first(space: Namespace) -> None:
    for name in "ab":
        space.create("configmaps", configmap(name))
    found: list[tuple[str, str, str | None]] = []
    for event in space.api.watch(space.path("configmaps"), labels="suite=contract"):
        found += told([event])
        if len(found) == 2:
            set_note(space, "b", "live")
        if len(found) == 3:
            break
    assert sorted(found[:2]) == [("ADDED", "a", None), ("ADDED", "b", None)]
    assert found[2] == ("MODIFIED", "b", "live")


def test_a_change_arrives_while_the_watch_is_open(space: Namespace) -> None:
    since = space.create("configmaps", configmap("x"))["metadata"]["resourceVersion"]
    watch = space.api.watch(space.path("configmaps"), since, labels="suite=contract")
    for note in "123":
        set_note(space, "x", note)
        assert told([next(watch)]) == [("MODIFIED", "x", note)]
    watch.close()


def test_what_no_longer_matches_is_deleted_and_what_begins_to_is_added(space: Namespace) -> None:
    since = space.create("configmaps", configmap("x", tier="a"))["metadata"]["resourceVersion"]
    where = space.path("configmaps", "x")
    space.api.patch(where, {"data": {"note": "1"}}, MERGE)
    space.api.patch(where, {"metadata": {"labels": {"tier": "b"}}}, MERGE)
    space.api.patch(where, {"data": {"note": "unseen"}}, MERGE)
    space.api.patch(where, {"metadata": {"labels": {"tier": "a"}}}, MERGE)
    space.create("configmaps", configmap("never", tier="b"))
    space.create("configmaps", configmap("last", tier="a"))
    events = taken(space, since, 4, labels="tier=a")
    assert [(each.type, each.name) for each in events] == [
        ("MODIFIED", "x"),
        ("DELETED", "x"),
        ("ADDED", "x"),
        ("ADDED", "last"),
    ]


def test_one_object_by_its_name(space: Namespace) -> None:
    since = space.api.version(space.path("configmaps"))
    for name in ("x", "y"):
        space.create("configmaps", configmap(name))
    space.api.delete(space.path("configmaps", "y"))
    events = taken(space, since, 2, fields="metadata.name=y")
    assert [(each.type, each.name) for each in events] == [("ADDED", "y"), ("DELETED", "y")]


def test_every_namespace_at_once(space: Namespace) -> None:
    since = space.api.version(path("configmaps"))
    space.create("configmaps", configmap("x"))
    watch = space.api.watch(path("configmaps"), since, labels="suite=contract")
    mine = next(each for each in watch if each.object["metadata"]["namespace"] == space.name)
    assert (mine.type, mine.name) == ("ADDED", "x")


def test_the_end_is_clean_and_not_before_its_time(space: Namespace) -> None:
    since = space.api.version(space.path("configmaps"))
    start = time.monotonic()
    assert list(space.api.watch(space.path("configmaps"), since, seconds=2, labels="suite=contract")) == []
    assert time.monotonic() - start > 1.8


def test_a_bookmark_tells_how_far_the_watch_is(space: Namespace) -> None:
    since = space.create("configmaps", configmap("x"))["metadata"]["resourceVersion"]
    set_note(space, "x", "1")
    where = space.path("configmaps")
    # The server sends one about two seconds before it ends the watch.
    events = list(space.api.watch(where, since, seconds=5, bookmarks=True, labels="suite=contract"))
    bookmarks = [each for each in events if each.type == "BOOKMARK"]
    assert [each.type for each in events if each.type != "BOOKMARK"] == ["MODIFIED"]
    assert bookmarks, "no bookmark in five seconds"
    assert bookmarks[-1].object["kind"] == "ConfigMap"
    assert int(bookmarks[-1].version) >= int(events[0].version)
    set_note(space, "x", "2")
    assert told(taken(space, bookmarks[-1].version, 1)) == [("MODIFIED", "x", "2")]


def test_no_bookmarks_unless_asked_for(space: Namespace) -> None:
    since = space.create("configmaps", configmap("x"))["metadata"]["resourceVersion"]
    assert list(space.api.watch(space.path("configmaps"), since, seconds=4, labels="suite=contract")) == []


def test_a_version_that_is_forgotten_is_told_as_an_error_event(space: Namespace) -> None:
    """A control plane that has just started may still remember version 1: change something until it does not."""
    space.create("configmaps", configmap("x"))

    def refused(count: int) -> JsonObject | None:
        set_note(space, "x", str(count))
        first = next(space.api.watch(space.path("configmaps"), "1"))
        return first.object if first.type == "ERROR" else None

    said = next(filter(None, map(refused, range(4000))))
    assert (said["kind"], said["status"], said["code"], said["reason"]) == ("Status", "Failure", 410, "Expired")
    assert said["message"].startswith("too old resource version: 1 ("), said["message"]


def test_a_version_that_is_none_is_refused(space: Namespace) -> None:
    answer = space.api.send("GET", space.path("configmaps"), params={"watch": "1", "resourceVersion": "soon"})
    assert answer.status in (400, 422, 500), answer.text
    assert answer.body["kind"] == "Status"
