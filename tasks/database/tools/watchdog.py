"""What ends a tool whose starter stands still: a stopped process holds no lock any more, and its tool would go on.

A process of its own is told each second that the starter is at work.  Where it hears nothing for too long it ends the
tool, long before another run may take the installation's lock over.  A tool that was started over SSH ends with its
connection.  A virtual machine that was paused as a whole stops this process too: then the tool here stands still with
it, and one on another machine has no more than the little that is on its way to it.
"""

import contextlib
import os
import subprocess
import sys
import threading
from typing import Self

BEAT = 1.0
SILENCE = 12.0
"""Seconds of silence; with those that the tool has to end (`_GRACE`) less than the 25 that a lock lasts at least."""
_GRACE = 4
# Its arguments: seconds of silence, the tool's process group, seconds to end in.
_WATCH = """
import contextlib, os, select, signal, sys, time
silence, group, grace = float(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
while select.select([0], [], [], silence)[0]:
    if not os.read(0, 64):
        sys.exit()
with contextlib.suppress(ProcessLookupError):
    os.killpg(group, signal.SIGTERM)
    time.sleep(grace)
    os.killpg(group, signal.SIGKILL)
"""


class Watchdog:
    """Ends the process group `group` when this process was not heard for `silence` seconds, until `close`."""

    def __init__(self, group: int, silence: float = SILENCE) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WATCH, str(silence), str(group), str(_GRACE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # what stops a terminal's processes leaves it alone
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="tool-watchdog", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the tool alone from now on; called before its process is waited for, whose number may be another's then."""
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        self._process.kill()
        self._process.wait()

    def _beat(self) -> None:
        with contextlib.suppress(OSError):
            while self._process.stdin and not self._ended.wait(BEAT):
                os.write(self._process.stdin.fileno(), b".")
