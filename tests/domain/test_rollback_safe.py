"""What is safe when a rollback stops, at each place where it may."""

from tasks.domain.errors import NOTHING_CHANGED
from tasks.domain.journal import Entry
from tasks.domain.rollback_restored import without_overtaken
from tasks.domain.rollback_safe import safe_in_rollback
from tests.domain.journals import NEW, OLD, backup, journal, restore, rollback, scale, set_image

UPGRADE = journal("20260301-120000-aa", set_image(), backup=backup())
SAFETY = backup("apinizer-backup--2025.07.0--2026-03-01--01.archive")


def safe(*entries: Entry, known: str = "", with_safety: bool = False) -> str:
    made = rollback(UPGRADE, "20260301-130000-bb", *entries)
    return safe_in_rollback(made.model_copy(update={"safety": SAFETY if with_safety else None}), known)


def old_image(done: float | None = None) -> Entry:
    return set_image(to=OLD, was=NEW, done=done)


def test_before_anything_is_changed() -> None:
    assert safe_in_rollback(None) == NOTHING_CHANGED
    assert safe() == NOTHING_CHANGED


def test_the_manager_is_stopped_and_the_database_as_it_was() -> None:
    text = safe(scale(done=41), with_safety=True)
    assert "apinizer/manager (it had 1)" in text
    assert "The database was not touched." in text
    assert SAFETY.archive in text


def test_in_the_middle_of_the_restore_the_restore_itself_knows_best() -> None:
    text = safe(scale(done=41), restore())
    assert "Start nothing on it" in text
    assert "not touched" not in text
    assert "Half of it." in safe(scale(done=41), restore(), known="Half of it.")
    assert "Start nothing on it" in safe(scale(done=41), restore(), known=NOTHING_CHANGED)


def test_the_database_is_back_and_the_manager_still_stopped() -> None:
    text = safe(scale(done=41), restore(done=60), old_image(done=61), known="Nothing was changed.")
    assert "apinizerdb is as it was before the upgrade" in text
    assert backup().archive in text
    assert "it had 1" in text
    assert f"Set to the images of {OLD}: apinizer/manager." in text


def test_a_database_that_was_put_back_and_counts_no_more() -> None:
    made = rollback(UPGRADE, "20260301-130000-bb", scale(done=41), restore(done=60))
    over = without_overtaken(made, "the manager was started")
    text = safe_in_rollback(over)
    assert "the manager was started" in text
    assert "Start nothing on it" in text
    assert "is as it was before" not in text
    again = safe_in_rollback(over.begin(restore()))
    assert "was being put back" in again
    assert "is as it was before" not in again


def test_a_database_that_was_left_alone() -> None:
    left = restore(done=60).model_copy(update={"evidence": {"unchanged": "No container ever started."}})
    assert "not touched: No container ever started." in safe(scale(done=41), left)


def test_a_manager_that_is_up_again_is_not_called_stopped() -> None:
    up = scale(to=1, was=0, done=70)
    assert "Scaled down" not in safe(scale(done=41), restore(done=60), old_image(done=61), up)
    assert "Scaled down" in safe(scale(was=2, done=41), restore(done=60), old_image(done=61), up)
