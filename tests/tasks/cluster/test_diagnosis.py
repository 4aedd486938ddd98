"""What people are told when a rollout fails, and what they are told to do."""

import pytest

from tasks.cluster.diagnosis import Symptoms, diagnose, read_events, read_log
from tasks.cluster.pod_state import PodLine, Trouble
from tasks.cluster.verdict import Counts, State, Verdict
from tasks.domain.component import Component
from tasks.domain.errors import DriftError, HopelessError, RolloutError


def trouble(reason: str, weight: str = "now", **more) -> Trouble:
    values = {
        "pod": "gw-7d-x",
        "node": "node-b",
        "container": "gateway",
        "image": "apinizercloud/worker:2025.07.0",
    } | more
    return Trouble(key="k", weight=weight, reason=reason, message=more.pop("message", "said"), **values)


def told(step, verdict: Verdict, log: tuple[str, ...] = (), events: tuple[str, ...] = ()):
    return diagnose(step, verdict, Symptoms(events, log, "pod gw-7d-x"), 12.4)


def hopeless(found: Trouble | None = None, reason: str = "X", message: str = "said", pods=()) -> Verdict:
    return Verdict(
        State.HOPELESS, found.reason if found else reason, message, Counts(1, 1, 0, 0, 1), tuple(pods), found
    )


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"])
def test_a_missing_image(step, reason) -> None:
    error = told(step, hopeless(trouble(reason)))
    assert isinstance(error, RolloutError)
    for part in ("gw-7d-x", "node-b", "apinizercloud/worker:2025.07.0", reason):
        assert part in error.happened
    assert "ctr -n k8s.io images import" in error.next
    assert "registry" in error.next


def test_a_crash_shows_its_log(step) -> None:
    error = told(
        step, hopeless(trouble("CrashLoopBackOff", "crash", exit_code=1)), log=("starting", "FATAL: index build")
    )
    assert "exit code 1" in error.happened
    assert "Last log lines of pod gw-7d-x:\n  starting\n  FATAL: index build" in error.observed
    assert "--previous" in error.next


@pytest.mark.parametrize(
    ("line", "component", "said"),
    [
        (
            "FATAL: the database is at 2025.04.3, this worker needs 2025.07.0: update the manager first",
            "worker",
            "bring the manager",
        ),
        (
            "FATAL: the database is at 2025.11.1, newer than this manager: downgrade is not supported",
            "manager",
            "restore the backup",
        ),
        ("MongockException: Process lock acquired by another instance", "manager", "mongockLock"),
    ],
)
def test_the_log_says_what_to_do(step, line, component, said) -> None:
    of = step.model_copy(update={"component": Component(component)})
    error = told(of, hopeless(trouble("CrashLoopBackOff", "crash", exit_code=1)), log=(line,))
    assert said in error.next


def test_out_of_memory_is_said(step) -> None:
    assert "out of memory" in told(step, hopeless(trouble("OOMKilled", "crash", exit_code=137))).happened


def test_a_quota(step) -> None:
    error = told(step, hopeless(None, "FailedCreate", 'pods "x" is forbidden: exceeded quota: q'))
    assert "exceeded quota: q" in error.happened
    assert "describe resourcequota" in error.next


def test_no_room_is_told_with_the_scheduler_s_words(step) -> None:
    line = PodLine(
        "gw-7d-x", "", True, False, False, "Unschedulable", "0/2 nodes are available: 2 Insufficient memory."
    )
    error = told(step, Verdict(State.PROGRESSING, "Updating", "0 of 1 pods updated", Counts(1, 0), (line,)))
    assert "within 12 s" in error.happened
    assert "2 Insufficient memory" in error.next


def test_drift(step) -> None:
    error = told(step, Verdict(State.DRIFTED, "ImageChanged", "container gateway was given image x"))
    assert isinstance(error, DriftError)
    assert "managed-fields" in error.next


def test_old_pods_that_serve_are_what_is_safe(step) -> None:
    old = PodLine("gw-old", "node-a", False, True, False, "Ready")
    assert "1 pods of the old version still serve" in told(step, hopeless(trouble("ErrImagePull"), pods=[old])).safe
    assert "serves nothing now" in told(step, hopeless(trouble("ErrImagePull"))).safe


def test_the_log_is_taken_from_where_it_is(server, api) -> None:
    answers = {"true": (200, b"unable to retrieve container logs for containerd://x"), "false": (200, b"a\n\nb\n")}
    server.answers["/api/v1/namespaces/prod/pods/p/log"] = lambda q: answers[q["previous"]]
    assert read_log(api, "prod", "p") == ("a", "b")
    answers["true"] = (200, b"before\n")
    assert read_log(api, "prod", "p") == ("before",)
    answers.update(true=(400, b"{}"), false=(404, b"{}"))
    assert read_log(api, "prod", "p") == ()


def test_events_are_warnings_in_order(server, api) -> None:
    for number, (kind, at) in enumerate([("Warning", "10:02"), ("Normal", "10:03"), ("Warning", "10:01")]):
        server.objects["events"][f"e{number}"] = {
            "metadata": {"name": f"e{number}"}, "type": kind, "reason": f"R{number}", "message": "m", "lastTimestamp": f"2026-11-22T{at}:00Z",
        }  # fmt: skip
    assert read_events(api, "prod", "p") == ("R2: m", "R0: m")
    assert server.requests[0][2]["fieldSelector"] == "involvedObject.name=p"


def test_only_pods_that_failed_by_themselves_before_they_served_are_called_hopeless(step) -> None:
    """What an upgrade may be rolled back for without being asked: never for a deadline, a pause, a quota."""
    crash = hopeless(trouble("CrashLoopBackOff", "crash", exit_code=1))
    symptoms = Symptoms((), (), "")
    assert isinstance(diagnose(step, crash, symptoms, 1.0), HopelessError)
    late = hopeless(trouble("Unhealthy"), message="no progress")
    others = [
        (crash, True),
        (hopeless(reason="Paused"), False),
        (hopeless(reason="FailedCreate", message="exceeded quota"), False),
        (Verdict(State.HOPELESS, "ProgressDeadlineExceeded", "late", Counts(1, 1, 0, 0, 0), (), late.trouble), False),
        (Verdict(State.PROGRESSING, "Starting", "0 of 1", Counts(1, 1, 0, 0, 0), (), crash.trouble), False),
    ]
    for verdict, served in others:
        found = diagnose(step, verdict, symptoms, 1.0, served=served)
        assert type(found) is RolloutError
