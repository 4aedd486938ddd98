"""What a watch of the sandbox is told, from the first moment on."""

from deployments.sandbox.faults import Faults
from deployments.sandbox.resources import CONFIGMAPS
from deployments.sandbox.selectors import everything
from deployments.sandbox.store import Store
from deployments.sandbox.watching import Watches, WatchRequest


def test_what_changes_before_the_first_event_is_asked_for_is_not_lost() -> None:
    store = Store()
    request = WatchRequest(CONFIGMAPS, "a", everything, str(store.version), 60.0, bookmarks=True)
    with Watches(store, Faults()).opened(request) as queue:
        store.create(CONFIGMAPS, {"metadata": {"namespace": "a", "name": "made"}})
        event = queue.get_nowait()
    assert event is not None
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "made")
    store.create(CONFIGMAPS, {"metadata": {"namespace": "a", "name": "later"}})
    assert queue.empty()
