"""One backup from beginning to end: the place, what dead runs left there, the engine, the archive."""

from collections.abc import Callable
from pathlib import Path

from tasks.cluster.database_secret import DatabaseAddress
from tasks.database.connection import open_database
from tasks.database.dump import BackupEvidence, DumpProgress, dump
from tasks.database.engine import Choice, Engine, EngineFacts, choose, native_limit
from tasks.database.order import BackupOrder
from tasks.database.place import place_of
from tasks.database.scope import Scope
from tasks.database.source import elsewhere
from tasks.database.sweep import sweep
from tasks.database.tools.dumping import dump_with_tool
from tasks.database.tools.find import Tool, find
from tasks.domain.errors import BlockedError, TemporaryError

LOGIN_SECONDS = 6.0


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
    directory, scope = Path(order.directory), order.scope(address.name)
    scope.check()
    for leftover in sweep(directory):
        say(f"{leftover.name}, left unfinished by a run that died, was removed.")
    choice, tool = choose_engine(address, order)
    if tool is not None:
        say(f"{tool.program} {tool.version}{f' on {tool.ssh}' if tool.ssh else ''} reads the database: {choice.reason}")
        return dump_with_tool(
            tool,
            address.uri,
            scope,
            directory,
            apinizer_version=version,
            database=address.name,
            gzip=order.gzip,
            progress=progress,
            stop=stop,
        )
    with open_database(address.uri.get_secret_value()) as client:
        if scope == Scope.of(address.name):
            return dump(
                client, address.name, directory, apinizer_version=version, progress=progress, stop=stop, gzip=order.gzip
            )
        return dump(
            client,
            scope,
            directory,
            apinizer_version=version,
            database=address.name,
            progress=progress,
            stop=stop,
            gzip=order.gzip,
        )


def choose_engine(address: DatabaseAddress, order: BackupOrder) -> tuple[Choice, Tool | None]:
    """Who reads the database, and the tool where it is not this software itself.

    Tools are looked for only where one is asked for or needed: over SSH that takes a second.
    """
    wish = Engine(order.engine)
    reachable, cannot = _seen_from_here(address, order)
    here = there = None
    if wish is Engine.MONGODUMP or (wish is Engine.AUTO and (cannot or not reachable)):
        there = find("mongodump", order.ssh) if order.ssh else None
        here = find("mongodump")
    known = EngineFacts(
        ssh=order.ssh,
        here=here.version if here else "",
        there=there.version if there else "",
        reachable=reachable,
        native_cannot=cannot,
    )
    choice = choose(wish, known, order.scope(address.name))
    if choice.engine is Engine.NATIVE:
        return choice, None
    return choice, there if choice.where == "ssh" else here


def _seen_from_here(address: DatabaseAddress, order: BackupOrder) -> tuple[bool, str]:
    """Whether the database answers on this machine, and why the native engine cannot read it, or "".

    Where no machine is named for SSH, a database that is away is an error to be raised.
    """
    if elsewhere(address, order.ssh):
        return False, ""
    try:
        with open_database(address.uri.get_secret_value(), timeout=LOGIN_SECONDS) as client:
            version = str(client.admin.command("buildInfo")["version"])
            names = [address.name] if not order.whole_server else client.list_database_names()
            types = {str(info.get("type")) for name in names for info in client[name].list_collections()}
            return True, native_limit(version, types)
    except TemporaryError:
        if not order.ssh:
            raise
        return False, ""
