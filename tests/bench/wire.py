"""Counts what goes over an SSH connection: `ProxyCommand python wire.py HOST PORT FILE [CUT]`.

It stands between ssh and sshd, so it counts the connection as it is on the wire: encrypted, with the protocol's own
bytes.  At the end a line `SENT RECEIVED` (bytes) is added to FILE.  The first connection that has sent CUT bytes is
cut there; FILE.cut says that it happened.
"""

import os
import selectors
import signal
import socket
import sys
from pathlib import Path

PIECE = 256 * 1024


def main(host: str, port: str, file: str, cut: str = "0") -> None:
    """Pass bytes on both ways until either side ends."""
    sent = received = 0
    was_cut = Path(f"{file}.cut")
    try:
        with socket.create_connection((host, int(port))) as line, selectors.DefaultSelector() as waiting:
            waiting.register(0, selectors.EVENT_READ)
            waiting.register(line, selectors.EVENT_READ)
            while True:
                for key, _ in waiting.select():
                    from_ssh = key.fileobj == 0
                    data = os.read(0, PIECE) if from_ssh else line.recv(PIECE)
                    if not data:
                        return
                    if from_ssh:
                        line.sendall(data)
                        sent += len(data)
                        if 0 < int(cut) <= sent and not was_cut.exists():
                            was_cut.touch()
                            return
                    else:
                        _write(data)
                        received += len(data)
    except (BrokenPipeError, ConnectionResetError):
        return  # ssh has gone, or sshd
    finally:
        with Path(file).open("a") as counts:
            counts.write(f"{sent} {received}\n")


def _write(data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(1, left) :]


if __name__ == "__main__":
    # ssh ends its proxy by a signal.
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    main(*sys.argv[1:])
