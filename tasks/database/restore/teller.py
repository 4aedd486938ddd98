"""How far a restore is, gathered from its steps."""

from collections.abc import Callable

from tasks.database.restore.look import Survey
from tasks.database.restore.progress import Phase, RestoreProgress


class Teller:
    """Turns what the steps say into progress; asked by several threads."""

    def __init__(self, survey: Survey, told: Callable[[RestoreProgress], None]) -> None:
        self._told = told
        self._collections, self._expected = len(survey.plan.loads), survey.plan.bytes
        self.done = self.documents = self.bytes = 0

    def say(self, phase: Phase, collection: str) -> None:
        """Tell where the restore is."""
        self._told(
            RestoreProgress(phase, collection, self.done, self._collections, self.documents, self.bytes, self._expected)
        )
