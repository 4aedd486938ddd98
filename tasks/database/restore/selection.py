"""Which collections a name or a pattern means: pure."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from tasks.database.restore.names import is_own


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a collection is meant by one of `patterns` (`*`, `?`, `[…]`) or is called so."""
    # A name first: it may itself hold the characters of a pattern.
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def restorable(name: str) -> bool:
    """Whether a collection of an archive is one of the database's own.

    Not what a server keeps for itself, nor users and roles, which an archive of one database has under names such as
    `$admin.system.users`, nor what an interrupted restore left.
    """
    systems = name.startswith(("system.", "$admin.")) and name != "system.js"
    return not systems and not is_own(name)
