"""The backup that a rollback puts back: where it is on this machine, that it is the one, and whether it is back already."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.database.archive.format import Namespace
from tasks.database.catalogue import backups
from tasks.database.connection import Client
from tasks.database.fingerprint import read_content
from tasks.database.holdings import Contents, read_contents
from tasks.database.logs import LOG_COLLECTIONS
from tasks.database.manifest import load, manifest_path
from tasks.database.restore.definition import index_differences, option_differences
from tasks.database.restore.lock import hold
from tasks.database.restore.look import kind_of, listed
from tasks.database.restore.names import LOCK, is_own
from tasks.domain.errors import (
    BlockedError,
    DamagedArchiveError,
    NotFoundError,
    UsageError,
)
from tasks.domain.journal import BackupMade

SHORTEST = 8
"""Digits of a SHA-256 that name a backup: what a person reads aloud, and nobody hits by chance."""


def find_archive(made: BackupMade, directory: Path) -> Path:
    """Where the backup is on this machine: under its own path, else in `directory` by what it holds.

    Raises BlockedError that names the machine where it was made.
    """
    own = Path(made.archive)
    if own.is_file():
        return own
    try:
        found = backups(directory)
    except (NotFoundError, UsageError):
        found = []
    there = next((backup.archive for backup in found if backup.sha256 == made.sha256), directory / own.name)
    if there.is_file():
        return there
    here = socket.gethostname()
    gone = made.host == here
    raise BlockedError(
        f"The backup {own.name} is {'gone' if gone else 'not on this machine'}.",
        observed=f"It was written to {own} on {made.host}, SHA-256 {made.sha256[:12]}…; this is {here}. "
        f"Looked for it in {directory} as well.",
        next=f"Fetch it from where it was copied, with its .json, and name that folder with --backup-dir{_else(made, gone=gone)}.",
    )


def require_manifest(archive: Path) -> None:
    """Raise BlockedError where the backup has no manifest that can be read.

    Without it nobody knows that nothing was left out, so what the upgrade made cannot be told from that, and what going
    back loses cannot be counted.
    """
    path = manifest_path(archive)
    try:
        observed = "" if load(archive) else f"{path} is not there."
    except DamagedArchiveError as error:
        observed = f"{error.happened} {error.observed}".strip()
    if observed:
        raise BlockedError(
            f"The backup {archive.name} is there without its manifest.",
            observed=f"{observed} It tells that nothing was left out of the backup, so what may be dropped.",
            next=f"Fetch {path.name} from where the backup was copied to and put it beside the archive. No other backup "
            "serves: one that is made now holds the database as the upgrade left it.",
        )


def _else(made: BackupMade, *, gone: bool) -> str:
    return "" if gone else f", or run this on {made.host}"


def require_named(made: BackupMade, name: str, run: str) -> None:
    """Raise UsageError where `name` is not this backup's: the beginning of its SHA-256, or its file's name.

    `run` is the ID of the run that is to be named with it.
    """
    wanted = name.strip().lower()
    short = len(wanted) >= SHORTEST and made.sha256.lower().startswith(wanted)
    if short or Path(name.strip()).name == Path(made.archive).name:
        return
    observed = (
        f"{name} was named." if wanted else "Which backup is put back was not said, and there is nobody to be asked."
    )
    if wanted and len(wanted) < SHORTEST and made.sha256.lower().startswith(wanted):
        observed = f"{name} was named: of a SHA-256 at least {SHORTEST} digits are to be said."
    raise UsageError(
        f"The backup of before the upgrade is {Path(made.archive).name}, SHA-256 {made.sha256[:12]}….",
        observed=observed,
        next=f"Look at what it would undo: apinizer-upgrade rollback {run} --dry-run. Then name it: "
        f"apinizer-upgrade rollback {run} --backup {made.sha256[:12]}",
    )


@contextmanager
def in_words() -> Iterator[None]:
    """While the backup is read whole: what is wrong with it is told as what it means for the way back."""
    try:
        yield
    except DamagedArchiveError as error:
        raise DamagedArchiveError(
            f"There is no way back with this backup. {error.happened}",
            observed=error.observed,
            next="Fetch the archive again from where it was copied, and name its folder with --backup-dir. Without it "
            "the way is forward: resume the run, or upgrade to the vendor's next release.",
        ) from None


def require_the_one(archive: Path, sha256: str, made: BackupMade) -> None:
    """Raise BlockedError where an archive's SHA-256 is not the one that the upgrade recorded."""
    if sha256 != made.sha256:
        raise BlockedError(
            f"{archive.name} is not the backup of before the upgrade.",
            observed=f"Its SHA-256 is {sha256[:12]}…, that of the backup was {made.sha256[:12]}….",
            next="Fetch that one from where it was copied, and name its folder with --backup-dir.",
        )


def is_back(
    client: Client, database: str, archive: Path, *, stop: Callable[[], bool] = lambda: False
) -> tuple[bool, str]:
    """Whether the database holds what the archive does and nothing else; else what differs first.

    Logs are not held against it: those who serve write them at any time.  Reads both whole, with the right to restore:
    what a restore that was killed at its very end still held is taken over, and is gone afterwards.  Raises BlockedError
    where a restore is at work.
    """
    with hold(client, database, archive.name, stop=stop):
        return _compared(client, database, archive, stop)


def _compared(client: Client, database: str, archive: Path, stop: Callable[[], bool]) -> tuple[bool, str]:
    now = {info["name"]: info for info in listed(client, database) if info["name"] != LOCK}
    if left := sorted(name for name in now if is_own(name)):
        return False, f"a restore is unfinished ({left[0]})"
    held = read_contents(archive, stop=stop)
    then = {namespace.collection: namespace for namespace in held.definitions if namespace.db == database}
    wanted = {name for name in then if not name.startswith("system.") or name == "system.js"}
    present = {name for name in now if not name.startswith("system.") or name == "system.js"}
    if odd := sorted(wanted ^ present):
        return False, f"{odd[0]} is {'missing' if odd[0] in wanted else 'not of the backup'}"
    for name in sorted(wanted - LOG_COLLECTIONS):
        if not _is_same(client, database, now[name], then[name], held, stop):
            return False, f"{name} is another than in the backup"
    return True, ""


def _is_same(
    client: Client,
    database: str,
    info: dict[str, object],
    namespace: Namespace,
    held: Contents,
    stop: Callable[[], bool],
) -> bool:
    definition, name, options = held.definitions[namespace], str(info["name"]), info.get("options")
    kind = kind_of(info)
    if option_differences(definition.options, options if isinstance(options, dict) else {}):
        return False
    if kind == "view":
        return True
    if index_differences(definition.indexes, [dict(index) for index in client[database][name].list_indexes()]):
        return False
    if namespace in held.replayed:
        return False  # the archive's own oplog changes it: its documents cannot be told from here
    data = f"system.buckets.{name}" if kind == "timeseries" else name
    return read_content(client, database, data, stop=stop).value == held.fingerprints[namespace].value
