"""A real sshd of the tests' own: as whoever runs them, on a port of its own, with keys made for it."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tasks.images.remote import Host

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@dataclass(frozen=True)
class Served:
    """The server: how to reach it, its log, and its process."""

    host: Host
    folder: Path
    process: "subprocess.Popen[bytes]"

    @property
    def accepted(self) -> int:
        """How many connections have logged in."""
        return (self.folder / "log").read_text().count("Accepted publickey")

    def with_known(self, content: str) -> Host:
        """The same host with a known_hosts file of this content."""
        file = self.folder / "other known hosts"
        file.write_text(content)
        return replace(self.host, known_hosts=str(file))

    def sessions(self) -> list[int]:
        """The processes of sshd that serve one connection each."""
        return children(self.process.pid)

    def cut(self) -> None:
        """Kill every connection's process, as when the line is gone for good."""
        for pid in self.sessions():
            for each in (*descendants(pid), pid):
                command = Path(f"/proc/{each}/cmdline")
                if command.exists() and b"sshd" in command.read_bytes():
                    os.kill(each, signal.SIGKILL)


def children(pid: int) -> list[int]:
    return [int(each) for file in Path(f"/proc/{pid}/task").glob("*/children") for each in file.read_text().split()]


def descendants(pid: int) -> list[int]:
    return [each for child in children(pid) for each in (*descendants(child), child)]


def make_key(file: Path) -> str:
    """A new key pair; its public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
    return file.with_suffix(".pub").read_text()


@contextmanager
def served(folder: Path, more: str = "") -> Iterator[Served]:
    """Start it, with `more` in its configuration; skip the test where this machine has no sshd or lets nobody log in."""
    if SSHD is None or shutil.which("ssh-keygen") is None:
        pytest.skip("no sshd here")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    public = make_key(folder / "host_key")
    (folder / "authorized").write_text(make_key(folder / "key"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "known hosts").write_text(f"[127.0.0.1]:{port} {public}")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nAuthorizedKeysFile {folder}/authorized\n"
        f"PasswordAuthentication no\nStrictModes no\nUsePAM no\nPidFile none\nMaxStartups 200\nPermitRootLogin yes\n{more}"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log, stdin=subprocess.DEVNULL)  # fmt: skip
    host = Host("node-a", "127.0.0.1", user=getpass.getuser(), port=port, identity_file=str(folder / "key"),
                config_file="/dev/null", known_hosts=str(folder / "known hosts"))  # fmt: skip
    try:
        _wait_for(port)
        plain = ["ssh", "-F", "/dev/null", "-o", "BatchMode=yes", "-i", host.identity_file, "-p", str(port),
                 "-o", f'UserKnownHostsFile="{host.known_hosts}"', "127.0.0.1", "true"]  # fmt: skip
        if (tried := subprocess.run(plain, capture_output=True, timeout=60, check=False)).returncode != 0:
            pytest.skip(f"sshd lets this user not in: {tried.stderr.decode()}")
        yield Served(host, folder, process)
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > end:
                pytest.skip("sshd did not start here")
            time.sleep(0.05)
        else:
            return
