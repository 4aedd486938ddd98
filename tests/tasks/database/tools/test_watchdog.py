"""A tool ends when the process that started it stands still, and lives as long as that one is at work."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.flows.world import eventually

STARTER = """
import sys, time
from tasks.database.tools.job import Job
with Job(["sh", "-c", "echo $$ > " + sys.argv[1] + "; exec sleep 60"], config=b"x", output=False, silence=1.5) as job:
    job.finish()
"""


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_it_ends_with_a_starter_that_stands_still(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(told)], env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    try:
        assert eventually(lambda: told.exists() and told.read_text().endswith("\n"))
        tool = int(told.read_text())
        time.sleep(2.5)
        assert runs(tool)  # it was told of all the while
        starter.send_signal(signal.SIGSTOP)
        assert eventually(lambda: not runs(tool), 15)
        starter.send_signal(signal.SIGCONT)
        assert starter.wait(15) is not None
    finally:
        starter.kill()
        starter.wait()
