"""One backup from beginning to end: the place, what dead runs left there, the engine, the archive."""

from collections.abc import Callable
from pathlib import Path

from tasks.cluster.database_secret import DatabaseAddress
from tasks.database.connection import open_database
from tasks.database.dump import BackupEvidence, DumpProgress, dump
from tasks.database.order import BackupOrder
from tasks.database.place import place_of
from tasks.database.sweep import sweep
from tasks.domain.errors import BlockedError


def require_lasting(order: BackupOrder) -> str:
    """What is to be thought of at the place of the backup, or ""; raise `BlockedError` where it would not outlive the worker."""
    place = place_of(Path(order.directory))
    if place.ephemeral and not order.ephemeral_allowed:
        raise BlockedError(
            f"Backups in {order.directory} would not outlive this worker.",
            observed=place.ephemeral,
            next="Name a directory on a volume that lasts with --backup-dir (backup_dir in the configuration), or take "
            "this one all the same with --allow-ephemeral (backup: ephemeral_allowed).",
        )
    return place.ephemeral or place.warning


def make_backup(
    address: DatabaseAddress,
    order: BackupOrder,
    version: str,
    *,
    progress: Callable[[DumpProgress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda _: None,
) -> BackupEvidence:
    """Write the archive and its manifest; not proved yet.  `say` gets sentences for the run's log.

    Nothing that looks like a backup stays where it fails.  Raises what the engine raises.
    """
    directory = Path(order.directory)
    for leftover in sweep(directory):
        say(f"{leftover.name}, left unfinished by a run that died, was removed.")
    with open_database(address.uri.get_secret_value()) as client:
        return dump(
            client,
            address.name,
            directory,
            apinizer_version=version,
            progress=progress,
            stop=stop,
            gzip=order.gzip,
        )
