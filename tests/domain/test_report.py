"""What a run says of itself when it is over: the report, what is safe now, and both as Markdown."""

import pytest

from tasks.domain.inventory import DeploymentKey, Inventory
from tasks.domain.plan import Plan, PlanRequest, make_plan
from tasks.domain.plan_text import plan_markdown, report_markdown, table
from tasks.domain.report import Report, make_report, safe_now
from tasks.domain.version import Version
from tests.domain.installation import inventory_of
from tests.domain.journals import journal, set_image


def installed(manager: str, worker: str, *, cache: str = "2025.04.4", ready: int = 2) -> Inventory:
    return inventory_of(
        [
            {"at": "apinizer/m", "runs": f"apinizercloud/manager:{manager}"},
            {"at": "prod/w", "runs": f"apinizercloud/worker:{worker}", "pods": 2, "ready": ready},
            {"at": "prod/c", "runs": f"apinizercloud/cache:{cache}", "pods": 0},
        ]
    )


def plan_of(inventory: Inventory) -> Plan:
    return make_plan(inventory, PlanRequest(to=Version("2025.04.4")), held={}, running=None)


BEFORE = installed("2025.04.3", "2025.04.3")
PLAN = plan_of(BEFORE)
AFTER = installed("2025.04.4", "2025.04.4")
ANSWERED = {"apinizer/m": ("2025.04.4",), "prod/w": ("2025.04.4", "2025.04.4"), "prod/c": ("2025.04.4",)}
NO_PODS = "prod/c has no pods: its image is set, and none has proved it."
MANAGER, WORKER = (step.key for step in PLAN.steps)


def row(report: Report, deployment: str) -> list[str]:
    text = next(line for line in report_markdown(report).splitlines() if f"| {deployment} |" in line)
    return [cell.strip() for cell in text.strip("|").split("|")]


def test_a_run_that_reached_all() -> None:
    report = make_report(PLAN, BEFORE, AFTER, ANSWERED, backup="backups/b.archive", notes=("A note.",))
    assert report.complete
    assert (report.before, report.to, report.backup, report.notes) == (
        "2025.04.3",
        "2025.04.4",
        "backups/b.archive",
        ("A note.", NO_PODS),
    )
    assert [(r.deployment, r.before, r.after, r.ready) for r in report.rows[:2]] == [
        ("apinizer/m", "apinizercloud/manager:2025.04.3", "apinizercloud/manager:2025.04.4", "1/1"),
        ("prod/w", "apinizercloud/worker:2025.04.3", "apinizercloud/worker:2025.04.4", "2/2"),
    ]
    text = report_markdown(report)
    assert text.startswith("# Upgraded 2025.04.3 to 2025.04.4\n")
    assert "Backup: `backups/b.archive`, read back whole." in text
    assert text.endswith(f"A note.\n\n{NO_PODS}")
    assert row(report, "prod/w")[-2:] == ["2025.04.4, 2025.04.4", "yes"]
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_what_was_at_the_target_before_is_asked_all_the_same() -> None:
    assert [str(step.key) for step in PLAN.there] == ["prod/c"]
    unasked = make_report(PLAN, BEFORE, AFTER, {k: v for k, v in ANSWERED.items() if k != "prod/c"})
    assert not unasked.complete
    report = make_report(PLAN, BEFORE, AFTER, ANSWERED)
    assert report.complete
    assert [(r.deployment, r.planned, r.reached) for r in report.rows] == [
        ("apinizer/m", True, True),
        ("prod/w", True, True),
        ("prod/c", False, True),
    ]
    assert row(report, "prod/c")[-1] == "was there already"


@pytest.mark.parametrize(
    ("after", "answered"),
    [
        (AFTER, {"apinizer/m": ("2025.04.4",)}),  # the worker's pods did not answer
        (installed("2025.04.4", "2025.04.3"), ANSWERED),  # somebody set it back
        (Inventory(deployments=AFTER.deployments[:1]), ANSWERED),  # somebody deleted it
    ],
)
def test_an_image_alone_or_an_answer_alone_proves_nothing(
    after: Inventory, answered: dict[str, tuple[str, ...]]
) -> None:
    report = make_report(PLAN, BEFORE, after, answered)
    assert not report.complete
    assert {r.deployment: r.reached for r in report.rows if r.planned} == {"apinizer/m": True, "prod/w": False}
    assert report_markdown(report).startswith("# Not complete: 2025.04.3 to 2025.04.4\n")
    assert row(report, "prod/w")[-1] == "no"


