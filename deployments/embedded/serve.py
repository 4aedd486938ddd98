"""What runs in the server's own process. Imported there only: this is where Prefect's server is loaded."""

import asyncio
import os
import shutil
import signal
import socket
import sqlite3
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import NoReturn

from deployments.embedded.imports import quick_imports
from deployments.embedded.process import MEMORY
from deployments.embedded.template import build, prepare
from tasks.domain.errors import UpgradeError


def migrate(path: str) -> None:
    """Create the schema and the block types in the database that the environment names (`path`)."""
    with quick_imports():
        from prefect.server.database import provide_database_interface
        from prefect.server.models.block_registration import run_block_auto_registration

    async def fill() -> None:
        interface = provide_database_interface()
        await interface.create_db()
        session = await interface.session()
        async with session:
            await run_block_auto_registration(session=session)
        await (await interface.engine()).dispose()

    asyncio.run(fill())
    with closing(sqlite3.connect(path)) as connection:
        # Out of write-ahead mode, so that the one file is the whole database.
        connection.execute("PRAGMA journal_mode = DELETE")


def serve(descriptor: int, directory: str) -> NoReturn:
    """Serve Prefect's API on the listening socket `descriptor` until standard input closes.

    Standard input is a pipe whose other end only the caller holds, so its death, by whatever signal, is
    seen here. (The kernel's parent-death signal would fire when the *thread* that started us ends.)
    `directory` is this run's own and is removed at the end.
    """
    threading.Thread(target=_end_with_caller, args=(directory,), daemon=True).start()
    kept = _load_template(Path(directory))
    with quick_imports():
        import uvicorn
        from prefect.server.api.server import create_app

        application = create_app(ephemeral=True, final=True)
    # Errors only: what the flow does is told by the flow.
    configuration = uvicorn.Config(application, log_level="error", access_log=False, lifespan="on")
    uvicorn.Server(configuration).run(sockets=[socket.socket(fileno=descriptor)])
    kept.close()
    sys.exit(1)


def _load_template(directory: Path) -> sqlite3.Connection:
    """Fill the database in memory that the server is to open; it lasts as long as the connection returned."""
    try:
        template = prepare()
    except (OSError, UpgradeError):
        # No cache to keep it in (a read-only home): each run pays for its own.
        template = directory / "template.db"
        template.touch()
        build(template)
    kept = sqlite3.connect(MEMORY, uri=True)
    with closing(sqlite3.connect(template)) as source:
        source.backup(kept)
    return kept


def _end_with_caller(directory: str) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    shutil.rmtree(directory, ignore_errors=True)
    # The whole group: a migration that was still running goes too.
    os.killpg(os.getpgrp(), signal.SIGKILL)
