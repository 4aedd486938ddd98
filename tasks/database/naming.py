"""How backups are called: `apinizer-backup--<version>--<date>--<nn>.archive`, as the published procedure has it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

ARCHIVE = ".archive"
MANIFEST = ".archive.json"
PARTIAL = ".partial"

_NAME = re.compile(
    r"\.?apinizer-backup--(?P<version>[^/]+)--(?P<date>\d{4}-\d{2}-\d{2})--(?P<number>\d{2,})\.archive.*"
)
_ARCHIVE = re.compile(r"apinizer-backup--(?P<version>.+)--(?P<date>\d{4}-\d{2}-\d{2})--(?P<number>\d{2,})\.archive")
_UNSAFE = re.compile(r"[^0-9A-Za-z._-]|-(?=-)")


@dataclass(frozen=True, slots=True)
class BackupName:
    """What the name of an archive says."""

    version: str
    day: date
    number: int


def parse(name: str) -> BackupName | None:
    """The parts of an archive's file name, None for any other name."""
    if not (found := _ARCHIVE.fullmatch(name)):
        return None
    try:
        return BackupName(found["version"], date.fromisoformat(found["date"]), int(found["number"]))
    except ValueError:
        return None  # A date that no calendar has.


def stem(version: str, day: date) -> str:
    """The name before the number.  Characters that a file name should not have become `_`."""
    return f"apinizer-backup--{_UNSAFE.sub('_', version) or 'unknown'}--{day.isoformat()}"


def archive_name(version: str, day: date, number: int) -> str:
    """The name of an archive; `number` counts from 1 for each version and day."""
    return f"{stem(version, day)}--{number:02}{ARCHIVE}"


def next_number(version: str, day: date, taken: Iterable[str]) -> int:
    """One more than the highest number in use among the file names `taken`.

    Manifests and partial files of other runs count too, so that no number ever means two backups.
    """
    wanted = f"{stem(version, day)}--"
    numbers = [
        int(found["number"])
        for name in taken
        if (found := _NAME.fullmatch(name)) and name.removeprefix(".").startswith(wanted)
    ]
    return max(numbers, default=0) + 1
