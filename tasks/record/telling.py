"""What a Prefect task tells: its run's log, and whoever listens in this process."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.logging import get_run_logger

from tasks.domain.errors import TemporaryError, UpgradeError
from tasks.record.feed import Event, State, publish

LEVEL = {State.FAILED: logging.ERROR, State.LOG: logging.INFO}


@contextmanager
def failure_told(subject: str) -> Iterator[None]:
    """Tell a failure of `subject` at once: others may still be at work, and the run's own error comes when they end."""
    try:
        yield
    except TemporaryError:
        raise  # it is tried again; that is told by `task_rules`
    except UpgradeError as error:
        publish(Event(subject, State.FAILED, error.happened))
        raise


def tell(subject: str, state: State, text: str, share: float | None = None) -> None:
    """Write a line to the run's log and publish the event."""
    get_run_logger().log(LEVEL.get(state, logging.INFO), "%s: %s", subject, text)
    publish(Event(subject, state, text, share))
