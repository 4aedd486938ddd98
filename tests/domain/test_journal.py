"""What a journal says of a run, and what it allows: a table of runs that ended somewhere."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.errors import BlockedError, DriftError, UsageError
from tasks.domain.inventory import Inventory
from tasks.domain.journal import (
    Ended,
    Journal,
    find_journal,
    newest_first,
    prunable,
    require_fits,
    require_goes_on,
    require_none_unfinished,
    run_id,
    ways_on,
)
from tests.domain.installation import inventory_of
from tests.domain.journals import MANAGER, NEW, NOON, OLD, ONE, OTHER, at, backup, journal, restore, rollback, set_image
from tests.domain.journals import scale as scaled

ERROR = {"happened": "The manager will not become Ready.", "observed": "It crashes.", "safe": "s", "next": "n"}


# ------------------------------------------------------------------------------------------ what a run has done
@pytest.mark.parametrize(
    ("entries", "changed", "manager_begun"),
    [
        pytest.param((), False, False, id="nothing yet"),
        pytest.param((set_image(kind="images", key=None),), False, False, id="images brought to nodes"),
        pytest.param((set_image(),), True, True, id="killed between the entry and the change"),
        pytest.param((set_image(done=60),), True, True, id="the manager's image set"),
        pytest.param((set_image("prod/worker", done=60),), True, False, id="another's image set"),
        pytest.param((scaled(),), True, False, id="killed before the manager was scaled"),
        pytest.param((restore(),), True, False, id="killed before the restore"),
    ],
)
def test_a_change_counts_from_the_moment_its_entry_is_written(
    entries: tuple[Any, ...], *, changed: bool, manager_begun: bool
) -> None:
    run = journal("a", *entries)
    assert (run.changed, run.manager_begun, run.unfinished) == (changed, manager_begun, True)
    stopped = run.stop(at(70), ERROR)
    assert stopped.unfinished is changed, "a run that changed something is not over by failing"
    assert stopped.how is (None if changed else Ended.NOTHING_CHANGED)
    assert stopped.tries[-1].error == ERROR
    assert stopped.tries[-1].ended == at(70)


def test_several_tries_keep_what_was_there_before_the_first() -> None:
    run = journal("a").begin(set_image()).stop(at(40), ERROR).take_up(OTHER, at(90))
    again = set_image(before=set_image().before.model_copy(update={"generation": 3, "images": {"main": "x:new"}}))
    run = run.begin(again).finish(1, at(120), {"generation": 3})
    first = run.entry("set-image", MANAGER)
    assert first is not None
    assert first.before is not None
    assert first.before.images == {"main": f"apinizercloud/manager:{OLD}"}
    assert [e.done for e in run.entries] == [None, at(120)]
    assert [t.owner for t in run.tries] == [ONE, OTHER]
    assert [t.ended for t in run.tries] == [at(40), None]


def test_what_the_server_refused_was_not_made() -> None:
    run = journal("a", backup=backup()).begin(set_image()).withdraw(0, at(31), "The user may not patch deployments.")
    assert (run.changed, run.manager_begun, run.of_manager("set-image")) == (False, False, None)
    assert run.entries[0].evidence == {"refused": "The user may not patch deployments."}
    assert run.backed_up(backup("newer.archive")).backup == backup("newer.archive")
    assert run.stop(at(40), ERROR).how is Ended.NOTHING_CHANGED
    require_fits(run, world(apinizer_manager=None))
    again = run.begin(set_image(before=set_image().before.model_copy(update={"generation": 7})))
    first = again.of_manager("set-image")
    assert first is not None
    assert first.before is not None
    assert first.before.generation == 7
    third = again.withdraw(1, at(50), "no").begin(set_image("prod/worker"))
    assert third.changed
    with pytest.raises(BlockedError) as caught:
        require_none_unfinished([third])
    assert "prod/worker" in caught.value.observed


def test_stopping_a_run_that_nobody_took_up() -> None:
    assert journal("a", tries=()).stop(at(1), ERROR).how is Ended.NOTHING_CHANGED


def test_the_backup_of_before_is_not_replaced_once_the_manager_may_have_migrated() -> None:
    early = journal("a").backed_up(backup("one.archive")).backed_up(backup("two.archive"))
    assert early.backup is not None
    assert early.backup.archive.endswith("two.archive"), "nothing was changed yet: the newer one is as good"
    begun = early.begin(set_image())
    with pytest.raises(BlockedError, match="not the state of before") as caught:
        begun.backed_up(backup("three.archive"))
    assert "two.archive" in caught.value.observed


def test_the_safety_backup_stays_once_a_restore_has_begun() -> None:
    run = journal("a", kind="rollback").made_safe(backup("first.archive")).made_safe(backup("second.archive"))
    assert run.safety is not None
    assert run.safety.archive.endswith("second.archive"), "the database is as it was: the newer one is as good"
    half = run.begin(restore()).made_safe(backup("half-restored.archive")).made_safe(backup("half-restored.archive"))
    assert half.safety == run.safety
    assert [Path(made.archive).name for made in half.safeties] == ["half-restored.archive", "second.archive"]


# -------------------------------------------------------------------------------------------- may another begin
@pytest.mark.parametrize(
    ("run", "allowed"),
    [
        pytest.param(journal("a"), True, id="begun, and nothing changed"),
        pytest.param(journal("a", set_image()).stop(at(9), ERROR), False, id="failed after a change"),
        pytest.param(journal("a").stop(at(9), ERROR), True, id="failed before any change"),
        pytest.param(journal("a", set_image()).end(at(9), Ended.COMPLETE), True, id="complete"),
        pytest.param(journal("a", set_image()).end(at(9), Ended.ABANDONED, "mended by hand"), True, id="abandoned"),
        pytest.param(journal("a", set_image()).end(at(9), Ended.ROLLED_BACK), True, id="rolled back"),
        pytest.param(journal("a", scaled(), kind="rollback"), False, id="a rollback begun"),
    ],
)
def test_no_run_begins_beside_an_unfinished_one(run: Journal, *, allowed: bool) -> None:
    others = (journal("b", begun=-100).end(at(-50), Ended.COMPLETE), run)
    if allowed:
        require_none_unfinished(others)
        return
    with pytest.raises(BlockedError) as caught:
        require_none_unfinished(others)
    told = str(caught.value)
    assert f"The {run.called} a to {NEW} is unfinished" in told
    assert "ayse on bastion, process 4711" in told
    assert "apinizer-upgrade resume a " in told
    assert "apinizer-upgrade runs abandon a --reason TEXT" in told


def test_it_is_told_at_what_the_run_ended() -> None:
    run = journal("a", set_image("prod/worker", done=60), set_image()).stop(at(9), ERROR)
    with pytest.raises(BlockedError) as caught:
        require_none_unfinished([run])
    last = f"Last: Set the image of apinizer/manager to apinizercloud/manager:{NEW}, whose outcome is not recorded."
    assert last in caught.value.observed
    assert ERROR["happened"] in caught.value.observed


def commands(run: Journal, *others: Journal) -> list[str]:
    return [" ".join(way.split()[1:3]) for way in ways_on(run, [run, *others])]


def test_what_can_be_done() -> None:
    bare, whole = journal("a", set_image()), journal("a", set_image(), backup=backup())
    assert commands(bare) == ["resume a", "runs show", "runs abandon"]
    assert commands(whole) == ["resume a", "rollback a", "runs show", "runs abandon"]
    assert commands(rollback(whole, "b")) == ["resume b", "runs show", "runs abandon"]
    for how in (Ended.COMPLETE, Ended.ABANDONED):
        assert commands(whole.end(at(99), how)) == ["rollback a", "runs show"]
    for how in (Ended.ROLLED_BACK, Ended.NOTHING_CHANGED):
        assert commands(whole.end(at(99), how)) == ["runs show"]


def test_while_a_run_is_rolled_back_only_the_rollback_goes_on() -> None:
    run = journal("a", set_image(), backup=backup())
    back = rollback(run, "b", scaled())
    require_goes_on(run, [run])
    require_goes_on(run, [rollback(run, "b"), run])
    require_goes_on(back, [back, run])
    with pytest.raises(BlockedError, match="is being rolled back") as caught:
        require_goes_on(run, [back, run])
    assert "resume b" in caught.value.next
    assert commands(run, back) == ["resume b", "runs show"]
    with pytest.raises(BlockedError, match="The rollback b to"):
        require_none_unfinished([run, back])


def test_a_run_that_has_ended_does_not_go_on() -> None:
    run = journal("a", set_image(), backup=backup()).end(at(99), Ended.ABANDONED, "mended by hand")
    with pytest.raises(BlockedError, match="has ended: abandoned") as caught:
        require_goes_on(run, [run])
    assert "mended by hand" in caught.value.observed


# ------------------------------------------------------------------------------------------------------ finding
RUNS = (
    journal("20260301-110000-aa", begun=-3600).end(at(-3000), Ended.COMPLETE),
    journal("20260301-120000-bb", set_image()),
    journal("20260301-130000-cc", begun=3600).end(at(4000), Ended.NOTHING_CHANGED),
)


@pytest.mark.parametrize(
    ("asked", "unfinished", "found"),
    [
        pytest.param("", False, "20260301-130000-cc", id="the newest"),
        pytest.param("", True, "20260301-120000-bb", id="the newest unfinished"),
        pytest.param("20260301-11", False, "20260301-110000-aa", id="a unique beginning"),
        pytest.param("20260301-120000-bb", False, "20260301-120000-bb", id="an ID"),
    ],
)
def test_finding(asked: str, *, unfinished: bool, found: str) -> None:
    assert find_journal(RUNS, asked, unfinished=unfinished).id == found


@pytest.mark.parametrize(
    ("asked", "unfinished", "told"),
    [
        pytest.param("20260301", False, "20260301 means several runs", id="ambiguous"),
        pytest.param("2027", False, "There is no run 2027", id="unknown"),
        pytest.param("20260301-11", True, "There is no unfinished run 20260301-11", id="finished"),
    ],
)
def test_not_finding(asked: str, *, unfinished: bool, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        find_journal(RUNS, asked, unfinished=unfinished)
    assert "20260301-120000-bb" in caught.value.observed
    assert "runs" in caught.value.next


def test_an_id_wins_over_those_that_begin_with_it() -> None:
    assert find_journal([journal("ab"), journal("a", begun=-9)], "a").id == "a"
    with pytest.raises(UsageError, match="There is no run"):
        find_journal([])


def test_ids_are_names_in_the_order_of_time() -> None:
    assert run_id(NOON, "1f0c") == "20260301-120000-1f0c"
    assert run_id(NOON, "ffff") < run_id(at(1), "0000")


# ---------------------------------------------------------------------------------------------- does it still fit
PORTAL = set_image("portal/portal", repository="apiportal", image=f"apinizercloud/portal:{OLD}", component="portal")
WORLD: dict[str, dict[str, Any]] = {
    "apinizer/manager": {"runs": f"apinizercloud/manager:{OLD}"},
    "prod/worker": {"runs": f"apinizercloud/worker:{OLD}"},
    "portal/portal": {"runs": f"apinizercloud/portal:{OLD}"},
}


def world(**changes: Any) -> Inventory:
    """The installation with some Deployments otherwise (None: gone); `_` stands for the slash."""
    now = WORLD | {name.replace("_", "/"): case for name, case in changes.items()}
    return inventory_of([{"at": name, **case} for name, case in now.items() if case is not None])


RUN = journal("a", set_image(), PORTAL, scaled())
SIDECAR = {"name": "log", "image": "fluent/fluent-bit:3"}


@pytest.mark.parametrize(
    "now",
    [
        pytest.param(world(), id="as before"),
        pytest.param(world(apinizer_manager={"runs": f"apinizercloud/manager:{NEW}"}), id="as the run made it"),
        pytest.param(world(portal_portal={"runs": f"apinizercloud/apiportal:{NEW}"}), id="across the rename"),
        pytest.param(world(apinizer_manager={"runs": f"apinizercloud/manager:{OLD}", "pods": 0}), id="scaled by it"),
        pytest.param(world(prod_worker={"runs": "apinizercloud/worker:2024.01.6"}), id="one that it never touched"),
        pytest.param(world(prod_worker=None), id="one of no plan is gone"),
        pytest.param(
            world(apinizer_manager={"runs": [SIDECAR, {"name": "main", "image": f"apinizercloud/manager:{NEW}"}]}),
            id="with a sidecar of the site's own",
        ),
    ],
)
def test_what_the_run_left_fits(now: Inventory) -> None:
    require_fits(RUN, now)


@pytest.mark.parametrize(
    ("now", "told"),
    [
        pytest.param(world(apinizer_manager=None), "apinizer/manager is gone", id="gone"),
        pytest.param(
            world(apinizer_manager={"runs": "apinizercloud/manager:2025.08.0"}),
            "apinizer/manager: container main runs apinizercloud/manager:2025.08.0, neither",
            id="a third image",
        ),
        pytest.param(
            world(portal_portal={"runs": f"apinizercloud/portal:{NEW}"}), "neither the old image", id="the old name"
        ),
        pytest.param(
            world(apinizer_manager={"runs": f"nexus.local:5000/apinizercloud/manager:{NEW}"}),
            "neither the old image",
            id="another registry",
        ),
        pytest.param(
            world(apinizer_manager={"runs": [{"name": "app", "image": f"apinizercloud/manager:{NEW}"}]}),
            "its container main is gone",
            id="another container",
        ),
        pytest.param(
            world(apinizer_manager={"runs": f"apinizercloud/manager:{OLD}", "pods": 3}), "scaled to 3", id="scaled"
        ),
    ],
)
def test_what_somebody_else_did_is_named(now: Inventory, told: str) -> None:
    with pytest.raises(DriftError) as caught:
        require_fits(RUN, now)
    assert told in caught.value.observed
    assert "runs abandon a" in caught.value.next


def test_one_of_its_plan_that_is_gone_is_named() -> None:
    planned = RUN.model_copy(update={"planned": ("apinizer/manager", "prod/worker", "portal/portal")})
    require_fits(planned, world())
    with pytest.raises(DriftError) as caught:
        require_fits(planned, world(prod_worker=None))
    assert (
        "prod/worker, which the run was to change, is gone, or not in the namespaces that are looked at"
        in caught.value.observed
    )
    assert "--namespace" in caught.value.next


def test_a_deployment_made_anew_is_another() -> None:
    found = world()
    first, *rest = found.deployments
    anew = found.model_copy(update={"deployments": (first.model_copy(update={"uid": "another"}), *rest)})
    with pytest.raises(DriftError) as caught:
        require_fits(RUN, anew)
    assert caught.value.observed == "apinizer/manager was deleted and made anew."


# -------------------------------------------------------------------------------------- another machine, pruning
def test_a_journal_of_another_machine_names_the_manager_s_cluster_as_this_one_does() -> None:
    remote = set_image("prod/worker").model_copy(update={"key": MANAGER.model_copy(update={"cluster": "dmz"})})
    seen = journal("a", set_image(), remote).seen_from("main")
    assert seen.manager.cluster == "main"
    assert [e.key.cluster for e in seen.entries if e.key] == ["main", "dmz"]
    assert journal("a", set_image(), remote).seen_from("dmz").manager.cluster == "", "two clusters never become one"


endings = st.sampled_from([None, *Ended])


@given(st.lists(st.tuples(st.integers(0, 50), endings, st.booleans()), max_size=30), st.integers(0, 10))
def test_pruning_never_takes_what_is_needed(runs: list[tuple[int, Ended | None, bool]], keep: int) -> None:
    journals = []
    for number, (begun, how, back) in enumerate(runs):
        kind: dict[str, Any] = {"kind": "rollback", "of": "r0"} if back and number else {}
        made = journal(f"r{number}", begun=begun, **kind)
        journals.append(made if how is None else made.end(at(begun + 1), how))
    gone = prunable(journals, keep)
    left = [j for j in newest_first(journals) if j not in gone]
    assert all(not j.unfinished for j in gone)
    assert len([j for j in left if not j.unfinished]) >= min(keep, len([j for j in journals if not j.unfinished]))
    complete = [j for j in newest_first(journals) if j.kind == "upgrade" and j.how is Ended.COMPLETE]
    assert not complete or complete[0] in left
    assert all(j.id != "r0" for j in gone) or not any(j.unfinished and j.of == "r0" for j in journals)
    ended = [j.begun for j in newest_first(journals) if not j.unfinished]
    assert all(j.begun <= ended[keep] for j in gone), "the oldest go first"
