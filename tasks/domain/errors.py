"""The typed errors of the whole project.

Every error that reaches a person has four parts: what happened, what was
observed, what is safe now, what to do next.  Where it goes is its class:
`TemporaryError` may be tried again, `UsageError` is the caller's to mend,
`BlockedError` is a finding that stops the run before anything changes, and
every other is a failure that another try would meet again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

NOTHING_CHANGED = "Nothing was changed."


class UpgradeError(Exception):
    """A failure in four parts.

    Parameters are plain sentences without secrets: `happened` (the headline), `observed` (evidence,
    may span lines), `safe` (the state the installation is in now) and `next` (what to do).
    """

    exit_code = 1

    def __init__(self, happened: str, *, observed: str = "", safe: str = NOTHING_CHANGED, next: str = "") -> None:
        super().__init__(happened, observed, safe, next)
        self.happened = happened
        self.observed = observed
        self.safe = safe
        self.next = next

    def __str__(self) -> str:
        parts = [self.happened]
        for title, text in (("Observed", self.observed), ("Safe now", self.safe), ("Next", self.next)):
            if text:
                parts.append(f"{title}: {_indent(text)}")
        return "\n".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        # Prefect moves exceptions between processes; keyword-only arguments need help to come back.
        return _rebuild, (type(self), self.as_json())

    def as_json(self) -> dict[str, str]:
        """The four parts, for `--output json` and for the journal."""
        return {"happened": self.happened, "observed": self.observed, "safe": self.safe, "next": self.next}

    def with_safe(self, safe: str) -> "UpgradeError":
        """The same error told by a caller that knows better what is safe now."""
        return type(self)(self.happened, observed=self.observed, safe=safe, next=self.next)


@contextmanager
def before_any_change(safe: str = NOTHING_CHANGED) -> Iterator[None]:
    """While the context lasts a run only reads, so whatever goes wrong in it has changed nothing, and says so.

    `safe` says more where an unfinished run has changed something before it.
    """
    try:
        yield
    except UpgradeError as error:
        raise error.with_safe(safe) from None


def joined(errors: Sequence[UpgradeError], happened: str = "") -> UpgradeError:
    """Failures that stand side by side, as one of the class that they share (else `UpgradeError`); one alone is itself.

    `happened` is the headline of several; theirs one after another if empty.
    """
    if len(errors) == 1:
        return errors[0]
    kinds = {type(error) for error in errors}

    def each(parts: Iterable[str], between: str) -> str:
        return between.join(dict.fromkeys(filter(None, parts)))

    return (kinds.pop() if len(kinds) == 1 else UpgradeError)(
        happened or each((error.happened for error in errors), " "),
        observed=each((f"{error.happened} {error.observed}".strip() for error in errors), "\n"),
        safe=each((error.safe for error in errors), " "),
        next=each((error.next for error in errors), "\n"),
    )


def _rebuild(kind: type[UpgradeError], parts: Mapping[str, str]) -> UpgradeError:
    return kind(parts["happened"], observed=parts["observed"], safe=parts["safe"], next=parts["next"])


def _indent(text: str) -> str:
    return text.strip().replace("\n", "\n  ")


class UsageError(UpgradeError):
    """The call, an option or a file is wrong: the caller mends it (exit code 2)."""

    exit_code = 2


class BlockedError(UpgradeError):
    """A finding forbids the run; nothing was changed (exit code 3)."""

    exit_code = 3


def as_failure(error: UpgradeError) -> UpgradeError:
    """The same where something was changed already: then no finding blocks a run any more, it has failed (exit code 1)."""
    if not isinstance(error, BlockedError):
        return error
    return UpgradeError(error.happened, observed=error.observed, safe=error.safe, next=error.next)


class TemporaryError(UpgradeError):
    """Another try may succeed: a server that is away, a conflict, a timeout, 429 and 5xx."""


class ForbiddenError(UpgradeError):
    """The credentials are known but may not do this (403, or a database role that is missing)."""


class UnauthorizedError(UpgradeError):
    """The credentials were refused (401, or a wrong database password)."""


class NotFoundError(UpgradeError):
    """What was asked for is not there (404)."""


class ConflictError(UpgradeError):
    """The object was changed by somebody else between the look and the act (409)."""


class DriftError(UpgradeError):
    """The world no longer fits what was planned: somebody else changed it, and it is left as found."""


class RolloutError(UpgradeError):
    """A component will not become Ready, or did not before its deadline."""


class HopelessError(RolloutError):
    """A component's pods failed for good before one of them ever served; no deadline is meant."""


class StoppedError(UpgradeError):
    """The run was told to stop, and did at a safe boundary."""


class UnprovenError(UpgradeError):
    """A proof is missing: a backup that does not read back, a pod that does not answer its version."""


class DamagedArchiveError(UnprovenError):
    """An archive's bytes are not what the format, its checksums or its manifest say."""
