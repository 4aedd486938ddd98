"""The database: SecantusDB, a MongoDB-wire server, in a process of its own; its user and what is in it at a release.

It is started twice: without authentication to make the user and fill it, then with authentication for good.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import datetime as dt
import importlib.util
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

JsonObject = dict[str, Any]
NAME = "apinizerdb"
_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_WORDS = ["route", "policy", "token", "backend", "tenant", "quota", "cache", "header", "schema", "client"]
_COUNTS = (
    ("api_proxy", 120),
    ("credential", 60),
    ("policy", 100),
    ("apinizer_log", 300),
    ("audit_event", 120),
)


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Database:
    """The server process. Start it from the main thread: it dies with the thread that started it."""

    def __init__(self, directory: Path, port: int, password: str) -> None:
        self._directory, self._port, self._password = directory, port, password
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"mongodb://apinizer:{self._password}@127.0.0.1:{self._port}/?authSource=admin&directConnection=true"

    def start(self, *, auth: bool) -> None:
        """Start the process; it is reachable about a second later (`wait`)."""
        command = [sys.executable, "-m", "secantus", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--storage-path", str(self._directory / "mongo"), "--log-level", "WARNING", "--cache-size", "128M"]
        if auth:
            command.append("--auth")
        with (self._directory / "mongo.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - One call into libc, no lock.
            )

    async def stop(self) -> None:
        """Write everything out, then end the process: its own way out takes two seconds, and killed alone it forgets."""
        if self._process is not None:
            with contextlib.suppress(Exception):
                await asyncio.to_thread(self._flush)
        self.kill()

    def _flush(self) -> None:
        import pymongo

        with pymongo.MongoClient[JsonObject](self.uri, serverSelectionTimeoutMS=2000) as client:
            client.admin.command("fsync")

    def kill(self) -> None:
        """End the process at once; what it has not written out is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def wait(self, seconds: float = 60.0) -> None:
        """Return when the server takes connections; raises RuntimeError with the end of its log when it does not."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._process is not None and self._process.poll() is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return
        tail = (self._directory / "mongo.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"the sandbox's database did not start:\n{tail}")

    async def prepare(self, version: str) -> None:
        """Bring up a database at a release, with its user, from a process that was started without authentication."""
        await self.wait()
        await asyncio.to_thread(self._fill, version)
        self.kill()
        self.start(auth=True)
        await self.wait()

    def _fill(self, version: str) -> None:
        import pymongo

        with pymongo.MongoClient[JsonObject]("127.0.0.1", self._port, directConnection=True) as client:
            seed(client[NAME], version)
            client.admin.command("createUser", "apinizer", pwd=self._password, roles=["root"])
            client.admin.command("fsync")


def is_installed() -> bool:
    return importlib.util.find_spec("secantus") is not None


def seed(db: Any, version: str) -> None:
    """Fill a database as one of a release is: settings, definitions, logs, indexes, and the schema's version."""
    rng = random.Random(7)

    def text(words: int) -> str:
        return " ".join(rng.choice(_WORDS) for _ in range(words))

    db.apinizer_schema.insert_one({"_id": "schema", "version": version})
    db.general_settings.insert_one({"_class": "GeneralSettings", "licenseKey": "ÖRNEK-LİSANS-0001"})
    begin = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
    db["environment"].insert_many([{"name": name, "namespace": name} for name in ("prod", "test")])
    for name, count in _COUNTS:
        db[name].insert_many(
            [
                {
                    "name": f"{name}-{number}",
                    "description": text(12),
                    "enabled": bool(number % 3),
                    "weight": rng.random(),
                    "size": rng.getrandbits(40),
                    "created": begin + dt.timedelta(minutes=number),
                    "tags": rng.sample(_WORDS, 3),
                    "spec": {"path": f"/{text(2)}", "body": text(12)},
                }
                for number in range(count)
            ]
        )
    db.api_proxy.create_index([("name", 1)], unique=True)
    db.apinizer_log.create_index([("created", 1)], expireAfterSeconds=86400 * 3650)
