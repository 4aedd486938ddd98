"""Looks for mongodump and mongorestore, here or on the database's machine."""

import re
import subprocess
from dataclasses import dataclass
from typing import Literal

from tasks.database.engine import FIRST_WITH_CONFIG
from tasks.database.server_version import numbers
from tasks.database.tools.failure import Ended, explain
from tasks.database.tools.job import version_command
from tasks.domain.errors import NOTHING_CHANGED, TemporaryError, UsageError

Program = Literal["mongodump", "mongorestore"]

_VERSION = re.compile(r"version:?\s*(r?\d+(?:\.\d+)+\S*)")
_SECONDS = 60.0
_NOT_FOUND, _SSH = 127, 255


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that is installed: its program, its version, and the machine, empty for this one."""

    program: Program
    version: str
    ssh: str = ""

    def refuse_old(self) -> None:
        """Raises UsageError for a release that would want the password in its arguments."""
        if numbers(self.version) < FIRST_WITH_CONFIG:
            raise UsageError(
                f"{self.program} {self.version}{f' on {self.ssh}' if self.ssh else ''} is too old.",
                observed="Before release 100.3 it takes a password only as an argument, where every user of the machine sees it.",
                next="Install a newer release of the MongoDB Database Tools, or use --engine native.",
            )


def find(program: Program, ssh: str = "") -> Tool | None:
    """The tool on this machine, or on the one that `ssh` names; None where it is not installed.

    Raises what a failing SSH connection is: UsageError, UnauthorizedError, BlockedError, TemporaryError.
    """
    command = version_command(program, ssh)
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False)
    except FileNotFoundError:
        raise UsageError(f"{command[0]} is not installed here.", next="Install the OpenSSH client.") from None
    except subprocess.TimeoutExpired:
        raise TemporaryError(
            f"{program} on {ssh or 'this machine'} did not say its version within {_SECONDS:.0f} seconds.",
            next=f"Try by hand: {f'ssh {ssh} ' if ssh else ''}{program} --version",
        ) from None
    if done.returncode == _NOT_FOUND:
        return None
    if ssh and done.returncode == _SSH:
        lines = done.stderr.decode(errors="replace").splitlines()
        raise explain(Ended(program, done.returncode, lines, "", ssh), safe=NOTHING_CHANGED)
    found = _VERSION.search(done.stdout.decode(errors="replace"))
    return Tool(program, found[1], ssh) if found and not done.returncode else None
