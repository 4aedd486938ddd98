"""What a way of the images would move, for people."""

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from deployments.cli.tables import STYLE, plain_table
from tasks.domain.amounts import megabytes
from tasks.domain.finding import Severity
from tasks.images.surveying import Survey


def survey_view(survey: Survey) -> RenderableType:
    """What each place lacks, in bytes, then what could not be looked at, and the findings."""
    table = plain_table("IMAGES", "MISSING", "TO SEND", "FREE")
    for look in survey.looks.values():
        missing = ", ".join(name.rpartition("/")[2] for name in look.missing) or "nothing"
        free = "?" if look.holdings.free is None else megabytes(look.holdings.free)
        table.add_row(escape(look.where), escape(missing), megabytes(look.size), free)
    for place, error in survey.failed.items():
        table.add_row(escape(place), Text(error.happened, style=STYLE[Severity.BLOCKING]), "", "")
    parts: list[RenderableType] = [Text(""), table] if table.row_count else []
    for finding in survey.findings:
        parts.append(Text(f"{finding.severity.value}: {finding.what}", style=STYLE[finding.severity]))
        if finding.next:
            parts.append(Text(f"  {finding.next}", style="dim"))
    return Group(*parts)
