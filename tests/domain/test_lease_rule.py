"""Who may hold the lock: every time that decides is the reader's own."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.errors import BlockedError, StoppedError
from tasks.domain.journal import Owner
from tasks.domain.lease_rule import (
    After,
    Claim,
    LeaseFacts,
    LeaseLostError,
    Rhythm,
    Seen,
    Sign,
    after_conflict,
    expired,
    given_back,
    held,
    looks_fresh,
    lost,
    marks,
    patience,
    read_lease,
    sign,
    taken,
    waiting_told,
)

NOW = datetime(2026, 11, 22, 21, 0, 0, 123456, UTC)
OWNER = Owner(user="ops", host="jump-1", pid=4711, tool="1.0")
ABOUT = {"owner": str(OWNER), "run": "20261122-a", "doing": "manager: waiting until it is Ready"}
OTHER = LeaseFacts("u/7", "other", 30.0, 4, NOW - timedelta(minutes=5), NOW, ABOUT)


def later(facts: LeaseFacts, **changes: object) -> LeaseFacts:
    """The same Lease after one more write."""
    uid, _, version = facts.version.partition("/")
    return replace(facts, **{"version": f"{uid}/{int(version) + 1}", **changes})  # type: ignore[arg-type]


def test_what_is_written_reads_back() -> None:
    claim = Claim("me", 2.5, 3, NOW, marks(OWNER, "r", "resting", {"pid": "4711", "place": "here"}))
    body = claim.written(None, NOW + timedelta(seconds=1))
    assert body["spec"] == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 3,
        "acquireTime": "2026-11-22T21:00:00.123456Z",
        "renewTime": "2026-11-22T21:00:01.123456Z",
        "leaseTransitions": 3,
    }
    facts = read_lease({**body, "metadata": {**body["metadata"], "uid": "u", "resourceVersion": "9"}})
    assert (facts.version, facts.holder, facts.seconds, facts.transitions) == ("u/9", "me", 3.0, 3)
    assert (facts.acquired, facts.renewed) == (NOW, NOW + timedelta(seconds=1))
    assert (facts.who, facts.run, facts.doing) == ("ops on jump-1, process 4711", "r", "resting")
    assert facts.marks["place"] == "here"
    another = read_lease({**body, "spec": {**body["spec"], "holderIdentity": "mallory"}})
    assert (another.who, another.marks) == ("mallory", {}), "the marks are of another than who wrote its name there"
    removed = read_lease({**body, "spec": {**body["spec"], "holderIdentity": ""}})
    assert removed.marks == facts.marks


def test_what_others_noted_on_it_stays_and_its_version_makes_the_write_conditional() -> None:
    noted = {"metadata": {"name": "x", "uid": "u", "resourceVersion": "8", "managedFields": [1],
                          "annotations": {"team": "a", "apinizer-upgrade/run": "old", "apinizer-upgrade/gone": "1"}}}  # fmt: skip
    meta = Claim("me", 30, 0, NOW, {"run": "new", "doing": "x" * 1000}).written(noted, NOW)["metadata"]
    assert (meta["uid"], meta["resourceVersion"], "managedFields" in meta) == ("u", "8", False)
    assert meta["annotations"].keys() == {"team", *(f"apinizer-upgrade/{mark}" for mark in ("run", "doing", "holder"))}
    assert meta["annotations"]["apinizer-upgrade/run"] == "new"
    assert len(meta["annotations"]["apinizer-upgrade/doing"]) < 500


def test_given_back_is_free_and_keeps_the_count() -> None:
    body = Claim("me", 30, 3, NOW, {"run": "r"}).written(None, NOW)
    body["metadata"] |= {"uid": "u", "resourceVersion": "9"}
    back = given_back(body, NOW)
    facts = read_lease(back)
    assert facts.free
    assert (facts.transitions, back["metadata"]["resourceVersion"]) == (3, "9")
    assert "holderIdentity" not in back["spec"]
    assert back["spec"]["leaseDurationSeconds"] > 0, "the API server refuses others"


@pytest.mark.parametrize(
    ("thing", "free"),
    [
        ({}, True),
        ({"metadata": {}, "spec": {}}, True),
        ({"spec": {"renewTime": "yesterday", "acquireTime": "", "leaseDurationSeconds": None}}, True),
        ({"spec": {"holderIdentity": "x"}}, False),
        ({"spec": {}, "metadata": {"annotations": {"team": "a"}}}, True),
        ({"spec": {"holderIdentity": ""}, "metadata": {"annotations": {"apinizer-upgrade/run": "r"}}}, False),
    ],
)
def test_what_somebody_edited(thing, free) -> None:
    facts = read_lease(thing)
    assert facts.free is free
    assert facts.renewed is None
    assert facts.told


@pytest.mark.parametrize(
    ("now", "at", "expected"),
    [
        (OTHER, 100.0, Sign.SILENT),
        (OTHER, 129.9, Sign.SILENT),
        (OTHER, 130.0, Sign.DEAD),
        (later(OTHER, renewed=NOW + timedelta(seconds=5)), 500.0, Sign.ALIVE),
        (later(OTHER, renewed=NOW - timedelta(hours=1)), 500.0, Sign.ALIVE),  # its clock was set back: a renewal
        (later(OTHER, holder="third", transitions=5), 500.0, Sign.ALIVE),
        (later(OTHER, transitions=5), 500.0, Sign.ALIVE),
        (later(OTHER), 500.0, Sign.TOUCHED),  # somebody labelled it
        (later(OTHER, seconds=1.0), 500.0, Sign.TOUCHED),
        (later(OTHER, holder=""), 500.0, Sign.TOUCHED),  # its name was cleared by hand; it may live
        (later(OTHER, holder="", renewed=None, transitions=0), 500.0, Sign.TOUCHED),
        (later(OTHER, holder="", marks={}), 101.0, Sign.FREE),
    ],
)
def test_signs_of_a_holder_first_seen_at_100(now, at, expected) -> None:
    assert sign(Seen(OTHER, 100.0), now, at, 30.0) is expected


def test_a_short_duration_in_the_lease_shortens_nothing() -> None:
    assert patience(replace(OTHER, seconds=1.0), 30.0) == 30.0
    assert patience(replace(OTHER, seconds=90.0), 30.0) == 90.0
    assert sign(Seen(replace(OTHER, seconds=1.0), 0.0), replace(OTHER, seconds=1.0), 29.0, 30.0) is Sign.SILENT


@given(
    sent=st.floats(0, 1e6), network=st.floats(0, 20), answer=st.floats(0, 20), looked=st.floats(0, 60),
    seconds=st.floats(1, 120), drift=st.floats(0.95, 1.05), ours=st.floats(1, 120),
)  # fmt: skip
def test_a_holder_is_over_before_anybody_takes_over(sent, network, answer, looked, seconds, drift, ours) -> None:
    """Whenever it was looked at, and though the clocks run unequally fast."""
    written = sent + network
    seen_at = written + looked + answer  # true time; the looker's clock runs `drift` times as fast
    facts = replace(OTHER, seconds=seconds)
    over = seen_at + patience(facts, ours) / drift
    assert sign(Seen(facts, 0.0), facts, patience(facts, ours), ours) is Sign.DEAD
    assert Rhythm(seconds).until(sent) < over


@pytest.mark.parametrize("seconds", [1.0, 30.0, 90.0])
def test_an_api_server_may_restart(seconds) -> None:
    """It goes right before a renewal; two thirds of the duration later it is back, and one try more is in time."""
    rhythm = Rhythm(seconds)
    assert rhythm.every + seconds * 2 / 3 + rhythm.again < rhythm.until(0.0)
    assert rhythm.until(0.0) < seconds


@pytest.mark.parametrize(
    ("renewed", "fresh"),
    [
        (NOW, True),
        (NOW - timedelta(seconds=9), True),
        (NOW - timedelta(seconds=11), False),
        (NOW + timedelta(seconds=9), True),
        (NOW + timedelta(hours=1), False),
        (NOW - timedelta(hours=1), False),
        (None, False),
    ],
)
def test_whom_to_wait_for(renewed, fresh) -> None:
    assert looks_fresh(replace(OTHER, renewed=renewed), NOW, 30.0) is fresh


MINE = Claim("me", 30.0, 4, NOW, {})


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (None, After.RENEW),  # deleted: it is made again
        (replace(OTHER, holder="me"), After.RENEW),  # an answer was lost, or somebody edited something else
        (replace(OTHER, holder="", marks={}), After.RENEW),  # cleared by hand
        (OTHER, After.LOST),
        (replace(OTHER, holder="", transitions=5), After.LOST),  # another took it and gave it back
        (replace(OTHER, holder="me", transitions=6), After.LOST),
    ],
)
def test_a_holder_whose_write_was_refused(found, expected) -> None:
    assert after_conflict(MINE, found) is expected


def test_what_people_read() -> None:
    told = waiting_told(Seen(OTHER, 100.0), 112.0, 30.0)
    assert told == (
        "The lock is held by ops on jump-1, process 4711, run 20261122-a, since 2026-11-22 20:55:00 UTC: "
        "manager: waiting until it is Ready; silent for 12 s of 30"
    )
    blocked = held(OTHER, 30.0)
    assert isinstance(blocked, BlockedError)
    assert "20261122-a" in blocked.happened
    assert "ops on jump-1, process 4711" in blocked.observed
    assert "21:00:00 UTC by its own clock" in blocked.observed
    assert "for 30 seconds" in blocked.next
    error = lost("20261122-b", expired(Rhythm(30.0), "The Kubernetes API could not be reached."))
    assert isinstance(error, LeaseLostError)
    assert isinstance(error, StoppedError)
    assert "27 of its 30 seconds" in error.observed
    assert "could not be reached" in error.observed
    assert "apinizer-upgrade resume 20261122-b" in error.next
    assert "taken over by ops on jump-1" in taken(OTHER)
    assert "stood still" in expired(Rhythm(30.0), "")
