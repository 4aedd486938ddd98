"""The end of a run that keeps a journal: what stopped it, told with what is safe and with the ways on."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from prefect.exceptions import TerminationSignal
from prefect.logging import get_run_logger

from tasks.domain.errors import StoppedError, UpgradeError
from tasks.domain.safe_before import safe_before
from tasks.record import artifacts, stopping
from tasks.record.feed import Event, State, publish
from tasks.record.run_record import RunRecord

FLUSH_SECONDS = 10.0


class Ending:
    """While the context lasts, a run; whatever ends it early leaves as an error in four parts that names the ways on.

    `waited` waits until what runs has come to a safe boundary, and answers what to say then; `before` says what is safe
    where a plan or a look failed.  Prefect's own signal of a cancellation leaves as it is, with the error as its cause:
    Prefect tells a cancelled run from a killed one by it.
    """

    def __init__(self, record: RunRecord, what: str) -> None:
        self._record, self._what = record, what
        self.waited: Callable[[], UpgradeError] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            publish(Event("run", State.ENDED, ""))
            return
        stopping.ask()  # what still waits in a thread ends at its next safe boundary
        try:
            self._tell(error)
        finally:
            artifacts.flush(FLUSH_SECONDS)

    def _tell(self, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt | TerminationSignal):
            told = self._record.with_ways(self.waited() if self.waited else self._interrupted())
        elif isinstance(error, UpgradeError):
            told = self._record.with_ways(error)
        else:
            return
        publish(Event("run", State.ENDED, str(told)))
        if isinstance(error, TerminationSignal):
            error.__cause__ = told
            get_run_logger().error("%s", told)
            return
        raise told from None

    def _interrupted(self) -> UpgradeError:
        """Before any step that changes something was submitted."""
        return StoppedError(
            f"The {self._what} was interrupted.",
            observed="It had not come to its first change.",
            safe=safe_before_run(self._record),
        )


def safe_before_run(record: RunRecord) -> str:
    """What is safe where this try has changed nothing yet."""
    return safe_before(record.standing)
