"""Watches whether the manager fails once more while its database answers; only then may it be undone by itself."""

import time
from collections.abc import Callable, Mapping

from tasks.cluster.crash_again import Standing, failed_again, standing
from tasks.cluster.rollout_view import uid as uid_of
from tasks.cluster.watch import View

LISTEN = 1.0  # seconds between two questions to the database


def why_not_for_good(
    view: View,
    uid: str,
    images: Mapping[str, str],
    answers: Callable[[], bool],
    *,
    deadline_seconds: float,
    stop: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
) -> str:
    """ "" as soon as every pod of the manager failed in a whole run during which the database answered; else why not.

    `view` is of the manager's namespace, `uid` the Deployment's, `images` those that the upgrade set by container;
    `answers` asks the database.  Blocks for `deadline_seconds` at most and changes nothing.
    """
    end = clock() + deadline_seconds
    first: Standing | None = None
    while True:
        version, answered = view.version, answers()
        now = _now(view, uid, images) if view.synced() else None
        if now is not None and now.changed:
            return f"The manager's Deployment is not as the upgrade left it: {now.changed}."
        if now is not None and now.serves:
            return "A pod of the manager is Ready now."
        if not answered:
            first = None  # a crash of this moment may be the database's
        elif first is None:
            first = now
        if first is not None and now is not None and failed_again(first, now):
            return ""
        if stop():
            return "The run was stopped."
        if clock() >= end:
            return _undecided(deadline_seconds, now, answered=answered)
        view.wait(version, LISTEN)


def _undecided(seconds: float, now: Standing | None, *, answered: bool) -> str:
    if not answered:
        return "The database does not answer, which may be all that the manager lacks."
    if now is not None and now.at_work:
        return f"The manager was started again and runs; it may be migrating (watched for {seconds:.0f} s)."
    return f"The manager was not seen to fail once more within {seconds:.0f} s."


def _now(view: View, uid: str, images: Mapping[str, str]) -> Standing:
    found = next((d for d in view.objects("deployments") if uid_of(d) == uid), None)
    return standing(found, view.objects("replicasets"), view.objects("pods"), images)
