"""The report of a run as a Prefect task."""

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from tasks.domain.plan_text import report_markdown
from tasks.domain.report import Report
from tasks.record.feed import State
from tasks.record.task_rules import LOOKS
from tasks.record.telling import tell


@task(name="report", task_run_name="report", **LOOKS)
def write_report(report: Report) -> Report:
    """Keep what the run did as artifacts: a table of before and after, and a page to read."""
    create_table_artifact(
        [row.model_dump(mode="json") for row in report.rows], key="before-and-after", description="Each Deployment"
    )
    create_markdown_artifact(report_markdown(report), key="report", description=f"Upgrade to {report.to}")
    done = sum(row.reached for row in report.rows)
    tell("report", State.DONE if report.complete else State.FAILED, f"{done} of {len(report.rows)} at {report.to}")
    return report
