"""What abandoning a run means, and what can be done after it, with the commands as they are typed."""

import pytest

from tasks.domain.abandon_text import consequence, ways_after
from tasks.domain.journal import Ended, Journal
from tests.domain.journals import OLD, at, backup, journal, restore, rollback, scale, set_image

OPEN = journal("20260301-120000-aa", set_image(), backup=backup())
COMPLETE = OPEN.end(at(90), Ended.COMPLETE)
SAFETY = backup("safety.archive")


def back(of: Journal, *, half: bool, done: float | None = None) -> Journal:
    entries = (scale(done=70), restore(done)) if half else (scale(done=70),)
    return rollback(of, "20260301-130000-bb", *entries, safety=SAFETY)


def abandoned(run: Journal) -> Journal:
    return run.end(at(9000), Ended.ABANDONED, "by hand")


def test_a_run_that_changed_nothing() -> None:
    assert consequence(journal("a"), ()) == "Nothing was changed by it."


def test_an_upgrade_stays_as_far_as_it_came() -> None:
    told = consequence(OPEN, [OPEN])
    assert "It changed apinizer/manager (its outcome is not known): that stays as it is" in told
    assert backup().archive in told
    whole = journal("a", set_image(done=60), set_image("prod/worker", done=70), backup=backup())
    told = consequence(whole, [whole])
    assert "It changed apinizer/manager, prod/worker: that stays" in told
    assert "half" not in told, "all that it began was done"


@pytest.mark.parametrize(
    ("upgrade", "told"),
    [
        pytest.param(OPEN, "is unfinished then, and blocks other runs", id="unfinished"),
        pytest.param(COMPLETE, "has ended (complete), so nothing stops another run", id="complete"),
        pytest.param(abandoned(OPEN), "has ended (abandoned), so nothing stops another run", id="abandoned"),
        pytest.param(None, "is not recorded any more, so nothing stops another run", id="gone"),
    ],
)
def test_what_becomes_of_the_upgrade_that_a_rollback_undoes(upgrade: Journal | None, told: str) -> None:
    run = back(OPEN, half=False)
    assert told in consequence(run, [run, *([upgrade] if upgrade else [])])


def test_an_undo_of_one_component() -> None:
    run = journal("c", set_image("prod/worker"), kind="rollback", options={"undo": "prod/worker"})
    assert consequence(run, [run]).startswith("prod/worker stays as it is")


def test_a_database_that_is_half_put_back_is_said() -> None:
    assert "Start nothing on it" in consequence(back(COMPLETE, half=True), [COMPLETE])
    assert "Start nothing" not in consequence(back(COMPLETE, half=False), [COMPLETE])
    assert "Start nothing" not in consequence(back(COMPLETE, half=True, done=80), [COMPLETE])


def test_a_half_restored_database_is_put_back_by_commands_that_are_not_refused() -> None:
    run = abandoned(back(COMPLETE, half=True))
    commands = [way.partition("   ")[0] for way in ways_after(run, [run, COMPLETE])]
    assert commands == [
        f"apinizer-upgrade rollback {COMPLETE.id}",
        f"apinizer-upgrade restore {backup().archive} --exact --give-up",
        f"apinizer-upgrade restore {SAFETY.archive} --exact --give-up",
        f"apinizer-upgrade runs show {run.id}",
    ]


def test_no_restore_by_hand_while_the_upgrade_is_unfinished() -> None:
    """A restore is refused then."""
    run = abandoned(back(OPEN, half=True))
    commands = [way.partition("   ")[0] for way in ways_after(run, [run, OPEN])]
    assert commands[0] == f"apinizer-upgrade rollback {OPEN.id}"
    assert not any("restore" in command for command in commands)
    assert f"apinizer-upgrade resume {OPEN.id}" in commands
    assert f"apinizer-upgrade runs abandon {OPEN.id} --reason TEXT" in commands
    assert f"goes back to {OLD}" in ways_after(run, [run, OPEN])[0]
