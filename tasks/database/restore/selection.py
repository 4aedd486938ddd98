"""Which collections a name or a pattern means: pure."""

from collections.abc import Iterable
from fnmatch import fnmatchcase


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a collection is meant by one of `patterns` (`*`, `?`, `[…]`) or is called so."""
    # A name first: it may itself hold the characters of a pattern.
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)
