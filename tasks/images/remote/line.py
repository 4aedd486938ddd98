"""One SSH connection that the commands on a machine share: a handshake costs more than most of the commands.

The connection is held by an ssh of its own (`ssh -M`, its control socket in a folder that only this user can enter),
whose remote command reads what never comes: when this process ends, however it does, that input ends, and with it
the command and the connection.
"""

import contextlib
import os
import select
import shutil
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tasks.domain.errors import NotFoundError
from tasks.images.remote.host import Host, ssh_command

# A socket's path may have 108 bytes (unix(7)); ssh first makes it under a name that is 17 longer.
_LONGEST = 108 - 1 - 17
_READY = b"+"
_PREFIX = "apinizer-ssh-"
# A folder is empty before its ssh has logged in, too; a server gives that two minutes (LoginGraceTime).
_ABANDONED = 600.0
# printf and cat are everywhere, and every login shell takes this.
_HOLD = "printf + ; exec cat >/dev/null"


class Line:
    """The shared connection to a host: made when it is first needed, made anew where it has gone."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lock = threading.Lock()
        self._master: subprocess.Popen[bytes] | None = None
        self._folder = ""
        self._finish: Callable[[], object] = lambda: None
        self._own: bool | None = None
        self._said: list[bytes] = []
        self._failed: tuple[int, str] | None = None

    def begin(self, tick: Callable[[], None]) -> None:
        """Make the connection before it is needed; how that failed is told to whoever needs it first."""
        with self._lock:
            _, self._failed = self._flags(tick)

    def flags(self, tick: Callable[[], None]) -> tuple[list[str], "tuple[int, str] | None"]:
        """What to give to ssh so that it takes the shared connection; or the exit code and the words of its failure.

        `tick` is called four times a second while the connection is made; what it raises ends that.
        """
        with self._lock:
            failed, self._failed = self._failed, None
            return ([], failed) if failed else self._flags(tick)

    @property
    def said(self) -> str:
        """What the ssh that holds the connection printed to standard error: why it ended, where it did."""
        return b"".join(self._said).decode(errors="replace")

    def close(self) -> None:
        """End the connection; the next command makes a new one."""
        with self._lock:
            self._finish()
            self._master = None

    def _flags(self, tick: Callable[[], None]) -> tuple[list[str], "tuple[int, str] | None"]:
        if self._own is None:
            self._own = self._is_wanted()
        if not self._own:
            return [], None
        gone = self._master is None or self._master.poll() is not None
        if gone and (failed := self._open(tick)):
            return [], failed
        return ["-S", f"{self._folder}/line"], None

    def _is_wanted(self) -> bool:
        """Not where the user's configuration shares connections itself: one opened by hand, with a code, is used."""
        return effective(self._host).get("controlpath", "none") == "none"

    def _open(self, tick: Callable[[], None]) -> tuple[int, str] | None:
        self._finish()
        self._said = []
        _sweep(Path(tempfile.gettempdir()), time.time() - _ABANDONED)
        self._folder = tempfile.mkdtemp(prefix=_PREFIX)
        if len(self._folder) + len("/line") > _LONGEST:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._own = False
            return None
        master = started([*ssh_command(self._host, "-T", "-M", "-S", f"{self._folder}/line"), _HOLD])
        self._finish = weakref.finalize(self, _end, master, self._folder)
        try:
            failed = _until_ready(master, self._said, tick)
        except BaseException:
            self._finish()
            raise
        if failed:
            self._finish()
            return failed
        self._master = master
        return None


def effective(host: Host) -> Mapping[str, str]:
    """What ssh makes of its configuration for this host (`ssh -G`), by keyword in lower case; empty here."""
    if host.here:
        return {}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(ssh_command(host, "-G"), capture_output=True, timeout=10, check=False)
        lines = done.stdout.decode(errors="replace").splitlines()
        return {key: value for key, _, value in (line.partition(" ") for line in lines)}
    return {}


def started(command: Sequence[str]) -> "subprocess.Popen[bytes]":
    """A process with three pipes and a session of its own; raise `NotFoundError` where there is no ssh.

    A Ctrl-C of the terminal is this process's to handle; and ssh has no terminal to ask at.
    """
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            env=environment(),
        )
    except FileNotFoundError:
        raise no_client() from None


def environment() -> dict[str, str]:
    """That of every ssh: it speaks English, and asks no window for a password."""
    return {**os.environ, "SSH_ASKPASS_REQUIRE": "never", "LC_ALL": "C"}


def no_client() -> NotFoundError:
    """The error where OpenSSH's client is not installed."""
    return NotFoundError(
        "ssh was not found on this machine.",
        observed="It is in no folder of PATH.",
        next="Install OpenSSH's client (openssh-client).",
    )


def _until_ready(
    master: "subprocess.Popen[bytes]", said: list[bytes], tick: Callable[[], None]
) -> tuple[int, str] | None:
    """Wait for the far side's first byte; where ssh ends instead: its exit code and what it said."""
    assert master.stdout is not None  # noqa: S101 -- a pipe.
    assert master.stderr is not None  # noqa: S101
    listener = threading.Thread(target=said.extend, args=(master.stderr,), daemon=True)
    listener.start()
    while True:
        tick()
        if not select.select([master.stdout], [], [], 0.25)[0]:
            continue
        piece = master.stdout.read(1)
        if piece == _READY:
            return None
        # A login shell's own greeting may come first: it is passed over.
        if not piece:
            code = master.wait()
            listener.join(1)
            return code, b"".join(said).decode(errors="replace")


def _sweep(folder: Path, before: float) -> None:
    """Remove what killed processes left: their ssh has taken its socket away, the empty folder stays."""
    for each in folder.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if each.stat().st_mtime < before:
                each.rmdir()


def _end(master: "subprocess.Popen[bytes]", folder: str) -> None:
    with contextlib.suppress(OSError):
        if master.stdin:
            master.stdin.close()
    master.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        master.wait(2)
    if master.poll() is None:
        master.kill()
        master.wait()
    shutil.rmtree(folder, ignore_errors=True)
