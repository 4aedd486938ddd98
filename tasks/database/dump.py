"""The native backup: collections read raw from the primary into a mongodump archive with a manifest."""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bson.errors import BSONError
from pydantic import BaseModel, ConfigDict

from tasks.database.archive.outlet import Outlet
from tasks.database.batch import ReplyError
from tasks.database.connection import Client
from tasks.database.manifest import Manifest, manifest_path, save
from tasks.database.pass_over import Pass, Watcher
from tasks.database.primary import Primary, primary, source, still
from tasks.database.run import tool_version
from tasks.database.scope import Scope
from tasks.database.slot import BACKUP, Slot, check_room, claim
from tasks.domain.errors import UpgradeError

_MOST_READERS = 4


@dataclass(frozen=True, slots=True)
class DumpProgress:
    """How far a dump is.  `bytes_expected` is the server's own figure of before the start, 0 where it gives none."""

    collection: str
    collections_done: int
    collections: int
    documents: int
    bytes_read: int
    bytes_expected: int
    bytes_written: int


class BackupEvidence(BaseModel):
    """A backup that is on the disk, not yet proved: its archive, its manifest's file and what it says."""

    model_config = ConfigDict(frozen=True)

    archive: Path
    manifest_file: Path
    manifest: Manifest


def dump(
    client: Client,
    scope: Scope | str,
    directory: Path,
    *,
    apinizer_version: str,
    database: str = "",
    parallel: int | None = None,
    progress: Callable[[DumpProgress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    gzip: bool = True,
) -> BackupEvidence:
    """Write a backup of `scope` (a name means that database) into `directory`.

    Run it inside `open_database`, which turns the driver's errors into this project's.  `database` is the
    Apinizer database's name, for the manifest; where it is not given it is the scope's first.  `parallel` is
    how many collections are read at once: without it 4, as mongodump does, or as many as there are
    processors or collections.  `stop` is asked before each batch of some MiB, `progress` called after it, in
    the calling thread.  Whatever goes wrong, no file that looks like a backup stays.

    Raises UsageError (not the primary, directory not writable), NotFoundError (no such database),
    ForbiddenError (a role is missing), BlockedError (no room), StoppedError, TemporaryError (collections
    changed meanwhile, another primary, an oplog that is too small).
    """
    scope = Scope.of(scope) if isinstance(scope, str) else scope
    scope.check()
    seen = primary(client)
    started = now()
    slot = claim(directory, apinizer_version, started.date())
    try:
        with client.start_session(causal_consistency=False) as session:
            run = Pass(client, session, scope, seen)
            run.prepare()
            check_room(directory, run.expected, gzip=gzip)
            with Outlet(slot.file, gzip=gzip, watch=slot.watch) as outlet:
                watcher = _watcher(run, outlet, progress, stop)
                run.write(outlet, parallel or min(_MOST_READERS, os.cpu_count() or 1), watcher)
                still(client, seen)
                sha256 = outlet.finish()
        made = _Made(slot, started, now(), gzip, outlet.size, sha256)
        manifest = _manifest(client, seen, scope, run, made, apinizer_version, database)
        # The manifest first: an archive is never seen without it, and a manifest alone is no backup.
        save(slot.archive, manifest)
        slot.publish()
    except OSError as problem:
        slot.discard()
        raise BACKUP.full(problem, directory) from None
    except (ReplyError, BSONError) as problem:
        slot.discard()
        raise UpgradeError(
            "The server's answer could not be understood.",
            observed=str(problem),
            safe="Nothing was changed; the unfinished file was removed.",
            next="Take the backup with mongodump.",
        ) from None
    except BaseException:
        slot.discard()
        raise
    return BackupEvidence(archive=slot.archive, manifest_file=manifest_path(slot.archive), manifest=manifest)


@dataclass(frozen=True, slots=True)
class _Made:
    slot: Slot
    started: datetime
    ended: datetime
    gzip: bool
    size: int
    sha256: str


def _watcher(run: Pass, outlet: Outlet, progress: Callable[[DumpProgress], None], stop: Callable[[], bool]) -> Watcher:
    def told(collection: str) -> None:
        progress(
            DumpProgress(
                collection, run.done, len(run.taken), run.documents, run.bytes, run.expected, outlet.size
            )
        )  # fmt: skip

    return Watcher(stop, told)


def _manifest(
    client: Client, seen: Primary, scope: Scope, run: Pass, made: _Made, apinizer_version: str, database: str
) -> Manifest:
    return Manifest(
        archive=made.slot.archive.name,
        host=socket.gethostname(),
        source=source(client, seen),
        tool_version=tool_version(),
        apinizer_version=apinizer_version,
        server_version=seen.server_version,
        database=database or next(iter(scope.databases), ""),
        databases=list(scope.databases),
        left_out=run.left_out,
        collections_asked="some" if run.left_out else "all",
        started=made.started,
        ended=made.ended,
        duration_seconds=round((made.ended - made.started).total_seconds(), 3),
        point_in_time=run.oplog is not None,
        oplog=run.oplog,
        read_concern=run.read_concern,
        gzip=made.gzip,
        size=made.size,
        sha256=made.sha256,
        namespaces=run.records,
        notes=run.notes,
    )
