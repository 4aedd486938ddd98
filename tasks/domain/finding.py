"""Findings: what the plan noticed before anything changes, and how much it matters."""

from enum import StrEnum

from tasks.domain.inventory import Facts


class Severity(StrEnum):
    """`blocking` ends the run before its first change (exit code 3); the others are said."""

    BLOCKING = "blocking"
    WARNING = "warning"
    INFO = "info"


class Finding(Facts):
    """One notice: a stable `code` for scripts, what is the case, what to do about it."""

    severity: Severity
    code: str
    what: str
    next: str = ""


def blocking(code: str, what: str, todo: str) -> Finding:
    """A finding that forbids the run."""
    return Finding(severity=Severity.BLOCKING, code=code, what=what, next=todo)


def warning(code: str, what: str, todo: str = "") -> Finding:
    """A finding to read before going on."""
    return Finding(severity=Severity.WARNING, code=code, what=what, next=todo)


def info(code: str, what: str, todo: str = "") -> Finding:
    """A finding that explains what the run does."""
    return Finding(severity=Severity.INFO, code=code, what=what, next=todo)
