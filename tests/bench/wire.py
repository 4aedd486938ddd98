"""Counts what goes over an SSH connection: `ProxyCommand python wire.py HOST PORT FILE [CUT]`.

It stands between ssh and sshd, so it counts the connection as it is on the wire: encrypted, with the protocol's own
bytes.  At the end a line `SENT RECEIVED` (bytes) is added to FILE.  The first connection that has sent CUT bytes is
cut there; FILE.cut says that it happened.
"""

import fcntl
import os
import selectors
import signal
import socket
import sys
from pathlib import Path

PIECE = 256 * 1024
F_SETPIPE_SZ = 1031


def main(host: str, port: str, file: str, cut: str = "0") -> None:
    """Pass bytes on both ways until either side ends."""
    sent = received = 0
    was_cut = Path(f"{file}.cut")
    try:
        with socket.create_connection((host, int(port))) as line, selectors.DefaultSelector() as waiting:
            waiting.register(0, selectors.EVENT_READ)
            waiting.register(line, selectors.EVENT_READ)
            there, back = _Passage(0, line.fileno()), _Passage(line.fileno(), 1)
            while True:
                for key, _ in waiting.select():
                    from_ssh = key.fileobj == 0
                    passed = (there if from_ssh else back).some()
                    if not passed:
                        return
                    sent, received = (sent + passed, received) if from_ssh else (sent, received + passed)
                    if 0 < int(cut) <= sent and not was_cut.exists():
                        was_cut.touch()
                        return
    except (BrokenPipeError, ConnectionResetError):
        return  # ssh has gone, or sshd
    finally:
        with Path(file).open("a") as counts:
            counts.write(f"{sent} {received}\n")


class _Passage:
    """From one descriptor to another inside of the kernel: counting is not to slow down what is measured."""

    def __init__(self, source: int, sink: int) -> None:
        self._source, self._sink = source, sink
        self._out, self._in = os.pipe()
        fcntl.fcntl(self._in, F_SETPIPE_SZ, PIECE)

    def some(self) -> int:
        """Pass on what is there; how many bytes that was, 0 at the end."""
        passed = left = os.splice(self._source, self._in, PIECE)
        while left:
            left -= os.splice(self._out, self._sink, left)
        return passed


if __name__ == "__main__":
    # ssh ends its proxy by a signal.
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    main(*sys.argv[1:])
