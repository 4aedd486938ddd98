"""Which old backups may go: by count and by age, and never one that is still needed.  Pure."""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol, Self, TypeVar

from tasks.domain.journal import Journal


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

    def stands_for(self, older: Self, /) -> bool:
        """Whether it is of the same server and holds whatever `older` was to hold."""


_K = TypeVar("_K", bound=Kept)


def to_remove(
    backups: Iterable[_K], *, keep: int | None, days: int | None, named: frozenset[str] = frozenset(), now: datetime
) -> list[_K]:
    """The backups that may be removed, oldest first; none where neither `keep` nor `days` is given.

    A backup is surplus when at least `keep` proved ones are newer, or when it is older than `days` days.
    Only proved ones count, and only those that can stand for it: one that was never proved, is of another server
    or database, or leaves more out pushes nothing out.  Whatever the figures, these stay:

    - each that no newer proved one can stand for, so the newest proved of its kind is never removed;
    - each that a journal names in `named`, by path, file name or SHA-256;
    - each that its manifest says is needed by a run that has not ended;
    - each without a readable manifest (no SHA-256): it may be somebody else's.
    """
    surplus = []
    proved: list[_K] = []
    for backup in sorted(backups, key=lambda found: (found.taken, found.archive.name), reverse=True):
        newer = sum(other.stands_for(backup) for other in proved)
        too_many = keep is not None and newer >= keep
        too_old = days is not None and now - backup.taken > timedelta(days=days)
        needed = not newer or not backup.sha256 or backup.needed or bool(named & _names(backup))
        if (too_many or too_old) and not needed:
            surplus.append(backup)
        proved += [backup] if backup.proved else []
    return surplus[::-1]


def named_by(journals: Iterable[Journal]) -> frozenset[str]:
    """What unfinished runs go back to or could bring collections back from: file names and SHA-256 for `to_remove`."""
    made = [kept for j in journals if j.unfinished for kept in (j.backup, *j.safeties) if kept is not None]
    return frozenset(name for kept in made for name in (re.split(r"[/\\]", kept.archive)[-1], kept.sha256))


def _names(backup: Kept) -> set[str]:
    return {str(backup.archive), backup.archive.name, backup.sha256}
