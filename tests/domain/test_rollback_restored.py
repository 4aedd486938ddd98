"""Whether the database that a rollback put back still counts as such when it goes on."""

from typing import Any

import pytest

from tasks.domain.journal import Before, Entry
from tasks.domain.rollback_restored import restored_entry, without_overtaken
from tests.domain.journals import NEW, OLD, backup, journal, restore, rollback, scale, set_image

UPGRADE = journal("20260301-120000-aa", set_image(), backup=backup())
STOPPED = 4


def put_back(generation: int | None = STOPPED) -> Entry:
    evidence: dict[str, Any] = {} if generation is None else {"generation": generation}
    return restore(done=60).model_copy(update={"evidence": evidence})


def written(entry: Entry, before: int, after: int | None) -> Entry:
    old = entry.before or Before(uid="", generation=0, replicas=0)
    return entry.model_copy(
        update={
            "before": old.model_copy(update={"generation": before}),
            "done": None if after is None else entry.begun,
            "evidence": {} if after is None else {"generation": after},
        }
    )


OLD_IMAGE = set_image(to=OLD, was=NEW)
UP = scale(to=1, was=0)


@pytest.mark.parametrize(
    ("entries", "at_old", "replicas", "generation", "stands"),
    [
        pytest.param([put_back()], False, 0, 4, True, id="nobody wrote since"),
        pytest.param([put_back()], False, 1, 5, False, id="started"),
        pytest.param([put_back()], False, 0, 6, False, id="started and stopped again"),
        pytest.param([put_back(None)], False, 0, 4, False, id="nothing was noted"),
        pytest.param([restore()], False, 0, 4, False, id="not to its end"),
        pytest.param([put_back(), restore()], False, 0, 4, False, id="the second one not to its end"),
        pytest.param([put_back(), put_back(8)], False, 0, 8, True, id="the second one"),
        pytest.param([put_back(), written(OLD_IMAGE, 4, None)], False, 0, 4, True, id="image not set yet"),
        pytest.param([put_back(), written(OLD_IMAGE, 4, None)], True, 0, 5, True, id="image set, answer lost"),
        pytest.param([put_back(), written(OLD_IMAGE, 4, 5)], True, 0, 5, True, id="image set"),
        pytest.param([put_back(), written(OLD_IMAGE, 4, 5)], True, 1, 9, True, id="old manager up"),
        pytest.param([put_back(), written(OLD_IMAGE, 4, 5)], False, 1, 9, False, id="the new image again"),
        pytest.param([put_back(), written(OLD_IMAGE, 4, 6)], True, 0, 6, False, id="somebody else in between"),
        pytest.param([put_back(), written(OLD_IMAGE, 5, 6)], True, 1, 6, False, id="started, then the image"),
        pytest.param([put_back()], True, 1, 6, False, id="old image by somebody else"),
        pytest.param([put_back()], True, 0, 4, True, id="had its old image when it was stopped"),
        pytest.param([put_back(), written(UP, 4, 5)], True, 1, 5, True, id="and was started by the rollback"),
    ],
)  # fmt: skip
def test_it_stands_where_no_new_manager_may_have_run(
    entries: list[Entry],
    at_old: bool,  # noqa: FBT001 - of the table
    replicas: int,
    generation: int,
    stands: bool,  # noqa: FBT001 - of the table
) -> None:
    made = rollback(UPGRADE, "20260301-130000-bb", scale(done=41), *entries)
    found = restored_entry(made, at_old=at_old, replicas=replicas, generation=generation)
    assert found == (next(e for e in reversed(entries) if e.kind == "restore") if stands else None)


def test_what_was_overtaken_does_not_come_back() -> None:
    made = rollback(UPGRADE, "20260301-130000-bb", scale(done=41), put_back())
    after = without_overtaken(made, "started by somebody")
    assert restored_entry(made, at_old=False, replicas=0, generation=STOPPED)
    assert restored_entry(after, at_old=False, replicas=0, generation=STOPPED) is None
    assert restored_entry(None, at_old=True, replicas=1, generation=STOPPED) is None
