"""What is missing where, as a page and as plain values.  Pure."""

from typing import Any

from tasks.domain.amounts import megabytes
from tasks.domain.plan_text import table
from tasks.images.surveying import Look, Survey


def survey_markdown(survey: Survey) -> str:
    """A row for each place, and the findings."""
    rows = [(look.where, _missing(look), megabytes(look.size), _free(look)) for look in survey.looks.values()]
    parts = ["# What is missing where", table(("Place", "Missing", "To send", "Free"), rows)]
    if survey.findings:
        parts += [
            "## Findings",
            table(("Severity", "Finding", "What to do"), ((f.severity, f.what, f.next) for f in survey.findings)),
        ]
    return "\n\n".join(parts)


def survey_value(survey: Survey) -> dict[str, Any]:
    """For `--output json`: bytes as numbers, names in full."""
    places = [
        {
            "place": key,
            "where": look.where,
            "images": {image.name: image.config for image in look.images},
            "missing": list(look.missing),
            "bytes": look.size,
            "free": look.holdings.free,
        }
        for key, look in survey.looks.items()
    ]
    return {
        "places": places,
        "bytes": sum(look.size for look in survey.looks.values()),
        "unreached": {key: error.as_json() for key, error in survey.failed.items()},
        "findings": [finding.model_dump(mode="json") for finding in survey.findings],
    }


def _missing(look: Look) -> str:
    return "\n".join(name.rpartition("/")[2] for name in look.missing) or "nothing"


def _free(look: Look) -> str:
    return "not known" if look.holdings.free is None else megabytes(look.holdings.free)
