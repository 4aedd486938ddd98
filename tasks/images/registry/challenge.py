"""How a server asks for a login: `WWW-Authenticate` (RFC 9110, 11.6.1), and the scopes of tokens (pure)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'({_NAME})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_NAME}))')
_SCHEME = re.compile(rf"({_NAME})(?=\s|,|$)")
_GAP = re.compile(r"[\s,]*")
# A bare base64 value after a scheme (Negotiate has one) belongs to no parameter.
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=\s|,|$)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to log in: the scheme in lower case, and its parameters with lower-case names."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(values: Iterable[str]) -> tuple[Challenge, ...]:
    """All challenges of all `WWW-Authenticate` lines in order; what is no challenge is passed over.

    Quoted values may hold commas and escapes: `scope="repository:a:pull,push"`.
    """
    found: list[tuple[str, dict[str, str]]] = []
    for value in values:
        at = 0
        while at < len(value):
            at = _GAP.match(value, at).end()  # type: ignore[union-attr]  # It matches nothing as well.
            if found and (parameter := _PARAMETER.match(value, at)):
                name, quoted, bare = parameter.groups()
                found[-1][1][name.lower()] = bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                at = parameter.end()
            elif scheme := _SCHEME.match(value, at):
                found.append((scheme[1].lower(), {}))
                at = scheme.end()
            elif other := _TOKEN68.match(value, at):
                at = other.end()
            else:
                at += 1
    return tuple(Challenge(scheme, parameters) for scheme, parameters in found)


def choose(challenges: Iterable[Challenge]) -> Challenge | None:
    """The one to answer: a token service before the password itself; None where neither is offered."""
    offered = {challenge.scheme: challenge for challenge in reversed(tuple(challenges))}
    bearer = offered.get("bearer")
    return bearer if bearer and bearer.parameters.get("realm") else offered.get("basic")


def join_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """The scopes with the actions of the same resource put together, in a fixed order."""
    actions: dict[str, set[str]] = {}
    for scope in " ".join(scopes).split():
        resource, _, wanted = scope.rpartition(":")
        actions.setdefault(resource, set()).update(wanted.split(","))
    return tuple(f"{resource}:{','.join(sorted(wanted))}" for resource, wanted in sorted(actions.items()))
