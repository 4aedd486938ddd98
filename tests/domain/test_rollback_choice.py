"""Which upgrade a rollback undoes, and which one goes on."""

import pytest

from tasks.domain.errors import BlockedError, UsageError
from tasks.domain.journal import Ended, Journal
from tasks.domain.rollback_choice import choose_rollback
from tests.domain.journals import at, journal, rollback, set_image

FAILED = journal("20260301-120000-aa", set_image())
COMPLETE = FAILED.end(at(90), Ended.COMPLETE)
NOTHING = journal("20260301-140000-cc", begun=7200).end(at(7210), Ended.NOTHING_CHANGED)
IDLE = journal("20260301-150000-ee", begun=9000)
GOING = rollback(FAILED)
BACK = rollback(COMPLETE).end(at(4000), Ended.COMPLETE)


@pytest.mark.parametrize(
    ("journals", "run", "upgrade", "under_way"),
    [
        ([FAILED], "", FAILED, None),
        ([COMPLETE], "", COMPLETE, None),
        ([COMPLETE, NOTHING], "", COMPLETE, None),
        ([NOTHING], "", NOTHING, None),
        ([COMPLETE, IDLE], "", COMPLETE, None),
        ([COMPLETE, IDLE], COMPLETE.id, COMPLETE, None),
        ([FAILED, GOING], "", FAILED, GOING),
        ([FAILED, GOING], FAILED.id, FAILED, GOING),
        ([FAILED, GOING], GOING.id, FAILED, GOING),
        ([COMPLETE, BACK], COMPLETE.id, COMPLETE, None),
        ([COMPLETE, NOTHING], "20260301-12", COMPLETE, None),
    ],
    ids=[
        "failed",
        "complete",
        "nothing since",
        "nothing",
        "idle since",
        "idle beside",
        "goes on",
        "by upgrade",
        "by rollback",
        "done",
        "beginning",
    ],
)
def test_the_one_that_is_meant(journals: list[Journal], run: str, upgrade: Journal, under_way: Journal | None) -> None:
    choice = choose_rollback(journals, run)
    assert (choice.upgrade.id, choice.under_way and choice.under_way.id) == (upgrade.id, under_way and under_way.id)


@pytest.mark.parametrize(
    ("journals", "run", "kind", "text"),
    [
        ([], "", UsageError, "no upgrade to go back from"),
        ([COMPLETE], "2027", UsageError, "no run 2027"),
        ([COMPLETE, BACK], BACK.id, BlockedError, "has ended"),
        ([GOING], "", BlockedError, "not recorded any more"),
        ([COMPLETE, journal("20260301-150000-dd", set_image(), begun=9000)], COMPLETE.id, BlockedError, "unfinished"),
    ],
    ids=["none", "unknown", "a rollback that ended", "its upgrade is gone", "another is unfinished"],
)
def test_what_cannot_be_meant(journals: list[Journal], run: str, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text) as raised:
        choose_rollback(journals, run)
    parts = raised.value.as_json()  # type: ignore[attr-defined]
    assert all(parts.values()), parts
