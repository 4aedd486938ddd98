"""The oplog of an archive, applied to the copies: they become one point in time."""

from pathlib import Path

from tasks.database.restore.look import Survey
from tasks.database.restore.plan import Action
from tasks.database.restore.state import Ready
from tasks.database.restore.work import Work


def replay(work: Work, archive: Path, survey: Survey, actions: list[Action], checked: dict[int, Ready]) -> None:
    """Apply the archive's oplog, where it has one, to the copies of `actions`; counts in `checked` then follow."""
