"""What a registry's answer means for a person (pure).

Error bodies and codes: OCI distribution-spec, "Error Codes"; which of them another try may mend: the temporary codes
and statuses of go-containerregistry (pkg/v1/remote/transport/error.go).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.domain.errors import ForbiddenError, NotFoundError, TemporaryError, UnauthorizedError, UpgradeError
from tasks.images.registry.challenge import parse_challenges

TEMPORARY_STATUSES = frozenset({408, 429, 500, 502, 503, 504, 522})
TEMPORARY_CODES = frozenset({"BLOB_UPLOAD_INVALID", "TOOMANYREQUESTS", "UNKNOWN", "UNAVAILABLE"})
LONGEST_WAIT = 30.0
LOGIN = "--registry-user, or --source-user for the registry that images come from"


@dataclass(frozen=True, slots=True)
class Answer:
    """A registry's answer, read whole; header names in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of the body's errors: `MANIFEST_UNKNOWN`; none where it is no such body."""
        return tuple(code for code, _ in self.errors)

    @property
    def errors(self) -> tuple[tuple[str, str], ...]:
        """Code and message of each error in the body."""
        try:
            listed = json.loads(self.body)["errors"]
            return tuple((str(each["code"]), str(each.get("message") or "")) for each in listed)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return ()

    @property
    def temporary(self) -> bool:
        if self.status < 400:
            return False
        if self.status in TEMPORARY_STATUSES:
            return True
        # What is not there is not there the next time either: the upload, not the question, is to be begun again.
        return bool(self.codes) and TEMPORARY_CODES.issuperset(self.codes) and self.status != 404

    @property
    def upload_lost(self) -> bool:
        """Whether the registry has forgotten an upload, or does not know where it stands (Docker's, after a cut)."""
        return not {"BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID"}.isdisjoint(self.codes)

    @property
    def wait(self) -> float | None:
        """The seconds that the server asks to be left alone (RFC 9110, Retry-After), at most `LONGEST_WAIT`."""
        told = self.headers.get("retry-after", "").strip()
        return min(float(told), LONGEST_WAIT) if told.isascii() and told.isdigit() else None

    def __str__(self) -> str:
        """`404 MANIFEST_UNKNOWN (manifest unknown)`, at most some lines of anything else."""
        told = "; ".join(f"{code} ({message})" if message else code for code, message in self.errors)
        text = told or " ".join(self.body[:300].decode("utf-8", "replace").split())
        return f"{self.status} {text}".strip()


def refusal(answer: Answer, host: str, what: str, *, user: str = "") -> UpgradeError:
    """The error for an answer that is no success; `what` was to be done: `read the manifest of worker:1`."""
    observed = f"{host} answered {answer}"
    if answer.status == 401:
        return _not_known(answer, host, what, user)
    # A registry that is busy may word it as it likes: its status says that another try can help.
    if answer.status == 403 or ("DENIED" in answer.codes and answer.status not in TEMPORARY_STATUSES):
        who = f"The user {user!r}" if user else "Without a login one"
        return ForbiddenError(
            f"{who} may not {what} at {host}.",
            observed=observed,
            next="Have the right given to the user, or use another user and password for the registry.",
        )
    if answer.status == 404:
        return NotFoundError(
            f"{host} does not have what was asked for: {what}.",
            observed=observed,
            next="Check the image's name and the version.",
        )
    if answer.temporary:
        busy = "asks to be left alone for a while" if answer.status == 429 else "cannot answer now"
        return TemporaryError(f"The registry {host} {busy}.", observed=f"To {what}: {answer}", next="Try again later.")
    if answer.status == 400 and b"HTTP request to an HTTPS server" in answer.body:
        return UpgradeError(
            f"{host} speaks TLS, and was spoken to without.",
            observed=observed,
            next="Leave out --plain-http, or --source-plain-http for the registry that images come from (insecure: in the "
            "configuration).",
        )
    return UpgradeError(
        f"The registry {host} refused to {what}.",
        observed=observed,
        next="The registry's own log says more; a proxy in front of it may limit sizes or methods.",
    )


def _not_known(answer: Answer, host: str, what: str, user: str) -> UpgradeError:
    asked = parse_challenges([answer.headers.get("www-authenticate", "")])
    if user and any(each.parameters.get("error") == "insufficient_scope" for each in asked):
        # The login was taken, the token does not reach so far (RFC 6750, 3.1).
        return ForbiddenError(
            f"The user {user!r} may not {what} at {host}.",
            observed=f"{host} answered {answer}",
            next="Have the right given to the user; a repository that does not exist is refused in the same way.",
        )
    if user:
        return UnauthorizedError(
            f"The registry {host} does not accept the user {user!r} with this password.",
            observed=f"To {what}: {answer}",
            next=f"Check user and password (or token) of this registry: {LOGIN}.",
        )
    return UnauthorizedError(
        f"The registry {host} asks for a login" + ("." if what == "log in" else f" to {what}."),
        observed=f"{host} answered {answer}",
        next=f"Give user and password of this registry: {LOGIN}. Docker Hub says the same of a repository that does not exist.",
    )
