"""Versions of servers and tools as numbers to compare with, and the one at which an archive's form changes.  Pure."""

VIEWLESS_TIME_SERIES = (8, 3)
"""From this server on a time series has no buckets of its own to be archived."""


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: (100, 9, 4) of `100.9.4` and of `r100.9.4-2-gabc`."""
    found = []
    for part in version.strip().lstrip("rv").split("-", maxsplit=1)[0].split("."):
        if not part.isdecimal():
            break
        found.append(int(part))
    return tuple(found)
