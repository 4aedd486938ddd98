"""An upgrade goes back by itself only from a manager that failed for good before it ever served."""

import pytest

from tasks.domain.automatic_return import may_go_back, not_gone_back
from tasks.domain.errors import (
    NOTHING_CHANGED,
    BlockedError,
    DriftError,
    HopelessError,
    RolloutError,
    StoppedError,
    UnprovenError,
    UpgradeError,
)
from tasks.domain.journal import Ended, Journal
from tests.domain.journals import OTHER, at, backup, journal, rollback, set_image

FAILED = journal("20260301-120000-aa", set_image(), backup=backup())
DONE = set_image(done=60)
UNANSWERED = DONE.model_copy(update={"evidence": {"generation": 3}})


def test_a_manager_that_failed_for_good() -> None:
    found = may_go_back(HopelessError("It crashes."), [FAILED])
    assert found == (FAILED, FAILED.backup)
    set_but_never_ready = FAILED.model_copy(update={"entries": (UNANSWERED,)})
    assert may_go_back(HopelessError("It crashes."), [set_but_never_ready]) is not None


@pytest.mark.parametrize("kind", [RolloutError, DriftError, StoppedError, UnprovenError, UpgradeError])
def test_every_other_end_is_a_persons_to_decide(kind: type[UpgradeError]) -> None:
    assert may_go_back(kind("It did not become Ready within 1200 s."), [FAILED]) is None


@pytest.mark.parametrize(
    "journals",
    [
        [],
        [FAILED.model_copy(update={"backup": None})],
        [FAILED.model_copy(update={"entries": (DONE,)})],
        [FAILED.model_copy(update={"entries": (UNANSWERED, set_image("test/worker"))})],
        [FAILED.model_copy(update={"entries": ()})],
        [FAILED.end(at(90), Ended.COMPLETE)],
        [FAILED, rollback(FAILED)],
        [FAILED.model_copy(update={"entries": (UNANSWERED,)}).take_up(OTHER, at(40_000))],
    ],
    ids=[
        "no journal",
        "no backup",
        "it answered",
        "another too",
        "nothing begun",
        "ended",
        "being rolled back",
        "a try after it",
    ],
)
def test_what_it_does_not_go_back_from(journals: list[Journal]) -> None:
    assert may_go_back(HopelessError("It crashes."), journals) is None


MANAGER = HopelessError(
    "It crashes.", observed="FATAL", safe="Its backup is there.", next="apinizer-upgrade rollback a"
)


@pytest.mark.parametrize("safe", [NOTHING_CHANGED, "This try changed nothing. Changed by the run a before: m."])
def test_what_stopped_the_way_back_before_a_change(safe: str) -> None:
    told = not_gone_back(MANAGER, BlockedError("No disk.", observed="0 bytes", safe=safe, next="Free some."))
    assert (type(told), told.safe) == (HopelessError, MANAGER.safe)
    assert told.happened == "It crashes. The rollback that followed stopped: No disk."
    assert told.next.splitlines() == ["Free some.", "apinizer-upgrade rollback a"]


def test_what_stopped_the_way_back_after_one() -> None:
    told = not_gone_back(
        MANAGER, StoppedError("Interrupted.", safe="Scaled down: m.", next="apinizer-upgrade resume b")
    )
    assert (type(told), told.safe, told.next) == (StoppedError, "Scaled down: m.", "apinizer-upgrade resume b")
