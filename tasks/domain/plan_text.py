"""The plan and the report as Markdown, for the artifacts of a run.  Pure."""

from collections.abc import Iterable, Sequence

from tasks.domain.plan import Plan
from tasks.domain.report import Report, ReportRow


def plan_markdown(plan: Plan) -> str:
    """The steps in order and the findings, as tables."""
    rows = [("1", "manager", plan.manager)] if plan.manager else []
    rows += [(str(n), stage.title, s) for n, stage in enumerate(plan.stages, start=len(rows) + 1) for s in stage.steps]
    steps = table(
        ("", "Stage", "Component", "Deployment", "Pods", "New image"),
        (
            (number, title, s.component, s.key, s.replicas, "<br>".join(s.images) or "as it is, wait until Ready")
            for number, title, s in rows
        ),
    )
    findings = table(("Severity", "Finding", "What to do"), ((f.severity, f.what, f.next) for f in plan.findings))
    parts = [f"# Upgrade from {plan.current or 'an unknown version'} to {plan.to}"]
    nothing = (
        "No step can be planned: see the findings." if plan.blocked_by else "Nothing to do: every component is there."
    )
    parts.append(steps if rows else nothing)
    if plan.unchanged:
        parts.append(f"Already there: {', '.join(plan.unchanged)}.")
    if plan.findings:
        parts += ["## Findings", findings]
    return "\n\n".join(parts)


def report_markdown(report: Report) -> str:
    """Before and after, one row a Deployment."""
    head = f"# {'Upgraded' if report.complete else 'Not complete:'} {report.before or '?'} to {report.to}"
    rows = table(
        ("Component", "Deployment", "Before", "After", "Ready", "Pods answered", "Proved"),
        (
            (r.component, r.deployment, r.before, r.after, r.ready, ", ".join(r.answered), _proved(r))
            for r in report.rows
        ),
    )
    backup = [f"Backup: `{report.backup}`, read back whole."] if report.backup else []
    return "\n\n".join([head, rows, *backup, *report.notes])


def _proved(row: ReportRow) -> str:
    if not row.planned:
        return "was there already" if row.reached else "not part of the run"
    return "yes" if row.reached else "no"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; what would break a cell is escaped."""
    lines = [heads, ["---"] * len(heads), *([_cell(c) for c in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", "<br>")
