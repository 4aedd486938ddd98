"""Waiting for a server that is away for a while, so that a restart or a step-down does not end a restore."""

import time
from collections.abc import Callable
from typing import TypeVar

from pymongo.errors import NetworkTimeout, PyMongoError

from tasks.database.connection import Client, explain
from tasks.domain.errors import StoppedError, TemporaryError

PATIENCE = 60.0
"""Seconds that a server may be away in one go: an election takes 12, a restart rarely more than 40."""

_FIRST_WAIT, _LONGEST_WAIT = 0.2, 5.0
_T = TypeVar("_T")


class Patience:
    """Does what is asked, again where only the connection or the primary was lost.

    `seconds` counts from the first of several failures in a row.  What is asked must bear being done twice.
    """

    def __init__(self, client: Client, *, stop: Callable[[], bool] = lambda: False, seconds: float = PATIENCE) -> None:
        self._client, self._stop, self._seconds = client, stop, seconds

    def __call__(self, act: Callable[[], _T]) -> _T:
        """The result of `act`.  Raises the driver's error when the patience is over or waiting is no use, or
        StoppedError."""
        wait, until = _FIRST_WAIT, 0.0
        while True:
            try:
                return act()
            except PyMongoError as problem:
                until = until or time.monotonic() + self._seconds
                if not passing(problem) or time.monotonic() + wait > until:
                    raise
                if self._stop():
                    raise StoppedError("The restore was stopped while the server was away.") from None
            time.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)

    def until_done(self, act: Callable[[], _T]) -> _T:
        """As a call, for what may take a server hours: that no reply came is no failure while it answers a ping."""
        while True:
            try:
                return self(lambda: _not_late(act))
            except _NoReplyError:
                self(lambda: self._client.admin.command("ping"))


class _NoReplyError(Exception):
    pass


def _not_late(act: Callable[[], _T]) -> _T:
    try:
        return act()
    except NetworkTimeout:
        raise _NoReplyError from None


def passing(problem: PyMongoError) -> bool:
    """Whether the same may succeed in a while."""
    return isinstance(explain(problem, ""), TemporaryError)


def hosts_of(client: Client) -> str:
    """The servers that the client knows, as `host:port,host:port`: nothing secret."""
    return ",".join(sorted(f"{host}:{port}" for host, port in client.nodes)) or "the database server"
