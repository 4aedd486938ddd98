"""`backup`: the flow, shown as it goes.  `backups`: what is in the folder, read without Prefect."""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from blocks.settings import InstallationSettings
from deployments.cli.interruption import Interruption
from deployments.cli.live import Row
from deployments.cli.options import Format
from deployments.cli.outcome import unwritten
from deployments.cli.running import NAME, prepare, run_server, run_shown
from deployments.cli.tables import console, plain_table
from tasks.cluster.planning import Connections
from tasks.database.backing_up import LOGIN_SECONDS, require_lasting
from tasks.database.catalogue import Backup, backups
from tasks.database.connection import open_database
from tasks.database.order import FOLDER, BackupOrder
from tasks.database.source import address_of, elsewhere, find_source, require_database
from tasks.domain.errors import TemporaryError, before_any_change

PATIENCE = 10.0
MEGABYTE = 1_000_000


def backup(settings: InstallationSettings, version: str, output: Format, *, gzip: bool) -> None:
    """Run the flow; raise what stops it."""
    with Interruption(), run_server() as server:
        with before_any_change():
            _look_first(settings, version)
        screen = console(stderr=output is Format.JSON)
        with screen.status("Starting the run: its Prefect server, its flow"):
            prepare(server, _load)
        complete = "The backup is complete: apinizer-upgrade backups shows it."
        rows = [Row("database"), Row("backup"), Row("proof")]
        result = run_shown(screen, rows, settings, lambda: _run(version, gzip=gzip), complete=complete)
        try:
            _print(result, output)
            sys.stdout.flush()
        except OSError as error:
            raise unwritten(
                error,
                f"The backup is complete and proved: {result['archive']} on {result['host']}.",
                "apinizer-upgrade backups shows it.",
            ) from None


def _look_first(settings: InstallationSettings, version: str) -> None:
    """What would stop the run at once is said before its server is there: the place, the cluster, the login."""
    order = BackupOrder.of(settings)
    require_lasting(order)
    needed = settings.database.given_uri() is None
    connections = Connections.open(settings, patience=PATIENCE) if needed else Connections(settings)
    address = address_of(connections, find_source(connections, version).manager)
    order.scope(address.name).check()
    if elsewhere(address, order.ssh):
        return
    try:
        with open_database(address.uri.get_secret_value(), timeout=LOGIN_SECONDS) as client:
            require_database(client, address)
    except TemporaryError:
        return  # the run has more patience


def _load() -> None:
    import flows.backup  # noqa: F401 - loaded here, run later


def _run(version: str, *, gzip: bool) -> dict[str, Any]:
    from flows.backup import backup as flow

    return flow(installation=NAME, apinizer_version=version, gzip=gzip)


def _print(result: dict[str, Any], output: Format) -> None:
    if output is Format.JSON:
        print(json.dumps(result, indent=2))
        return
    screen = console()
    screen.print(
        f"\n[bold green]Backed up and read back whole:[/] {result['documents']:,} documents in {result['namespaces']} collections."
    )
    screen.print(f"{result['archive']} on {result['host']}, {result['size']:,} bytes", markup=False)
    screen.print(f"SHA-256 {result['sha256']}", markup=False)
    for name in result["removed"]:
        screen.print(f"Removed the old backup {name}.", markup=False)


def list_backups(settings: InstallationSettings, output: Format) -> None:
    """Print the backups in the folder, newest first."""
    folder = Path(settings.backup_dir or FOLDER)
    found = backups(folder)
    if output is Format.JSON:
        print(json.dumps({"directory": str(folder.resolve()), "backups": [_row(b) for b in found]}, indent=2))
        return
    if not found:
        console().print(f"No backups in {folder}.", markup=False)
        return
    table = plain_table("NAME", "VERSION", "TAKEN", "SIZE", "DOCUMENTS", "PROVED")
    for each in found:
        row = _row(each)
        documents = "?" if row["documents"] is None else f"{row['documents']:,}"
        table.add_row(
            each.archive.name,
            each.version,
            _when(each.taken),
            f"{each.size / MEGABYTE:,.1f} MB",
            documents,
            _state(each),
        )
    console().print(table)


def _row(found: Backup) -> dict[str, Any]:
    manifest = found.manifest
    return {
        "archive": str(found.archive.resolve()),
        "version": found.version,
        "taken": found.taken.isoformat(),
        "size": found.size,
        "documents": manifest.documents if manifest else None,
        "database": manifest.database if manifest else None,
        "databases": manifest.databases if manifest else None,
        "left_out": manifest.left_out if manifest else None,
        "engine": manifest.engine if manifest else None,
        "point_in_time": manifest.point_in_time if manifest else None,
        "host": manifest.host if manifest else None,
        "sha256": found.sha256 or None,
        "proved": found.proved,
        "proved_at": manifest.proof.proved_at.isoformat() if manifest and manifest.proof and found.proved else None,
        "rehearsed_at": manifest.rehearsal.rehearsed_at.isoformat() if manifest and manifest.rehearsal else None,
        "needed_by": [need.sentence for need in manifest.needed_by] if manifest else [],
        "problem": found.problem or None,
    }


def _state(found: Backup) -> str:
    needs = [need.sentence for need in found.manifest.needed_by] if found.manifest else []
    return "; needed by ".join([_proof(found), *needs])


def _proof(found: Backup) -> str:
    if found.problem:
        return found.problem
    if found.proved and found.manifest and found.manifest.proof:
        return _when(found.manifest.proof.proved_at) + (", restored on trial" if found.manifest.rehearsal else "")
    return "not proved: apinizer-upgrade verify"


def _when(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")
