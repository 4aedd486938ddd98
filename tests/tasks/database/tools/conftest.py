"""The tools' stand-in on the path, and a real SSH server on loopback."""

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

STANDIN = Path(__file__).with_name("standin.py")
ALIAS = "database-primary"


@dataclass(frozen=True)
class Installed:
    """Where the stand-ins are; `behave` says how they are to do, `pid` which process worked last."""

    folder: Path

    def behave(self, **how: Any) -> None:
        (self.folder / "behaviour.json").write_text(
            json.dumps({"pids": str(self.folder / "pid"), **how}), encoding="utf-8"
        )

    @property
    def temporary(self) -> Path:
        """Where the tool's wrapper makes temporary files."""
        return self.folder / "tmp"

    @property
    def started(self) -> bool:
        """Whether a tool was ever at work."""
        return (self.folder / "pid").exists()

    def pid(self, *, seconds: float = 60.0) -> int:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                return int((self.folder / "pid").read_text(encoding="utf-8"))
            except (FileNotFoundError, ValueError):
                time.sleep(0.05)
        raise AssertionError("the tool was never started")


def install(folder: Path) -> Installed:
    for program in ("mongodump", "mongorestore"):
        path = folder / program
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STANDIN}" {program} "{folder}" "$@"\n', encoding="utf-8")
        path.chmod(0o755)
    installed = Installed(folder)
    installed.temporary.mkdir()
    installed.behave()
    return installed


@pytest.fixture
def tools(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Installed:
    """The stand-ins, installed on this machine."""
    folder = tmp_path_factory.mktemp("bin")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(folder / "tmp"))
    return install(folder)


@dataclass(frozen=True)
class FarSide:
    """A machine that is reached over SSH by the name `ssh`; its tools are in `tools`."""

    ssh: str
    tools: Installed
    folder: Path
    port: int

    def forget_host(self) -> None:
        (self.folder / "known_hosts").write_text("", encoding="utf-8")

    def change_host(self) -> None:
        known = (self.folder / "known_hosts").read_text(encoding="utf-8").split()
        other = (self.folder / "key.pub").read_text(encoding="utf-8").split()
        (self.folder / "known_hosts").write_text(f"{known[0]} {other[0]} {other[1]}\n", encoding="utf-8")

    def lock_out(self) -> None:
        (self.folder / "authorized_keys").write_text("", encoding="utf-8")


@pytest.fixture
def far_side(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[FarSide]:
    """A real sshd on loopback whose sessions find the stand-ins, and an `ssh` that uses this test's own files."""
    daemon, client = shutil.which("sshd", path="/usr/sbin:/usr/bin:/sbin"), shutil.which("ssh")
    if daemon is None or client is None:
        pytest.skip("no OpenSSH server or client is installed")
    folder = tmp_path_factory.mktemp("ssh")
    tools, near = folder / "far-bin", folder / "near-bin"
    tools.mkdir()
    near.mkdir()
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "key.pub", folder / "authorized_keys")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized_keys\n"
        f"PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        f"SetEnv PATH={tools}:/usr/local/bin:/usr/bin:/bin TMPDIR={tools / 'tmp'}\n",
        encoding="utf-8",
    )
    host_key = " ".join((folder / "host.pub").read_text(encoding="utf-8").split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n", encoding="utf-8")
    (folder / "config").write_text(
        f"Host {ALIAS}\n HostName 127.0.0.1\n Port {port}\n User {getpass.getuser()}\n IdentityFile {folder}/key\n"
        f" IdentitiesOnly yes\n IdentityAgent none\n UserKnownHostsFile {folder}/known_hosts\n"
        f" GlobalKnownHostsFile /dev/null\n StrictHostKeyChecking yes\n",
        encoding="utf-8",
    )
    (near / "ssh").write_text(f'#!/bin/sh\nexec "{client}" -F "{folder}/config" "$@"\n', encoding="utf-8")
    (near / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{near}:{os.environ['PATH']}")
    server = subprocess.Popen(
        [daemon, "-D", "-e", "-f", str(folder / "sshd_config")],
        stdout=subprocess.DEVNULL,
        stderr=(folder / "sshd.log").open("wb"),
    )
    try:
        _await(port, server, folder / "sshd.log")
        yield FarSide(ALIAS, install(tools), folder, port)
    finally:
        server.terminate()
        server.wait(10)


def _await(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(200):
        if server.poll() is not None:
            pytest.skip(f"sshd does not start here: {log.read_text(encoding='utf-8')[-300:]}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("sshd does not listen")
