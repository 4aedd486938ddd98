"""What a component's own answer proves about its version.  Pure."""

import json
import re
from collections.abc import Iterator

from tasks.domain.version import Version

# A release inside other text: "v2025.07.0", "Apinizer 2025.07.0 (build 12)"; not a part of a longer number.
_RELEASE = re.compile(r"(?<![0-9.])[0-9]{4}\.[0-9]{1,2}\.[0-9]{1,4}(?![0-9]|\.[0-9])")


def versions_in(body: str) -> tuple[Version, ...]:
    """The releases that an answer names, each once.

    JSON is searched for keys called `version`, then for keys that end so (`appVersion`), at any depth; what is not
    JSON is searched as text.  `javaVersion: 17.0.1` names no release of the product, so it does not count.
    """
    try:
        value = json.loads(body)
    except ValueError:
        return _releases(body)
    if not isinstance(value, dict | list):
        return _releases(str(value))
    pairs = list(_pairs(value))
    exact = [text for key, text in pairs if key.lower() == "version"]
    loose = [text for key, text in pairs if key.lower().endswith("version")]
    return next((found for texts in (exact, loose) if (found := _releases(" ".join(texts)))), ())


def _releases(text: str) -> tuple[Version, ...]:
    found = [Version.find(match) for match in _RELEASE.findall(text)]
    return tuple(dict.fromkeys(version for version in found if version is not None))


def _pairs(value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, str | int | float):
                yield str(key), str(inner)
            yield from _pairs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _pairs(inner)


def verified(body: str, wanted: Version) -> str:
    """ "" where the answer proves `wanted`, else why it does not, as the end of a sentence."""
    found = versions_in(body)
    if found == (wanted,):
        return ""
    if not found:
        return f"its answer names no version: {body[:80]!r}"
    if len(found) > 1:
        return f"its answer names several versions: {', '.join(map(str, found))}"
    return f"it answers {found[0]}, not {wanted}"


def healthy(status: int, body: str) -> str:
    """ "" where a health answer is well or there is no such endpoint, else why not."""
    if status == 404:
        return ""
    if status >= 400:
        return f"its health answers HTTP {status}"
    try:
        value = json.loads(body)
    except ValueError:
        return ""
    said = str(value.get("status", "UP")).upper() if isinstance(value, dict) else "UP"
    return "" if said in ("UP", "OK", "HEALTHY", "TRUE", "200") else f"its health is {said}"
