"""How a run reads: what is said of each change, each try, and what can be done."""

import pytest

from tasks.domain.journal import Ended, Journal
from tasks.domain.journal_text import cells, document, page, state, summary
from tests.domain.journals import NEW, OLD, OTHER, at, backup, journal, rollback, scale, set_image

ERROR = {"happened": "It failed.", "observed": "first line\nsecond line", "safe": "All is old.", "next": "Look."}
WHOLE = journal("a", set_image(done=60), backup=backup())


@pytest.mark.parametrize(
    ("run", "others", "told"),
    [
        pytest.param(WHOLE, (), "unfinished", id="unfinished"),
        pytest.param(WHOLE, (rollback(WHOLE, "b"),), "being rolled back", id="being rolled back"),
        pytest.param(
            WHOLE, (rollback(WHOLE, "b").end(at(9), Ended.ABANDONED),), "unfinished", id="no more rolled back"
        ),
        pytest.param(WHOLE.end(at(9), Ended.ROLLED_BACK), (), "rolled back", id="rolled back"),
        pytest.param(WHOLE.end(at(9), Ended.COMPLETE), (), "complete", id="complete"),
    ],
)
def test_its_state(run: Journal, others: tuple[Journal, ...], told: str) -> None:
    assert state(run, (run, *others)) == told
    assert cells(run, others)[:3] == ("a", f"upgrade {OLD} -> {NEW}", told)
    assert summary(run, others)["state"] == told


def test_an_undo_of_one_component_is_called_so() -> None:
    run = journal("a", set_image("prod/worker"), kind="rollback", to=OLD, options={"undo": "prod/worker"})
    assert cells(run)[1] == f"undo of prod/worker {OLD} -> {OLD}"
    assert (summary(run)["kind"], summary(rollback(WHOLE))["kind"]) == ("undo", "rollback")


@pytest.mark.parametrize(
    ("way", "told"), [("online", False), ("docker-to-nodes", True), ("registry-to-registry", True)]
)
def test_what_a_journal_does_not_keep_is_to_be_given_again(way: str, *, told: bool) -> None:
    run = journal("a", set_image(), backup=backup(), options={"way": way})
    assert ("with the options on images and nodes (--node, --ssh-user ...) that it had" in page(run)) is told
    assert f"  apinizer-upgrade resume {run.id}   goes on where it ended" in page(run)


@pytest.mark.parametrize(
    ("run", "told"),
    [
        pytest.param(WHOLE, "12:00:30, done after 30 s", id="done"),
        pytest.param(journal("a", set_image()), "12:00:30, its outcome is not recorded", id="killed in it"),
        pytest.param(
            journal("a").begin(set_image()).withdraw(0, at(31), "no right"), "refused: it was not made", id="refused"
        ),
        pytest.param(journal("a"), "Changes: none was begun", id="none"),
        pytest.param(
            WHOLE, f"undo: kubectl -n apinizer set image deployment/manager main=apinizercloud/manager:{OLD}", id="undo"
        ),
        pytest.param(journal("a", scale()), "replicas: 1 -> 0", id="scaled"),
        pytest.param(WHOLE.stop(at(9), ERROR), "Observed: first line\n       second line", id="lines of an error"),
        pytest.param(
            WHOLE.take_up(OTHER, at(99)),
            "2026-03-01 12:00:00 to an end that it did not write: it was killed",
            id="killed",
        ),
        pytest.param(WHOLE.take_up(OTHER, at(99)), "flow run b7", id="a flow run"),
        pytest.param(WHOLE.take_up(OTHER, at(99)), "to now, or it was killed", id="perhaps at work"),
        pytest.param(WHOLE.end(at(99), Ended.ABANDONED, "by hand"), "reason   by hand", id="a reason"),
    ],
)
def test_what_a_page_says(run: Journal, told: str) -> None:
    assert told in page(run, [run])


def test_what_was_refused_has_nothing_to_undo_and_does_not_count() -> None:
    run = journal("a").begin(set_image()).withdraw(0, at(31), "no right")
    assert "undo:" not in page(run)
    assert summary(run)["changes"] == 0


def done(run: Journal, *others: Journal) -> list[str]:
    found = document(run, (run, *others))["can_be_done"]
    return [" ".join(way.split()[1:]) for way in found]


def test_what_can_be_done_at_the_end_of_the_page() -> None:
    assert done(WHOLE) == ["resume a", "rollback a", "runs abandon a --reason TEXT"]
    assert done(WHOLE.end(at(9), Ended.COMPLETE)) == ["rollback a", "upgrade --to VERSION"]
    assert done(journal("a").stop(at(9), ERROR)) == [f"upgrade --to {NEW}"]
    assert done(journal("a").stop(at(9), ERROR), journal("b")) == [], "another is unfinished"