def test_a_deployment_that_is_gone_is_said() -> None:
    report = make_report(PLAN, BEFORE, Inventory(deployments=()), {})
    assert {(r.after, r.ready) for r in report.rows} == {("gone", "0/0")}


def test_one_without_pods_is_reached_when_its_image_is_set() -> None:
    before = installed("2025.04.4", "2025.04.4", cache="2025.04.3")
    plan = plan_of(before)
    assert [str(s.key) for s in plan.steps] == ["prod/c"]
    assert make_report(plan, before, AFTER, ANSWERED | {"prod/c": ()}).complete
    assert not make_report(plan, before, before, ANSWERED | {"prod/c": ()}).complete


@pytest.mark.parametrize(
    ("patched", "proved", "backup", "sentences"),
    [
        ([], [], "", ["Nothing was changed."]),
        ([], [], "b.archive", ["Nothing was changed."]),
        (
            [MANAGER],
            [],
            "b.archive",
            [
                "Set to 2025.04.4 and not proved: apinizer/m.",
                "Not touched: prod/w.",
                "The database as it was before is in b.archive, read back whole.",
            ],
        ),
        (
            [MANAGER, WORKER],
            [MANAGER],
            "",
            ["Set to 2025.04.4 and not proved: prod/w.", "At 2025.04.4 and answering: apinizer/m."],
        ),
    ],
)
def test_what_is_safe_now(
    patched: list[DeploymentKey], proved: list[DeploymentKey], backup: str, sentences: list[str]
) -> None:
    assert safe_now(PLAN, patched, proved, backup).splitlines() == sentences


def test_the_plan_as_tables() -> None:
    text = plan_markdown(PLAN)
    assert text.startswith("# Upgrade from 2025.04.3 to 2025.04.4\n")
    assert "| 1 | manager | manager | apinizer/m | 1 | apinizercloud/manager:2025.04.4 |" in text
    assert "| 2 | environment prod | worker | prod/w | 2 | apinizercloud/worker:2025.04.4 |" in text
    assert "Already there: prod/c." in text
    assert "| info | No portal was found; it is skipped. |" in text


def test_a_plan_with_nothing_to_do_and_one_that_cannot_be_made() -> None:
    done = plan_markdown(plan_of(AFTER))
    assert "Nothing to do: every component is there." in done
    portal = inventory_of([{"at": "a/p", "runs": "apinizercloud/portal:2025.04.3"}])
    open_name = plan_markdown(make_plan(portal, PlanRequest(to=Version("2025.04.5")), held={}, running=None))
    assert "# Upgrade from an unknown version to 2025.04.5" in open_name
    assert "Nothing to do" not in open_name
    assert "No step can be planned: see the findings." in open_name
    assert "| blocking |" in open_name


def test_a_step_that_only_waits() -> None:
    plan = plan_of(installed("2025.04.4", "2025.04.4", ready=1))
    assert "as it is, wait until Ready" in plan_markdown(plan)


def test_no_cell_breaks_a_table() -> None:
    assert table(("A", "B"), [("x|y", "one\ntwo")]).splitlines() == [
        "| A | B |",
        "| --- | --- |",
        "| x\\|y | one<br>two |",
    ]


def test_what_a_former_try_changed_is_told_as_it_was_before_the_run() -> None:
    now = installed("2025.04.4", "2025.04.3")
    manager = next(d for d in now.deployments if d.key == MANAGER)
    changed = set_image("apinizer/m", was="2025.04.3", container=manager.main.name)
    run = journal("a", changed).model_copy(update={"current": Version("2025.04.3")})
    report = make_report(plan_of(now), now, AFTER, ANSWERED, journal=run)
    first, worker, cache = report.rows
    assert report.before == "2025.04.3"
    assert (first.before, first.planned, first.reached) == ("apinizercloud/manager:2025.04.3", True, True)
    assert worker.before == "apinizercloud/worker:2025.04.3"
    assert not cache.planned
