"""When to try again, and after how long: exponential backoff with full jitter.

Source of the jitter: "Exponential Backoff And Jitter" of the AWS Architecture Blog ("full jitter" spreads a
crowd of clients best).  Pure but for the injected sleep, so the same rule serves requests and watches.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from tasks.cluster.answers import ServerAwayError
from tasks.domain.errors import TemporaryError

T = TypeVar("T")


def backoff(attempt: int, rng: random.Random, *, base: float = 0.2, cap: float = 8.0) -> float:
    """Seconds to wait before try `attempt` + 1 (the first failure is attempt 0): 0 to min(cap, base * 2^attempt)."""
    return rng.uniform(0.0, min(cap, base * 2.0 ** min(attempt, 16)))


def pause(error: TemporaryError, attempt: int, rng: random.Random, *, base: float = 0.2, cap: float = 8.0) -> float:
    """Seconds to wait after `error`: its Retry-After (at most a minute) plus jitter, else the backoff."""
    asked = error.retry_after if isinstance(error, ServerAwayError) else None
    if asked is None:
        return backoff(attempt, rng, base=base, cap=cap)
    return min(asked, 60.0) + rng.uniform(0.0, base)


@dataclass(frozen=True)
class Retry:
    """Tries an action again on `TemporaryError` until `patience` seconds are spent, in tries that failed and in waiting.

    `patience` 0 tries once.  `sleep`, `rng` and `clock` are injected: tests neither wait nor depend on luck.
    """

    patience: float = 10.0
    base: float = 0.2
    cap: float = 4.0
    sleep: Callable[[float], None] = time.sleep
    rng: random.Random = field(default_factory=random.Random)
    clock: Callable[[], float] = time.monotonic

    def call(self, act: Callable[[], T], *, again: Callable[[TemporaryError], bool] = lambda _: True) -> T:
        """`act()`, tried again where `again(error)`; raises the last error when patience is spent."""
        spent, attempt = 0.0, 0
        while True:
            begin = self.clock()
            try:
                return act()
            except TemporaryError as error:
                # A server that takes connections and never answers costs a whole timeout each time.
                spent += self.clock() - begin
                # The last wait is cut to what patience is left, so that a server back in time is not missed.
                if spent >= self.patience or not again(error):
                    raise
                asked = pause(error, attempt, self.rng, base=self.base, cap=self.cap)
                wait = min(asked, self.patience - spent)
            # A floor, or full jitter near zero would burn through the attempts without the server noticing time pass.
            wait = max(wait, 0.02)
            self.sleep(wait)
            spent += wait
            attempt += 1
