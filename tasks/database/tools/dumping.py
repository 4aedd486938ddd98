"""A backup that mongodump writes, streamed into a place of this software's own and read while it comes."""

import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import SecretStr

from tasks.database.dump import BackupEvidence, DumpProgress
from tasks.database.manifest import Manifest, SourceRecord, manifest_path, save
from tasks.database.scope import Scope
from tasks.database.slot import BACKUP, check_room, claim
from tasks.database.tools.address import Address, parse
from tasks.database.tools.find import Tool
from tasks.database.tools.options import dump_options, left_out_name
from tasks.database.tools.standing import changes_since, look_from_here
from tasks.database.tools.taking import REMOVED, Taking
from tasks.domain.errors import UsageError


def dump_with_tool(
    tool: Tool,
    uri: SecretStr,
    scope: Scope | str,
    directory: Path,
    *,
    apinizer_version: str,
    database: str = "",
    gzip: bool = True,
    progress: Callable[[DumpProgress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> BackupEvidence:
    """Write a backup of `scope` into `directory` with mongodump, here or where `tool` is.

    `database` is the Apinizer database's name, for the manifest.  On this machine the archive is compressed
    here, which is several times faster than the tool's own gzip; over SSH the tool compresses.  A whole server
    that is a replica set is taken with its oplog, as one point in time.  Whatever goes wrong, no file that
    looks like a backup stays, no tool runs on, and no password is left anywhere.

    Raises UsageError, UnauthorizedError, ForbiddenError, NotFoundError, BlockedError (no room), TemporaryError,
    DamagedArchiveError, StoppedError.
    """
    asked = Scope.of(scope) if isinstance(scope, str) else scope
    tool.refuse_old()
    address = parse(uri.get_secret_value())
    refuse_files(tool, address)
    name = database or next(iter(asked.databases), "")
    seen = look_from_here(tool, address, uri, asked)
    oplog = asked.whole_server and seen is not None and seen.replicated
    command = [tool.program, *dump_options(asked, gzip=gzip and bool(tool.ssh), oplog=oplog)]
    taking = Taking(tool, address, seen, gzip=gzip, progress=progress, stop=stop)
    started = now()
    slot = claim(directory, apinizer_version, started.date())
    try:
        if seen is not None:
            check_room(directory, seen.size, gzip=gzip)
        taking.run(command, slot)
        taking.refuse_incomplete(asked)
        notes = _notes(tool, asked, oplog=oplog, seen=seen is not None)
        if seen is not None:
            notes += changes_since(uri, seen, asked, safe=REMOVED)
        manifest = _manifest(taking, asked, slot.archive.name, name, apinizer_version, started, now(), notes, gzip=gzip)
        # The manifest first: an archive is never seen without it, and a manifest alone is no backup.
        save(slot.archive, manifest)
        slot.publish()
    except OSError as problem:
        slot.discard()
        raise BACKUP.full(problem, directory) from None
    except BaseException:
        slot.discard()
        raise
    return BackupEvidence(archive=slot.archive, manifest_file=manifest_path(slot.archive), manifest=manifest)


def refuse_files(tool: Tool, address: Address) -> None:
    """Raises UsageError where the URI names certificates of this machine and the tool is on another."""
    if tool.ssh and (files := address.files()):
        raise UsageError(
            f"{tool.program} on {tool.ssh} cannot read the certificates that the database's URI names.",
            observed=f"On this machine: {', '.join(files)}.",
            next="Use --engine native, or install the MongoDB Database Tools here.",
        )


def _notes(tool: Tool, scope: Scope, *, oplog: bool, seen: bool) -> list[str]:
    notes = []
    if not seen:
        notes.append(
            f"The server cannot be seen from {socket.gethostname()}: that it was the primary, and that no collection "
            f"was dropped meanwhile, was left to {tool.program}."
        )
    if scope.whole_server and not oplog:
        notes.append("Without an oplog the archive is not one point in time.")
    return notes


def _manifest(
    taking: Taking,
    scope: Scope,
    archive: str,
    database: str,
    apinizer_version: str,
    started: datetime,
    ended: datetime,
    notes: list[str],
    *,
    gzip: bool,
) -> Manifest:
    tool, seen = taking.tool, taking.seen
    return Manifest(
        archive=archive,
        host=socket.gethostname(),
        source=seen.source if seen else SourceRecord(hosts=taking.address.hosts.split(",")),
        engine="mongodump",
        tool_version=f"{tool.program} {tool.version}",
        apinizer_version=apinizer_version,
        server_version=taking.server_version,
        database=database,
        databases=list(scope.databases),
        left_out=[f"{db}.{left_out_name(name, db)}" for db in scope.databases for name in scope.left_out],
        collections_asked="some" if scope.left_out else "all",
        started=started,
        ended=ended,
        duration_seconds=round((ended - started).total_seconds(), 3),
        point_in_time=taking.oplog is not None,
        oplog=taking.oplog,
        read_concern="local",
        gzip=gzip,
        size=taking.size,
        sha256=taking.sha256,
        namespaces=taking.records,
        notes=notes,
    )
