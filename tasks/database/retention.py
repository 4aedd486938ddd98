"""Which old backups may go: by count and by age, and never one that is still needed.  Pure."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol, TypeVar


class Kept(Protocol):
    """What the rule has to know of a backup; `sha256` is empty where there is no manifest."""

    @property
    def archive(self) -> Path:
        """Where it is."""

    @property
    def taken(self) -> datetime:
        """When it was finished, with its zone."""

    @property
    def proved(self) -> bool:
        """Whether it was read back whole and is unchanged since, as far as can be seen."""

    @property
    def sha256(self) -> str:
        """Of the file's bytes."""

    @property
    def needed(self) -> bool:
        """Whether a run that has not ended relies on it."""


_K = TypeVar("_K", bound=Kept)


def to_remove(
    backups: Iterable[_K], *, keep: int | None, days: int | None, named: frozenset[str] = frozenset(), now: datetime
) -> list[_K]:
    """The backups that may be removed, oldest first; none where neither `keep` nor `days` is given.

    A backup is surplus when at least `keep` proved ones are newer, or when it is older than `days` days.
    Only proved ones count: one that was never proved pushes nothing out.  Whatever the figures, these stay:

    - each that has no newer proved one, so the newest proved is never removed, nor anything newer than it;
    - each that a journal names in `named`, by path, file name or SHA-256;
    - each that its manifest says is needed by a run that has not ended;
    - each without a readable manifest (no SHA-256): it may be somebody else's.
    """
    surplus = []
    proved_newer = 0
    for backup in sorted(backups, key=lambda found: (found.taken, found.archive.name), reverse=True):
        too_many = keep is not None and proved_newer >= keep
        too_old = days is not None and now - backup.taken > timedelta(days=days)
        needed = not proved_newer or not backup.sha256 or backup.needed or bool(named & _names(backup))
        if (too_many or too_old) and not needed:
            surplus.append(backup)
        proved_newer += backup.proved
    return surplus[::-1]


def _names(backup: Kept) -> set[str]:
    return {str(backup.archive), backup.archive.name, backup.sha256}
