"""The scratch database of a rehearsal: empty before, marked meanwhile, dropped afterwards."""

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from pymongo.errors import PyMongoError

from tasks.database.connection import Client
from tasks.domain.errors import BlockedError, UsageError

MARK = "apinizer-rehearsal"
"""The collection that says whose the database is, so that what a killed rehearsal left may be dropped."""

_SERVERS_OWN = frozenset({"admin", "config", "local"})

_RUNNING: set[str] = set()
"""The rehearsals of this process: what any other of its id left may be removed."""


def refuse_unfit(client: Client, scratch: str, databases: list[str]) -> None:
    """Raises UsageError for a database of `databases` or the server's own, BlockedError for one that is in use."""
    if scratch in _SERVERS_OWN or scratch in databases:
        raise UsageError(
            f"{scratch} cannot be the scratch database.",
            observed="It is a database of the server's or of the archive's own.",
            next="Name a database that does not exist.",
        )
    there = [name for name in client[scratch].list_collection_names() if not name.startswith("system.")]
    if MARK in there:
        _refuse_busy(client, scratch)
    elif there:
        raise BlockedError(
            f"The scratch database {scratch} is not empty.",
            observed=f"It holds {len(there)} collections, such as {min(there)}.",
            next="Name a database that does not exist; it is dropped afterwards.",
        )


def _refuse_busy(client: Client, scratch: str) -> None:
    """What a dead rehearsal of this machine left is removed; whether one elsewhere is dead cannot be told."""
    mark = client[scratch][MARK].find_one() or {}
    host, pid = str(mark.get("host", "")), int(mark.get("pid", 0))
    # A process id may be given again, in a container even to the same name of a machine: then it is ours.
    running = mark.get("run") in _RUNNING if pid == os.getpid() else _alive(pid)
    if host == socket.gethostname() and not running:
        return
    raise BlockedError(
        f"Another rehearsal uses the scratch database {scratch}.",
        observed=f"It runs on {host or 'another machine'} as process {pid}.",
        next="Wait for it, or name another scratch database. If it is dead, drop the database and try again.",
    )


def _alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def empty(client: Client, scratch: str, notes: list[str]) -> Iterator[None]:
    """An empty database that says whose it is: what a killed rehearsal left may be dropped by the next one."""
    client.drop_database(scratch)
    run = uuid.uuid4().hex
    mark = {"_id": "a rehearsal of apinizer-upgrade", "host": socket.gethostname(), "pid": os.getpid(), "run": run}
    _RUNNING.add(run)
    try:
        client[scratch][MARK].insert_one(mark)
        yield
    finally:
        _RUNNING.discard(run)
        try:
            client.drop_database(scratch)
        except PyMongoError:
            notes.append(f"The scratch database {scratch} could not be dropped: drop it, or rehearse again.")
