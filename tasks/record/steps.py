"""The report of a run as a Prefect task."""

from prefect import task

from tasks.domain.plan_text import report_markdown
from tasks.domain.report import Report
from tasks.record.artifacts import flush, keep_page, keep_table
from tasks.record.feed import State
from tasks.record.task_rules import LOOKS
from tasks.record.telling import tell

FLUSH_SECONDS = 15.0


@task(name="report", task_run_name="report", **LOOKS)
def write_report(report: Report) -> Report:
    """Keep what the run did as artifacts: a table of before and after, and a page to read."""
    keep_table("before-and-after", [row.model_dump(mode="json") for row in report.rows], "Each Deployment")
    keep_page("report", report_markdown(report), f"Upgrade to {report.to}")
    flush(FLUSH_SECONDS)
    done = sum(row.reached for row in report.rows)
    tell(
        "report", State.DONE if report.complete else State.FAILED, f"{done} of {len(report.rows)} proved at {report.to}"
    )
    return report
