"""What a Prefect task tells: its run's log, and whoever listens in this process."""

import logging

from prefect.logging import get_run_logger

from tasks.record.feed import Event, State, publish

LEVEL = {State.FAILED: logging.ERROR, State.LOG: logging.INFO}


def tell(subject: str, state: State, text: str, share: float | None = None) -> None:
    """Write a line to the run's log and publish the event."""
    get_run_logger().log(LEVEL.get(state, logging.INFO), "%s: %s", subject, text)
    publish(Event(subject, state, text, share))
