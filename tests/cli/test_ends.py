"""How a command ends when something around it is gone: the Prefect server, the output, a setting."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.sandbox.launch import Sandbox
from tests.cli.conftest import COMMAND, SPEED, Ran, four_parts, run_command
from tests.cli.test_upgrade import children
from tests.flows.world import OLD, archives, clean_environment

HASTY = "import deployments.cli.farewell as f; f.SECONDS = 3.0; from deployments.cli.main import run; run()"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(version=OLD, speed=SPEED) as running:
        yield running


def _killed_at(sandbox: Sandbox, folder: Path, line: str, *arguments: str) -> Ran:
    """Run a command and kill its Prefect server when it prints `line`."""
    with subprocess.Popen(
        [sys.executable, "-c", HASTY, *arguments],
        env=clean_environment() | sandbox.env(), cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        said = []
        for text in process.stdout:
            said.append(text)
            if line in text:
                break
        else:
            pytest.fail(f"{line!r} was never said: {said}")
        for pid in children(process.pid):
            if b"deployments.embedded" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        out, err = process.communicate(timeout=90)
    return Ran(process.returncode, "".join(said) + out, err)


def test_a_server_that_dies_before_the_end_does_not_hold_a_complete_run_up(sandbox: Sandbox, tmp_path: Path) -> None:
    ran = _killed_at(sandbox, tmp_path, "proof: ", "backup")
    assert ran.code == 0, ran
    assert "every checksum right" in ran.out
    assert "The backup is complete" in ran.err
    assert "The Prefect server did not answer" in ran.err
    assert len(archives(tmp_path / "backups")) == 1


def test_nor_one_that_failed(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = _killed_at(sandbox, tmp_path, "backup: ", "backup", "--backup-dir", "file")
    assert ran.code in (1, 2), ran
    assert "Backups cannot be written" in ran.err
    assert "Traceback" not in ran.err


TWO_ENDS = """
import time
import deployments.cli.farewell as farewell
from tasks.record.feed import Event, State
farewell.SECONDS = 0.3
with farewell.Farewell("complete") as end:
    end.hear(Event("run", State.ENDED, "The manager failed."))
    end.hear(Event("lock", State.RUNNING, "rollback"))
    time.sleep(1)
    print("the rollback goes on", flush=True)
    end.hear(Event("run", State.ENDED, SECOND))
    time.sleep(30)
"""


@pytest.mark.parametrize(
    ("second", "told"),
    [
        pytest.param("", "It was rolled back since, completely", id="complete"),
        pytest.param("It stopped half way.", "Error: It stopped half way.", id="failed too"),
    ],
)
def test_a_rollback_that_follows_a_failed_upgrade_is_not_cut_off(second: str, told: str) -> None:
    program = TWO_ENDS.replace("SECOND)", f"{second!r})")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=25, check=False)
    assert (done.returncode, done.stdout) == (1, "the rollback goes on\n"), done
    assert "Error: The manager failed." in done.stderr
    assert told in done.stderr


@pytest.mark.parametrize("arguments", [("status",), ("status", "-o", "json"), ("plan", "--to", "2025.07.0"), ("backup", "-o", "json")])  # fmt: skip
def test_an_output_that_is_full(sandbox: Sandbox, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [COMMAND, *arguments], env=clean_environment() | sandbox.env(), cwd=tmp_path, stdout=full,
            stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, timeout=90, check=False,
        )  # fmt: skip
    assert done.returncode == 1, done.stderr
    error = done.stderr[done.stderr.index("Error: ") :]
    four_parts(error)
    assert "could not be written to the output" in error
    assert "No space left" in error
    if arguments[0] == "backup":
        assert str(archives(tmp_path / "backups")[0]) in error


@pytest.mark.parametrize("command", [("backup",), ("upgrade", "--to", "2025.07.0", "--yes"), ("deploy",)])
def test_a_level_that_is_none(sandbox: Sandbox, tmp_path: Path, command: tuple[str, ...]) -> None:
    ran = run_command(*command, folder=tmp_path, env={**sandbox.env(), "PREFECT_LOGGING_LEVEL": "banana"})
    assert ran.code == 2, ran
    four_parts(ran.err)
    assert "banana" in ran.err


def test_a_folder_for_a_kubeconfig(sandbox: Sandbox, tmp_path: Path) -> None:
    ran = run_command("status", "--kubeconfig", tmp_path, folder=tmp_path, env={})
    assert ran.code == 2
    four_parts(ran.err)
    assert "it is a directory" in ran.err
