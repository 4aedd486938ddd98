"""What an answer of the Kubernetes API means: HTTP status and body to a typed error.  Pure.

Statuses and reasons: apimachinery `meta/v1.StatusReason`.  A message never holds a query string, a header or
the userinfo of an address: those are where tokens and passwords would be.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.domain.errors import (
    ConflictError,
    ForbiddenError,
    NotFoundError,
    TemporaryError,
    UnauthorizedError,
    UpgradeError,
)

JsonObject = dict[str, Any]

LOOK = "The request was a read; nothing was changed by it."
UNKNOWN = "Whether the change was made is not known; it is looked at before anything is repeated."
REFUSED = "The API server refused the change; nothing was changed by it."


class ServerAwayError(TemporaryError):
    """The API server did not answer, or said that it cannot now (429, 5xx).

    `retry_after`: seconds that it asked for, or None.  `unsent`: the request surely never took effect
    (connection refused, 429), so repeating it is safe whatever it was.  `silent`: the connection stood, and nothing
    came through it for as long as was allowed.
    """

    retry_after: float | None = None
    unsent: bool = False
    silent: bool = False


class GoneError(TemporaryError):
    """410: the resource version or the continue token is too old; list again."""


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked, as far as a message may tell: `path` without its query, `cluster` a name or ""."""

    method: str
    path: str
    cluster: str = ""
    watch: bool = False

    @property
    def reads(self) -> bool:
        """True where repeating it changes nothing."""
        return self.method in ("GET", "HEAD")

    def __str__(self) -> str:
        return f"{self.method} {self.path}" + (f" in {self.cluster}" if self.cluster else "")


@dataclass(frozen=True, slots=True)
class Access:
    """The permission that a request needs, in RBAC's words."""

    verb: str
    resource: str
    namespace: str = ""
    name: str = ""

    @property
    def question(self) -> str:
        """The command that shows whether the present user has it."""
        return " ".join(
            [
                "kubectl auth can-i",
                self.verb,
                self.resource + (f"/{self.name}" if self.name and "/" not in self.resource else ""),
            ]
            + (["--namespace", self.namespace] if self.namespace else [])
        )


def access(request: Request) -> Access:
    """The permission of a request: `GET /api/v1/namespaces/prod/pods/x/log` needs `get pods/log` in `prod`."""
    parts = [part for part in request.path.split("/") if part]
    parts = parts[2:] if parts[:1] == ["api"] else parts[3:] if parts[:1] == ["apis"] else parts
    group = request.path.split("/")[2] if request.path.startswith("/apis/") else ""
    namespace = ""
    if len(parts) > 2 and parts[0] == "namespaces":
        namespace, parts = parts[1], parts[2:]
    resource, name, sub = ([*parts, "", "", ""])[:3]
    verbs = {"GET": "get" if name else "list", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
    verb = "watch" if request.watch else verbs.get(request.method, request.method.lower())
    full = f"{resource}.{group}" if group else resource
    return Access(verb, f"{full}/{sub}" if sub else full, namespace, name)


def status_of(body: bytes) -> JsonObject | None:
    """The API server's own `Status` object, or None where the body is something else (a proxied pod's, HTML)."""
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) and value.get("kind") == "Status" else None


def retry_after(headers: Mapping[str, str], status: JsonObject | None) -> float | None:
    """Seconds of a Retry-After header (the date form is not used by Kubernetes) or of the Status' details."""
    text = next((value for key, value in headers.items() if key.lower() == "retry-after"), "")
    if text.strip().isdigit():
        return float(text)
    details = (status or {}).get("details")
    seconds = details.get("retryAfterSeconds") if isinstance(details, dict) else None
    return float(seconds) if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) else None


def clean(text: str, limit: int = 600) -> str:
    """One or a few printable lines without the userinfo of addresses, bearer tokens, and at most `limit` characters."""
    text = re.sub(r"//[^/\s@]+@", "//***@", text)
    text = re.sub(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}", r"\1 ***", text)
    text = "".join(char if char.isprintable() or char == "\n" else " " for char in text).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def error_of(request: Request, code: int, headers: Mapping[str, str], body: bytes) -> UpgradeError:
    """The typed error of an answer that is no success: `code` is HTTP's, `body` its bytes (perhaps a `Status`)."""
    status = status_of(body)
    said = clean(str((status or {}).get("message") or "") or body.decode("utf-8", "replace")) or "no message"
    observed = f"The API server answered {code} to {request}: {said}"
    safe = LOOK if request.reads else REFUSED
    match code:
        case 401:
            return UnauthorizedError(
                "The Kubernetes API refused the credentials.",
                observed=observed,
                safe=safe,
                next="Renew the kubeconfig's token, certificate or login, and try `kubectl auth whoami` or `kubectl get nodes`.",
            )
        case 403:
            return _forbidden(request, observed, safe)
        case 404:
            return NotFoundError(
                f"{_thing(request)} was not found.", observed=observed, safe=safe, next="Check its name and namespace."
            )
        case 409:
            return ConflictError(
                f"{_thing(request)} was changed by somebody else in the meantime.",
                observed=observed,
                safe=safe,
                next="Read it again and decide again.",
            )
        case 410:
            return GoneError(
                "That part of the cluster's history is gone.", observed=observed, safe=safe, next="List again."
            )
    if code in (408, 429) or code >= 500:
        return _away(request, observed, retry_after(headers, status), unsent=code == 429)
    return UpgradeError(
        f"The Kubernetes API did not accept {request}.",
        observed=observed,
        safe=safe,
        next="See what the API server says above; an admission webhook or a policy may be behind it.",
    )


def lost(request: Request, why: str, *, unsent: bool) -> ServerAwayError:
    """The error of a request that got no answer: `why` in words, `unsent` where it never reached the server."""
    error = ServerAwayError(
        "The Kubernetes API could not be reached." if unsent else "The connection to the Kubernetes API broke.",
        observed=f"{request}: {clean(why)}",
        safe=LOOK
        if request.reads
        else (REFUSED if unsent else UNKNOWN).replace("The API server refused the change; n", "N"),
        next="Check the address in the kubeconfig, the network, the proxy, and `kubectl get --raw /readyz`.",
    )
    error.unsent = unsent
    return error


def _away(request: Request, observed: str, after: float | None, *, unsent: bool) -> ServerAwayError:
    error = ServerAwayError(
        "The Kubernetes API cannot answer just now.",
        observed=observed,
        safe=LOOK if request.reads else REFUSED if unsent else UNKNOWN,
        next="Try again in a while; `kubectl get --raw '/readyz?verbose'` shows what ails the API server.",
    )
    error.retry_after = after
    error.unsent = unsent
    return error


def _forbidden(request: Request, observed: str, safe: str) -> ForbiddenError:
    needs = access(request)
    where = f" in namespace {needs.namespace}" if needs.namespace else ""
    return ForbiddenError(
        f"The Kubernetes user may not {needs.verb} {needs.resource}{where}.",
        observed=observed,
        safe=safe,
        next=f"Ask `{needs.question}`; a Role with verb {needs.verb} on {needs.resource} grants it.",
    )


def _thing(request: Request) -> str:
    needs = access(request)
    where = f" in namespace {needs.namespace}" if needs.namespace else ""
    return f"{needs.resource} {needs.name}".strip() + where
