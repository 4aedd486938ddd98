"""When the way back from a run is open, and what is said where it is not."""

from datetime import timedelta
from typing import Any

import pytest

from tasks.domain.errors import BlockedError
from tasks.domain.journal import Ended, Journal
from tasks.domain.rollback_allowed import require_allowed
from tests.domain.installation import inventory_of
from tests.domain.recorded import BEGUN, backup_made, image_entry, rollback_journal, upgrade_journal

INVENTORY = inventory_of(
    [
        {"at": "apinizer/m", "runs": "apinizercloud/manager:2025.07.0"},
        {"at": "prod/w", "runs": "apinizercloud/worker:2025.07.0"},
    ]
)
MANAGER, WORKER = INVENTORY.deployments
SET = image_entry(MANAGER, {"main": "apinizercloud/manager:2025.07.0"})
WORKER_SET = image_entry(WORKER, {"main": "apinizercloud/worker:2025.07.0"})
LATER = BEGUN + timedelta(days=3)
NOW: dict[str, Any] = {"manager": MANAGER, "hosts": ("db-0:25080", "db-1:25080"), "database": "apinizerdb"}
OPEN = upgrade_journal((SET,))
DONE = OPEN.end(BEGUN + timedelta(hours=2), Ended.COMPLETE)


def another(how: Ended | None, **changes: Any) -> Journal:
    """An upgrade that was begun later."""
    journal = upgrade_journal((SET,), **{"id": "20261123-100000-cccc", "begun": LATER, **changes})
    return journal if how is None else journal.end(LATER, how)


@pytest.mark.parametrize(
    ("journal", "others", "codes"),
    [
        (OPEN, [], []),
        (DONE, [DONE], []),
        (OPEN.end(LATER, Ended.ABANDONED, "by hand"), [], ["abandoned"]),
        (DONE, [rollback_journal(DONE).end(LATER, Ended.ABANDONED)], ["rollback-abandoned"]),
        (DONE, [another(Ended.ROLLED_BACK)], []),
        (DONE, [another(Ended.NOTHING_CHANGED)], []),
        (DONE, [another(Ended.ABANDONED, entries=())], []),
        # Its journal was left open, and the rollback of it says that it is undone.
        (DONE, [another(Ended.ABANDONED), rollback_journal(another(None), begun=LATER).end(LATER, Ended.COMPLETE)], []),
        (DONE, [another(Ended.COMPLETE, begun=BEGUN - timedelta(days=9), id="older")], []),
        (DONE, [another(Ended.COMPLETE, manager=WORKER.key)], []),
        (upgrade_journal((WORKER_SET,), backup=None), [], ["manager-not-begun"]),
    ],
)
def test_the_way_back_is_open(journal: Journal, others: list[Journal], codes: list[str]) -> None:
    assert [finding.code for finding in require_allowed(journal, others, **NOW)] == codes


@pytest.mark.parametrize(
    ("journal", "others", "now", "happened", "told"),
    [
        (upgrade_journal((SET,), backup=None), [], {}, "recorded no backup", "resume 20261120-100000-aaaa"),
        (
            upgrade_journal((SET,), backup=None).end(LATER, Ended.COMPLETE),
            [],
            {},
            "recorded no backup",
            "With a backup of your own of before: scale the manager to 0",
        ),
        (upgrade_journal(), [], {}, "changed nothing", "abandon 20261120-100000-aaaa"),
        (
            upgrade_journal().end(LATER, Ended.NOTHING_CHANGED, "No node."),
            [],
            {},
            "changed nothing",
            "It ended: No node.",
        ),
        (DONE.end(LATER, Ended.ROLLED_BACK), [], {}, "was rolled back already", "upgrade --to VERSION"),
        (
            OPEN,
            [rollback_journal(OPEN).end(LATER, Ended.COMPLETE)],
            {},
            "was rolled back already by the run 20261121-100000-bbbb",
            "",
        ),
        (rollback_journal(OPEN), [], {}, "is itself a rollback", "resume 20261121-100000-bbbb"),
        (rollback_journal(OPEN).end(LATER, Ended.COMPLETE), [], {}, "is itself a rollback", "upgrade --to VERSION"),
        (DONE, [another(Ended.COMPLETE)], {}, "its backup is older than that one", "rollback 20261123-100000-cccc"),
        (DONE, [another(Ended.ABANDONED)], {}, "its backup is older than that one", "rollback 20261123-100000-cccc"),
        (DONE, [another(None)], {}, "The upgrade 20261123-100000-cccc to 2025.07.0 is unfinished", "resume 2026112"),
        (OPEN, [rollback_journal(OPEN)], {}, "The rollback 20261121-100000-bbbb", "resume 20261121-100000-bbbb"),
        (OPEN, [], {"manager": WORKER}, "of another installation", "Its manager is apinizer/m"),
        (
            OPEN,
            [],
            {"manager": MANAGER.model_copy(update={"uid": "new"})},
            "made anew",
            "rollback 20261120-100000-aaaa --manager-made-anew",
        ),
        (
            OPEN,
            [],
            {"manager": MANAGER.model_copy(update={"uid": "newer"}), "made_anew": "new"},
            "made anew",
            "was uid-apinizer-m, and is newer now",
        ),
        (OPEN, [], {"database": "otherdb"}, "of another installation", "Its backup is of apinizerdb"),
    ],
)
def test_the_way_back_is_refused(
    journal: Journal, others: list[Journal], now: dict[str, Any], happened: str, told: str
) -> None:
    with pytest.raises(BlockedError) as raised:
        require_allowed(journal, others, **(NOW | now))
    assert happened in raised.value.happened
    assert told in str(raised.value)
    assert raised.value.observed
    assert raised.value.next
    assert raised.value.safe == "Nothing was changed."


def test_several_later_runs_are_undone_from_the_last_one() -> None:
    second = another(Ended.COMPLETE, id="20261124-100000-dddd", begun=LATER + timedelta(days=1))
    with pytest.raises(BlockedError) as raised:
        require_allowed(DONE, [another(Ended.COMPLETE), second], **NOW)
    assert raised.value.next.endswith("rollback 20261124-100000-dddd.")
    assert "20261123-100000-cccc" in raised.value.observed


def test_one_host_of_a_replica_set_in_common_is_enough_and_what_is_not_known_is_not_compared() -> None:
    assert require_allowed(OPEN, [], manager=MANAGER, hosts=("db-1:25080", "db-9:25080")) == ()
    assert require_allowed(OPEN, [], manager=None) == ()
    assert require_allowed(upgrade_journal((SET,), backup=backup_made(hosts=("x:1",))), [], manager=MANAGER) == ()


def test_another_address_of_the_database_is_told_and_what_it_holds_decides() -> None:
    (found,) = require_allowed(OPEN, [], **(NOW | {"hosts": ("localhost:40001",)}))
    assert found.code == "hosts-differ"
    assert "db-0:25080, db-1:25080" in found.what
    assert "localhost:40001" in found.what


def test_a_manager_that_is_said_to_be_made_anew_is_the_one_of_before() -> None:
    anew = MANAGER.model_copy(update={"uid": "new"})
    assert require_allowed(OPEN, [], **(NOW | {"manager": anew}), made_anew="new") == ()


def test_a_rollback_that_goes_on_is_not_in_its_own_way() -> None:
    under_way = rollback_journal(OPEN)
    ended = OPEN.end(LATER, Ended.ROLLED_BACK)
    assert require_allowed(OPEN, [OPEN, under_way], **NOW, under_way=under_way.id) == ()
    assert require_allowed(ended, [ended, under_way], **NOW, under_way=under_way.id) == ()
