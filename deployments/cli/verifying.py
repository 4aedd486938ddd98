"""`verify`: reads an archive whole, and restores it on trial where a place for that is given.  Needs no Prefect."""

import json
import sys
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.text import Text

from blocks.settings import InstallationSettings
from deployments.cli.interruption import Interruption
from deployments.cli.options import Format
from deployments.cli.tables import console, plain_table
from tasks.cluster.planning import Connections
from tasks.database.connection import open_database
from tasks.database.proof import Proof, prove
from tasks.database.rehearsal import SCRATCH, Rehearsal
from tasks.database.rehearsal import rehearse as trial
from tasks.database.source import find_source, rehearsal_uri

PATIENCE = 10.0


def verify(archive: Path, output: Format) -> None:
    """Print what was proved; raise what the archive is not."""
    with Interruption():
        proof = _shown(archive)
        if output is Format.JSON:
            print(json.dumps(proof_value(proof), indent=2))
            sys.stdout.flush()
            return
        _print(proof)
        sys.stdout.flush()


def rehearse(archive: Path, settings: InstallationSettings, scratch: str, output: Format) -> None:
    """The same, and restored on trial into a scratch database; raise what came back otherwise."""
    with Interruption():
        proof = _shown(archive)
        alone = settings.backup.second_server is not None or settings.database.given_uri() is not None
        connections = Connections(settings) if alone else Connections.open(settings, patience=PATIENCE)
        manager = None if alone else find_source(connections).manager
        uri = rehearsal_uri(connections, manager).get_secret_value()
        with console(stderr=True).status("Restoring it on trial") as status, open_database(uri) as client:
            done = trial(
                archive,
                client,
                scratch=scratch or SCRATCH,
                progress=lambda at: status.update(f"Restoring it on trial: {at.phase} {at.collection}"),
            )
        if output is Format.JSON:
            print(json.dumps(proof_value(proof) | {"rehearsal": done.model_dump(mode="json")}, indent=2))
        else:
            _print(proof)
            _print_rehearsal(done)
        sys.stdout.flush()


def proof_value(proof: Proof) -> dict[str, Any]:
    """The proof for programs."""
    return proof.model_dump(mode="json")


def _shown(archive: Path) -> Proof:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    screen = console(stderr=True)
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        row = bar.add_task("Reading it back", total=None)
        return prove(archive, progress=lambda done, total: bar.update(row, completed=done, total=total))


def _print(proof: Proof) -> None:
    table = plain_table("COLLECTION", "KIND", "DOCUMENTS", "BYTES", "INDEXES")
    for each in proof.namespaces:
        name = f"{each.db}.{each.collection}"
        table.add_row(Text(name), each.type, f"{each.documents:,}", f"{each.bytes:,}", str(len(each.indexes)))
    screen = console()
    screen.print(table)
    against = "and as its manifest says" if proof.against_manifest else "there is no manifest to hold it against"
    screen.print(
        f"\n[bold green]Whole:[/] {proof.documents:,} documents, {proof.bytes:,} bytes, {proof.indexes} indexes; every "
        f"checksum right, {against}."
    )
    screen.print(f"Written by {proof.written_by} from MongoDB {proof.server_version}.", markup=False)
    screen.print(f"SHA-256 {proof.sha256}", markup=False)
    for sentence in (*proof.unproven, *proof.untried):
        print(f"Not proved: {sentence}")
    for sentence in proof.notes:
        print(f"Note: {sentence}")


def _print_rehearsal(done: Rehearsal) -> None:
    record = done.record
    console().print(
        f"[bold green]Restored on trial:[/] {record.documents:,} documents in {record.collections} collections came back "
        f"equal on MongoDB {record.server_version}; the scratch database is dropped."
    )
    for sentence in done.unproven:
        print(f"Not proved: {sentence}")
    for sentence in done.notes:
        print(f"Note: {sentence}")
