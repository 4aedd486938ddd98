"""Answers a registry's challenges: basic, and tokens (distribution, "Token Authentication Specification")."""

import json
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tasks.domain.errors import UnauthorizedError, UpgradeError
from tasks.images.registry.access import Access
from tasks.images.registry.challenge import Challenge, choose, join_scopes, parse_challenges
from tasks.images.registry.refusals import Answer, refusal

# A token that says nothing of its life lives so many seconds (same specification).
LIFE = 60.0
# It is renewed before it ends, so that no request is on its way with a dead one.
MARGIN = 10.0

# (address, parameters, Authorization or "") -> the token service's answer
Fetch = Callable[[str, Sequence[tuple[str, str]], str], Answer]


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    until: float


@dataclass(slots=True)
class Login:
    """The Authorization headers for registries, got when a registry first asks and kept by host and scopes."""

    access: Access
    fetch: Fetch
    _asked: dict[str, Challenge] = field(default_factory=dict)
    _tokens: dict[tuple[str, tuple[str, ...]], _Token] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def header(self, host: str, scopes: Sequence[str]) -> str:
        """What to send, "" before the host has asked for a login."""
        with self._lock:
            challenge = self._asked.get(host)
            if challenge is None:
                return ""
            if challenge.scheme == "basic":
                return self._basic()
            key = (host, join_scopes(scopes))
            token = self._tokens.get(key)
            if token is None or token.until <= time.monotonic():
                token = self._tokens[key] = self._token(host, challenge, key[1])
            return token.header

    def learn(self, host: str, scopes: Sequence[str], answer: Answer, sent: str) -> str:
        """The header to send after a 401 that was answered to `sent`; raise `UnauthorizedError` where there is none."""
        challenge = choose(parse_challenges([answer.headers.get("www-authenticate", "")]))
        if challenge is None:
            raise UnauthorizedError(
                f"The registry {host} asks for a login that is not known here.",
                observed=f"WWW-Authenticate: {answer.headers.get('www-authenticate') or 'nothing'}",
                next="Known are Basic and Bearer (token) authentication.",
            )
        if challenge.scheme == "basic" and (sent or not self.access.user):
            raise refusal(answer, host, "log in", user=self.access.user)
        with self._lock:
            self._asked[host] = challenge
            key = (host, join_scopes(scopes))
            if challenge.scheme == "bearer":
                wider = join_scopes([*scopes, challenge.parameters.get("scope", "")])
                self._tokens[key] = self._token(host, challenge, wider)
            return self.header(host, scopes)

    def _basic(self) -> str:
        return "Basic " + b64encode(f"{self.access.user}:{self.access.secret}".encode()).decode()

    def _token(self, host: str, challenge: Challenge, scopes: Sequence[str]) -> _Token:
        realm = challenge.parameters["realm"]
        self._require_tls(host, realm)
        parameters = [("scope", scope) for scope in scopes]
        if "service" in challenge.parameters:
            parameters.insert(0, ("service", challenge.parameters["service"]))
        begin = time.monotonic()
        answer = self.fetch(realm, parameters, self._basic() if self.access.user else "")
        if answer.status in (401, 403) and self.access.user:
            raise refusal(Answer(401, {}, answer.body), host, f"get a token at {realm}", user=self.access.user)
        if answer.status != 200:
            raise refusal(answer, host, f"get a token at {realm}", user=self.access.user)
        told = _document(answer, realm)
        header = f"Bearer {told.get('token') or told['access_token']}"
        life = told.get("expires_in")
        seconds = float(life) if isinstance(life, int | float) and life > 0 else LIFE
        return _Token(header, begin + max(seconds - MARGIN, seconds / 2))

    def _require_tls(self, host: str, realm: str) -> None:
        scheme = urlsplit(realm).scheme
        if scheme == "https" or (scheme == "http" and self.access.insecure):
            return
        raise UnauthorizedError(
            f"The registry {host} sends its login to an address without TLS.",
            observed=f"realm: {realm}",
            safe="Nothing was changed, and no password was sent.",
            next="Have the registry's token service offered over https, or name the registry as insecure.",
        )


def _document(answer: Answer, realm: str) -> Mapping[str, object]:
    try:
        told = json.loads(answer.body)
    except (ValueError, RecursionError):
        told = None
    if isinstance(told, dict) and (told.get("token") or told.get("access_token")):
        return told
    raise UpgradeError(
        "The registry's token service gave no token.",
        observed=f"{realm} answered {answer.status} without token or access_token",
        next="The service's own log says more.",
    )
