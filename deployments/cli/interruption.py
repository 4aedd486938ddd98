"""Ctrl-C and SIGTERM end a run in order: what runs is brought to a safe boundary, and what is safe now is said."""

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

from tasks.domain.errors import UpgradeError

AT_ONCE = 1.0
"""Seconds in which another signal is of the same wish: a terminal that closes sends more than one."""
AGAIN = "Run it again: every step looks before it acts, and what is done already is left alone."


class Interruption:
    """While the context lasts SIGTERM and SIGHUP interrupt as Ctrl-C does, and the signal is remembered.

    A `KeyboardInterrupt` leaves the context as an `UpgradeError`; that one, and an `UpgradeError` that left it after a
    signal, has the shell's exit code for the signal: 130, 143 or 129.
    """

    def __init__(self) -> None:
        self._signal = 0
        self._came = -AT_ONCE
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> Self:
        with suppress(ValueError):  # not the main thread: whoever runs this there has the signals
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self._before[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if isinstance(error, KeyboardInterrupt):
            told = _told_by_the_run(error) or UpgradeError(
                "Interrupted.",
                observed=f"The signal {signal.Signals(self._signal or signal.SIGINT).name} came.",
                safe="What was done already stays as it is: apinizer-upgrade status shows it.",
                next=f"{AGAIN}\napinizer-upgrade runs   lists what was begun, and how one that is unfinished goes on",
            )
            told.exit_code = self._code
            raise told from None
        if isinstance(error, UpgradeError) and self._signal:
            error.exit_code = self._code

    @property
    def _code(self) -> int:
        return 128 + (self._signal or signal.SIGINT)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as signal calls it
        now = time.monotonic()
        if self._signal == number and now - self._came < AT_ONCE:
            return
        self._signal, self._came = number, now
        raise KeyboardInterrupt


def _told_by_the_run(error: BaseException) -> UpgradeError | None:
    """What the flow said of the interruption: Prefect takes SIGTERM for itself, then sends it on."""
    link: BaseException | None = error
    while link is not None and not isinstance(link, UpgradeError):
        link = link.__cause__ or link.__context__
    return link
