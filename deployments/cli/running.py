"""Runs a flow from the command line: its Prefect server, its display, and an end whatever happens to either."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console

from blocks.installation import provide
from blocks.settings import InstallationSettings
from deployments.cli.farewell import Farewell
from deployments.cli.live import Display, Row
from deployments.cli.quiet import quiet_prefect
from deployments.cli.server import check_level, reach
from deployments.embedded import EmbeddedServer, quick_imports, without_heartbeats
from tasks.record.feed import listening

NAME = "command-line"
"""What the settings of this process are called in the flow's parameters."""


def run_server() -> AbstractContextManager[EmbeddedServer | None]:
    """The embedded server, starting; nothing where the run is to appear on a server that is there."""
    check_level()
    return nullcontext() if os.environ.get("PREFECT_API_URL") else EmbeddedServer()


def prepare(server: EmbeddedServer | None, load: Callable[[], object]) -> None:
    """The server answers, Prefect knows it, the flow is loaded (`load` imports it)."""
    if server is not None:
        os.environ.update(server.settings())
    else:
        reach(os.environ["PREFECT_API_URL"])
    # The server starts in a process of its own meanwhile.
    with quick_imports():
        load()
    quiet_prefect()
    if server is not None:
        server.wait()


def run_shown(
    screen: Console,
    rows: list[Row],
    settings: InstallationSettings,
    act: Callable[[], dict[str, Any]],
    *,
    complete: str,
) -> dict[str, Any]:
    """Run the flow in `act` with its display; `complete` is what is said of it should the server be gone at its end."""
    provide(NAME, settings)
    with (
        Display(screen, rows) as display,
        Farewell(complete) as farewell,
        listening(display.hear),
        listening(farewell.hear),
        without_heartbeats(),
    ):
        return act()
