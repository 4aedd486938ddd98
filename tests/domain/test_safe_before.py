"""What is said to be safe by a try that has changed nothing itself."""

import pytest

from tasks.domain.errors import NOTHING_CHANGED
from tasks.domain.journal import Ended, Journal
from tasks.domain.safe_before import safe_before, standing
from tests.domain.journals import at, backup, journal, restore, rollback, scale, set_image

UPGRADE = journal("20260301-120000-aa", set_image(done=60), set_image("prod/worker"), backup=backup())
BACK = rollback(UPGRADE, "20260301-130000-bb", scale(done=70), restore())


@pytest.mark.parametrize("run", [None, journal("a"), rollback(UPGRADE)], ids=["none", "upgrade", "rollback"])
def test_where_no_run_changed_anything(run: Journal | None) -> None:
    assert safe_before(run) == NOTHING_CHANGED


def test_what_the_upgrade_changed_and_where_the_way_back_is() -> None:
    told = safe_before(UPGRADE)
    assert told.startswith("This try changed nothing.")
    assert "apinizer/manager, prod/worker" in told
    assert backup().archive in told


def test_a_half_restored_database_is_not_passed_over() -> None:
    told = safe_before(BACK)
    assert told.startswith("This try changed nothing.")
    assert "Scaled down for the rollback" in told
    assert "Start nothing on it" in told


def test_the_run_that_stands() -> None:
    ended = UPGRADE.end(at(90), Ended.COMPLETE)
    assert standing([UPGRADE, BACK]) == BACK
    assert standing([UPGRADE, rollback(UPGRADE)]) == UPGRADE
    assert standing([ended, journal("a")]) is None
