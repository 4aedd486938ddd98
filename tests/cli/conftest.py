"""The command line as people run it: the installed command in a process of its own, on a sandbox."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deployments.embedded import EmbeddedServer
from deployments.sandbox.launch import Sandbox
from tests.flows.world import OLD, World, clean_environment

COMMAND = str(Path(sys.executable).parent / "apinizer-upgrade")
SPEED = 10.0


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """Standard output, which is one JSON document and nothing else."""
        found: dict[str, Any] = json.loads(self.out)
        return found


Cli = Callable[..., Ran]


def run_command(*arguments: object, folder: Path, env: dict[str, str], timeout: float = 120) -> Ran:
    done = subprocess.run(
        [COMMAND, *map(str, arguments)],
        env=clean_environment() | env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def run_at_terminal(
    answers: bytes,
    *arguments: object,
    folder: Path,
    env: dict[str, str],
    timeout: float = 300,
    meanwhile: Callable[[], object] | None = None,
) -> Ran:
    """The command for a person who types `answers`, `meanwhile` done while it waits for the first; what it prints goes elsewhere."""
    asked = ""
    near, far = pty.openpty()
    try:
        with subprocess.Popen(
            [COMMAND, *map(str, arguments)],
            stdin=far, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=clean_environment() | env,
        ) as process:  # fmt: skip
            if meanwhile is not None and process.stderr is not None:
                while not asked.endswith("[y/N]:") and (letter := process.stderr.read(1)):
                    asked += letter
                meanwhile()
            os.write(near, answers)
            out, err = process.communicate(timeout=timeout)
    finally:
        os.close(near)
        os.close(far)
    return Ran(process.returncode, out, asked + err)


@pytest.fixture(scope="session")
def prefect_env() -> Iterator[dict[str, str]]:
    """The environment that names one Prefect server for many commands: each starts its own without it, as elsewhere."""
    with EmbeddedServer() as server:
        server.wait()
        yield server.settings()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """One for the whole module: its tests change nothing, or follow each other."""
    with Sandbox(version=OLD, speed=SPEED) as running:
        yield running


@pytest.fixture
def world(sandbox: Sandbox) -> World:
    return World(sandbox)


@pytest.fixture
def cli(sandbox: Sandbox, tmp_path: Path) -> Cli:
    """Run the command on the sandbox: `cli("status", "-o", "json")`; `env` adds to the environment."""

    def run(*arguments: object, env: dict[str, str] | None = None) -> Ran:
        return run_command(*arguments, folder=tmp_path, env={**sandbox.env(), **(env or {})})

    return run


def four_parts(text: str) -> None:
    """What people read on standard error: four parts, and no traceback."""
    assert text.startswith(("Error: ", "Blocked: ")), text
    for part in ("\nObserved: ", "\nSafe now: ", "\nNext: "):
        assert part in text, text
    assert "Traceback" not in text
