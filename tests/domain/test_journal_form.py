"""A journal as text: the same when read back, small enough, and never silent about what cannot be read."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.errors import UpgradeError
from tasks.domain.journal import Ended, Journal
from tasks.domain.journal_form import HARD_LIMIT, LIMIT, Unreadable, read, shorter, write
from tests.domain.journals import OTHER, at, backup, journal, restore, rollback, scale, set_image

LONG = {"happened": "h" * 3000, "observed": "a pod's log\n" * 3000, "safe": "s", "next": "n"}


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(journal("a"), id="begun"),
        pytest.param(journal("a", set_image(done=9), backup=backup()).take_up(OTHER, at(99)), id="half done"),
        pytest.param(
            rollback(journal("a", backup=backup()), "b", scale(done=5), restore(), safety=backup("s")).end(
                at(9), Ended.COMPLETE
            ),
            id="a rollback",
        ),
    ],
)
def test_it_reads_back_as_it_was(run: Journal) -> None:
    assert read(write(run)) == run
    assert json.loads(write(run))["format"] == 1, "even where it is the default"


def large(deployments: int, tries: int) -> Journal:
    """Many Deployments of two containers, and tries that failed with long texts."""
    run = journal("a", backup=backup())
    for number in range(deployments):
        entry = set_image(f"environment-{number:03}/worker-of-the-environment", done=number)
        run = run.begin(entry.model_copy(update={"evidence": {"answered": "2025.07.0", "events": "e" * 4000}}))
    for number in range(tries):
        run = run.stop(at(number), LONG).take_up(OTHER, at(number))
    return run


@pytest.mark.parametrize(("deployments", "tries"), [(100, 1), (100, 40), (1, 200), (200, 3)])
def test_it_stays_within_its_bound_and_keeps_every_change(deployments: int, tries: int) -> None:
    run = large(deployments, tries)
    text = write(run)
    assert len(text.encode()) <= LIMIT
    kept = read(text)
    assert isinstance(kept, Journal)
    for before, after in zip(run.entries, kept.entries, strict=True):
        assert (after.before, after.images, after.undo, after.key) == (
            before.before,
            before.images,
            before.undo,
            before.key,
        )
    assert (kept.tries[0].owner, kept.tries[-1].owner) == (run.tries[0].owner, run.tries[-1].owner)
    assert kept.tries[-2].error["happened"].startswith("hhh")


def test_what_fits_is_not_cut() -> None:
    run = large(20, 0).stop(at(9), LONG)
    assert read(write(run)) == run


def test_entries_that_no_object_can_hold_are_refused_and_not_cut() -> None:
    with pytest.raises(UpgradeError, match="too large") as caught:
        write(large(2500, 0))
    assert "2500 changes" in caught.value.observed
    assert caught.value.next


@given(st.text(max_size=300), st.integers(1, 200))
def test_a_text_keeps_its_beginning_and_its_end(text: str, cap: int) -> None:
    short = shorter(text, cap)
    if len(text) <= cap:
        assert short == text
    else:
        head, _, tail = short.partition(f" [... {len(text) - cap} characters ...] ")
        assert text.startswith(head)
        assert text.endswith(tail)
        assert len(head) + len(tail) == cap


def edited(**changes: object) -> str:
    return json.dumps(json.loads(write(journal("a", set_image(), backup=backup()))) | changes)


@pytest.mark.parametrize(
    ("text", "why", "newer"),
    [
        pytest.param("", "no JSON", False, id="empty"),
        pytest.param("{", "no JSON", False, id="cut"),
        pytest.param(write(journal("a", set_image()))[:-40], "no JSON", False, id="cut at its end"),
        pytest.param("[]", "no journal", False, id="a list"),
        pytest.param("null", "no journal", False, id="nothing"),
        pytest.param("{}", "format None", True, id="an empty object"),
        pytest.param(edited(format=2), "format 2, this program reads 1", True, id="another format"),
        pytest.param(edited(entries=[{"kind": "set-image"}]), "entries.0.subject", False, id="half an entry"),
        pytest.param(edited(to="newest"), "'newest' is not a version", False, id="no version"),
        pytest.param(edited(how="finished"), "how: ", False, id="an unknown end"),
        pytest.param(edited(begun="yesterday"), "begun: ", False, id="no time"),
        pytest.param(edited(more=1), "more: ", False, id="an unknown field"),
    ],
)
def test_what_is_no_journal_says_why(text: str, why: str, *, newer: bool) -> None:
    found = read(text)
    assert isinstance(found, Unreadable)
    assert why in found.why
    assert found.newer is newer


def test_another_format_names_the_program_that_wrote_it() -> None:
    found = read(edited(format=2))
    assert isinstance(found, Unreadable)
    assert found.tool == "apinizer-upgrade 0.1.0"


def test_a_generated_journal_reads_back() -> None:
    run = journal("ü", set_image(done=1)).end(at(3), Ended.ABANDONED, "güncelleme — „yarım“")
    assert HARD_LIMIT > LIMIT
    assert read(write(run)) == run
