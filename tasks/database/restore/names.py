"""What a restore calls its own collections while it works, and how they are told from everybody else's."""

import re
from collections.abc import Iterable

PREFIX = "apinizer-restore."
"""Every collection that a restore makes for itself starts so; nothing of the product's does."""

LOCK = f"{PREFIX}lock"
"""The collection of one document that says which restore is at work in the database."""

_OWN = re.compile(
    r"apinizer-restore\.(?:lock|(?P<run>[0-9a-f]{12})\.(?:state|probe(?:\.old)?|[0-9]{4,}(?:\.old|\.extra)?))"
)


def run_of(sha256: str) -> str:
    """The part of the names that says which archive a restore is of: the start of the archive's SHA-256."""
    return sha256[:12]


def copy_name(run: str, number: int) -> str:
    """Where the collection that is the archive's `number`th is loaded.

    Short whatever the collection's own name is, which may fill the 255 bytes that a server allows.
    """
    return f"{PREFIX}{run}.{number:04}"


def aside_name(run: str, number: int) -> str:
    """Where a collection waits whose place a view takes, until the view is there."""
    return f"{copy_name(run, number)}.old"


def state_name(run: str) -> str:
    """The collection of one document that says how far a restore is."""
    return f"{PREFIX}{run}.state"


def probe_name(run: str) -> str:
    """A collection made for a moment, to see what the server keeps when it renames one."""
    return f"{PREFIX}{run}.probe"


def extra_name(run: str, number: int) -> str:
    """Where a collection that an exact restore drops waits while it is held against the backup that keeps it."""
    return f"{copy_name(run, number)}.extra"


def is_extra(name: str) -> bool:
    """Whether `name` is somebody's collection that an exact restore set aside: never to be dropped unseen."""
    return is_own(name) and name.endswith(".extra")


def is_own(name: str) -> bool:
    """Whether a restore made the collection `name` for itself."""
    return _OWN.fullmatch(name) is not None


def own_of(names: Iterable[str]) -> list[str]:
    """Those of `names` that restores made for themselves, without the lock."""
    return [name for name in names if is_own(name) and name != LOCK]


def owner(name: str) -> str:
    """The run that the collection `name` is of, empty for everybody else's and for the lock."""
    found = _OWN.fullmatch(name)
    return (found["run"] or "") if found else ""
