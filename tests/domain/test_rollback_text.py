"""The way back as it is shown before it is gone."""

from tasks.domain.rollback import rollback_plan
from tasks.domain.rollback_text import rollback_markdown, rollback_rows
from tasks.domain.version import Version
from tests.domain.installation import inventory_of
from tests.domain.recorded import image_entry, rollback_journal, scale_entry, upgrade_journal

BEFORE = inventory_of(
    [
        {"at": "apinizer/m", "runs": "apinizercloud/manager:2025.04.3", "pods": 2},
        {"at": "prod/w", "runs": "apinizercloud/worker:2025.04.3", "pods": 3},
        {"at": "test/w", "runs": "apinizercloud/worker:latest"},
    ]
)
NOW = inventory_of(
    [
        {"at": "apinizer/m", "runs": "apinizercloud/manager:2025.07.0", "pods": 2},
        {"at": "prod/w", "runs": "apinizercloud/worker:2025.07.0", "pods": 3, "strategy": "Recreate"},
        {"at": "test/w", "runs": "apinizercloud/worker:latest"},
    ]
)
ARCHIVE = "/backups/apinizer-backup--2025.04.3--2026-11-20--01.archive"
MANAGER, WORKER, _ = BEFORE.deployments
JOURNAL = upgrade_journal(
    (
        image_entry(MANAGER, {"main": "apinizercloud/manager:2025.07.0"}),
        image_entry(WORKER, {"main": "apinizercloud/worker:2025.07.0"}),
    )
)
PLAN = rollback_plan(JOURNAL, NOW, running=Version("2025.07.0"))


def test_every_step_in_its_order() -> None:
    assert rollback_rows(PLAN, JOURNAL) == [
        ("1", "stop", "apinizer/m: 2 to 0 pods, back to 2 afterwards"),
        ("2", "go on serving", "prod/w, test/w; what they write meanwhile (logs) is lost"),
        ("3", "safety backup", "apinizerdb as it is now, read back whole"),
        (
            "4",
            "restore exactly",
            f"apinizerdb from {ARCHIVE} on ops, made 2026-11-20 10:00 UTC, 1,000 documents",
        ),
        (
            "5",
            "manager",
            "apinizer/m: apinizercloud/manager:2025.04.3 (one pod first, then 2; is to answer 2025.04.3)",
        ),
        ("6", "environment prod", "prod/w: apinizercloud/worker:2025.04.3 (3 pods; is to answer 2025.04.3)"),
        ("7", "only asked", "test/w (Ready, its version is not known beforehand)"),
    ]


def test_all_stopped_shows_what_is_interrupted() -> None:
    rows = rollback_rows(PLAN, JOURNAL, stop_all=True)
    assert [row[1:] for row in rows[1:3]] == [
        ("stop, interrupts its traffic", "prod/w: 3 to 0 pods, back to 3 afterwards"),
        ("stop, interrupts its traffic", "test/w: 1 to 0 pods, back to 1 afterwards"),
    ]
    assert not any(step == "go on serving" for _, step, _ in rows)


def test_what_a_try_before_has_stopped_is_still_shown_as_interrupted() -> None:
    now = inventory_of(
        [
            {"at": "apinizer/m", "runs": "apinizercloud/manager:2025.07.0", "pods": 0},
            {"at": "prod/w", "runs": "apinizercloud/worker:2025.07.0", "pods": 0},
            {"at": "test/w", "runs": "apinizercloud/worker:latest"},
        ]
    )
    stopped = rollback_journal(JOURNAL, (scale_entry(MANAGER, 2), scale_entry(WORKER, 3)))
    rows = rollback_rows(rollback_plan(JOURNAL, now, rollbacks=[stopped]), JOURNAL, stop_all=True)
    assert [row[1:] for row in rows[:3]] == [
        ("stop", "apinizer/m: has no pods, back to 2 afterwards"),
        ("stays stopped, no traffic", "prod/w: has no pods, back to 3 afterwards"),
        ("stop, interrupts its traffic", "test/w: 1 to 0 pods, back to 1 afterwards"),
    ]


def test_a_run_that_did_not_touch_the_manager_shows_no_database() -> None:
    worker = upgrade_journal((image_entry(WORKER, {"main": "apinizercloud/worker:2025.07.0"}),))
    plan = rollback_plan(worker, inventory_of([{"at": "apinizer/m", "runs": "apinizercloud/manager:2025.04.3"},
                                               {"at": "prod/w", "runs": "apinizercloud/worker:2025.07.0"}]))  # fmt: skip
    assert [step for _, step, _ in rollback_rows(plan, worker)] == ["environment prod", "only asked"]


def test_the_page_has_steps_and_findings() -> None:
    page = rollback_markdown(PLAN, JOURNAL)
    assert page.startswith("# Roll back 20261120-100000-aaaa: 2025.07.0 to 2025.04.3\n")
    assert "| 5 | manager | apinizer/m: apinizercloud/manager:2025.04.3" in page
    assert "## Findings" in page
    assert "| info |" in page
