"""The process of a command, here or behind ssh: how it is started, and its three pipes.

Everything runs below a small `sh` script, the same here and there.
"""

import contextlib
import fcntl
import os
import shlex
import subprocess
from collections.abc import Sequence

from tasks.images.remote.host import Host, ssh_command
from tasks.images.remote.line import started

PIECE = 1024 * 1024
_MOST_KEPT = 64 * 1024
_F_SETPIPE_SZ = 1031

# One line, without single quotes and backslashes: every login shell passes it on as it is.  Where no login shell
# has set it up, PATH lacks the folders of system programs.  Messages are to be in English.
_SETTING = "PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; LC_ALL=C; export PATH LC_ALL; "
FED = _SETTING + 'exec "$@"'
# The process group is this command's alone: sshd gives each command a session of its own, as spawn makes one here.
WATCHED = (
    _SETTING + 'exec 3<&0; "$@" </dev/null 3<&- & tool=$!; '
    "(while read -r line; do :; done <&3; kill -TERM 0) >/dev/null 2>&1 & watch=$!; "
    'exec 3<&-; wait "$tool"; code=$?; kill "$watch" 2>/dev/null; exit "$code"'
)


def spawn(host: Host, shared: Sequence[str], script: str, argv: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start a command below one of the scripts, with `shared` for ssh; raise `NotFoundError` where there is no ssh."""
    local = ["sh", "-c", script, "apinizer-upgrade", *argv]
    command = local if host.here else [*ssh_command(host, "-T", *shared), "exec " + shlex.join(local)]
    return started(command)


def pipes(process: "subprocess.Popen[bytes]") -> tuple[int, int, int]:
    """The numbers of the three pipes, taken over from the process object, and made as wide as they may be."""
    numbers = []
    for pipe in (process.stdin, process.stdout, process.stderr):
        assert pipe is not None  # noqa: S101 -- all three are pipes.
        numbers.append(os.dup(pipe.fileno()))
        pipe.close()
    process.stdin = process.stdout = process.stderr = None
    for number in numbers[:2]:
        with contextlib.suppress(OSError):
            fcntl.fcntl(number, _F_SETPIPE_SZ, PIECE)
    return numbers[0], numbers[1], numbers[2]


def keep_end(number: int, kept: bytearray) -> None:
    """Read to the end, and keep the last 64 KiB."""
    with contextlib.suppress(OSError):
        while piece := os.read(number, 65536):
            kept += piece
            if len(kept) > _MOST_KEPT:
                del kept[:-_MOST_KEPT]
