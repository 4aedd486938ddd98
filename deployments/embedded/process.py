"""The child processes: how this package calls itself, and the environment that the calls get."""

import os
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
MEMORY = "file::memory:?cache=shared"
"""SQLite's name for one database in memory that several connections of a process share."""


def command(*arguments: str) -> list[str]:
    """The command line that runs a verb of this package under the interpreter that runs now."""
    return [sys.executable, "-m", "deployments.embedded", *arguments]


def environment(database: str, home: Path) -> dict[str, str]:
    """The environment of a server on the SQLite database `database`: the caller's, without its Prefect settings.

    A profile, a token or a database of the person's own must not reach a server that serves one run:
    `home` stands in for their Prefect folder, and every `PREFECT_*` variable is dropped.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith("PREFECT_")}
    path = os.pathsep.join(part for part in (str(PROJECT), inherited.get("PYTHONPATH", "")) if part)
    return inherited | {
        "PYTHONPATH": path,
        "PREFECT_HOME": str(home),
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log file; empty where there is none."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
