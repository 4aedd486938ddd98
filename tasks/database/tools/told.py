"""What the tools write to standard error, line by line.

A line is `2026-11-22T10:00:00.123+0000<TAB>text`; progress comes every three seconds and again at the end,
names newer than release 100.9 in backticks.  Sources: mongo-tools, common/log, common/progress/progress_bar.go,
mongodump/mongodump.go (`done dumping`), mongorestore/restore.go (`finished restoring`) and
mongorestore/main/mongorestore.go (the last line).
"""

import re
from dataclasses import dataclass

_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:[+-]\d\d:?\d\d|Z)?\s+")
_BAR = re.compile(r"^\[[#.]+\]\s+`?(?P<name>.+?)`?\s+(?P<done>[\d.]+\w*)/(?P<total>[\d.]+\w*)\s+\([\d.]+%\)$")
_DUMPED = re.compile(r"^done dumping `?(?P<name>.+?)`? \((?P<count>\d+) documents?\)$")
_RESTORED = re.compile(
    r"^finished restoring `?(?P<name>.+?)`? \((?P<count>\d+) documents?, (?P<failures>\d+) failures?\)$"
)
_SUMMARY = re.compile(r"^(?P<count>\d+) document\(s\) restored successfully\. (?P<failures>\d+) document\(s\) failed")
_INDEXES = re.compile(r"^restoring indexes for collection `?(?P<name>.+?)`? from metadata$")
_FAILED = re.compile(r"^(?:Failed: |error parsing command line options: |error connecting to host: )(?P<text>.*)$")
_AMOUNT = re.compile(r"^([\d.]+)([KMGT]?B)?$", re.IGNORECASE)
_UNITS = {"": 1, "B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4}


@dataclass(frozen=True, slots=True)
class Bar:
    """How far one namespace is: documents of a dump, bytes of a restore."""

    name: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A namespace is over, with so many documents and so many that failed."""

    name: str
    documents: int
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Indexing:
    """The indexes of a namespace are being built."""

    name: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The last line of mongorestore."""

    documents: int
    failures: int


@dataclass(frozen=True, slots=True)
class Failure:
    """The line that says why the tool gives up."""

    text: str


Told = Bar | Finished | Indexing | Summary | Failure


def parse(line: str) -> Told | None:
    """What a line says, None for one that says nothing of these."""
    text = _TIME.sub("", line.strip())
    if found := _BAR.match(text):
        return Bar(found["name"], _amount(found["done"]), _amount(found["total"]))
    if found := _DUMPED.match(text):
        return Finished(found["name"], int(found["count"]))
    if found := _RESTORED.match(text):
        return Finished(found["name"], int(found["count"]), int(found["failures"]))
    if found := _SUMMARY.match(text):
        return Summary(int(found["count"]), int(found["failures"]))
    if found := _INDEXES.match(text):
        return Indexing(found["name"])
    if found := _FAILED.match(text):
        return Failure(found["text"])
    return None


def without_time(line: str) -> str:
    """The line without the moment before it."""
    return _TIME.sub("", line.strip())


def _amount(text: str) -> int:
    found = _AMOUNT.match(text)
    if found is None:
        return 0
    try:
        return round(float(found[1]) * _UNITS[(found[2] or "").upper()])
    except ValueError:
        return 0
