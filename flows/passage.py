"""The way of a flow whose steps follow one another: what stops it, and what is told when it ends."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from prefect import Task
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger

from tasks.domain.errors import StoppedError, UpgradeError, joined
from tasks.record import artifacts, stopping
from tasks.record.feed import Event, listening, publish
from tasks.record.feed import State as Told

STOP_SECONDS = 15.0
"""What runs looks at least each second whether it is to stop; a request that hangs is not waited for longer."""
FLUSH_SECONDS = 10.0
AGAIN = "Run it again: every step looks before it acts, and what is done already is left alone."

P = ParamSpec("P")
R = TypeVar("R")


class Passage:
    """While the context lasts, the steps of one run; each begins when the one before it has succeeded.

    `what` is the run's name in sentences ("The backup was interrupted"); `safe` is what holds when it ends early,
    `once_begun` what holds instead as soon as a step has told anything of these subjects, unless its error knows better.
    `told` has the last word on what ends it early: a run that keeps a journal knows what it has changed.
    """

    def __init__(
        self,
        what: str,
        safe: str,
        once_begun: Mapping[str, str] = {},
        told: Callable[[UpgradeError], UpgradeError] = lambda error: error,
    ) -> None:
        self._what, self._safe, self._once_begun, self._told = what, safe, once_begun, told
        self._futures: list[PrefectFuture[Any]] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        stopping.clear()
        artifacts.begin()
        # A step says itself that it began: the states that Prefect knows come late.
        self._stack.enter_context(listening(self._hear))
        return self

    def _hear(self, event: Event) -> None:
        self._safe = self._once_begun.get(event.subject, self._safe)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._end(error)
        finally:
            self._stack.close()
            # What is still being written when the process ends would only be complained about.
            artifacts.flush(FLUSH_SECONDS)

    def _end(self, error: BaseException | None) -> None:
        if error is None:
            publish(Event("run", Told.ENDED, ""))
            return
        stopping.ask()  # what still waits in a thread ends at its next safe boundary
        if isinstance(error, KeyboardInterrupt | TerminationSignal):
            told = self._told(self._interrupted())
            publish(Event("run", Told.ENDED, str(told)))
            if isinstance(error, KeyboardInterrupt):
                raise told from None
            error.__cause__ = told  # as it is: Prefect tells a cancelled run from a killed one by it
            get_run_logger().error("%s", told)
        elif isinstance(error, UpgradeError):
            told = self._told(error)
            publish(Event("run", Told.ENDED, str(told)))
            if told is not error:
                raise told from None

    def submit(self, step: Task[P, R], *values: Any) -> PrefectFuture[R]:
        """The next step; `values` are its parameters, futures of former steps among them."""
        future: PrefectFuture[R] = step.submit(*values, wait_for=self._futures[-1:], return_state=False)
        self._futures.append(future)
        return future

    def keep(self, future: PrefectFuture[R]) -> PrefectFuture[R]:
        """A step that was submitted elsewhere, and belongs to the run; those of `submit` that follow wait for it."""
        self._futures.append(future)
        return future

    @property
    def last(self) -> list[PrefectFuture[Any]]:
        """The step that was submitted last: what comes elsewhere waits for it."""
        return self._futures[-1:]

    def value(self, future: PrefectFuture[R]) -> R:
        """What a step answered, when it has; raise the first failure instead."""
        future.wait()
        if not future.state.is_completed():
            self.finish()
        return future.result()

    def finish(self) -> None:
        """Wait for every step; raise what failed: the first, and what stood beside it (other nodes)."""
        for future in self._futures:
            future.wait()
        unfinished = [f.state for f in self._futures if not f.state.is_completed()]
        if unfinished:
            # What waited for a step that failed never ran; the failure itself is the news.
            failures = [state for state in unfinished if state.is_failed() or state.is_crashed()]
            raise joined([self._failed(state) for state in failures or unfinished[:1]])

    def _failed(self, failure: State[Any]) -> UpgradeError:
        cause = failure.result(raise_on_failure=False)
        if isinstance(cause, UpgradeError):
            return cause
        return UpgradeError(
            f"A step of the {self._what} ended in a way that was not foreseen.",
            observed=failure.message or type(cause).__name__,
            safe=self._safe,
            next=f"{AGAIN} Keep the run's log for a report of this defect.",
        )

    def _interrupted(self) -> UpgradeError:
        end = time.monotonic() + STOP_SECONDS
        for future in self._futures:
            future.wait(timeout=max(0.0, end - time.monotonic()))
        done = sum(f.state.is_completed() for f in self._futures)
        results = [f.state.result(raise_on_failure=False) for f in self._futures if f.state.is_failed()]
        told = next((r for kind in (StoppedError, UpgradeError) for r in results if isinstance(r, kind)), None)
        observed = [f"{done} of its steps were done."]
        if told is not None:
            observed.append(told.observed if isinstance(told, StoppedError) else told.happened)
        elif done < len(self._futures) and time.monotonic() >= end:
            observed.append(f"What runs had not come to a safe boundary after {STOP_SECONDS:.0f} s.")
        return StoppedError(
            f"The {self._what} was interrupted.",
            observed=" ".join(filter(None, observed)),
            safe=told.safe if told is not None else self._safe,
            next=AGAIN,
        )
