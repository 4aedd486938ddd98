"""What runs in a container: an Apinizer component as an upgrade meets it, against the real database.

The manager migrates the database forward at start and refuses a newer one. Every other component refuses a database that is
not at its own version. Release 2025.08.0 of the manager migrates half-way and crashes.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import threading
import time
from typing import Any

from deployments.sandbox.faults import Faults, Pace
from deployments.sandbox.images import Program

MANAGERS = ("manager", "apimanager")
_CLIENTS: dict[str, Any] = {}
_CLIENTS_LOCK = threading.Lock()


class Log:
    """The output of one run of a container."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []  # (RFC 3339 time with nanoseconds, text)
        self.ended = False
        self.changed = asyncio.Event()

    def write(self, text: str) -> None:
        at = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
        self.lines.append((at, text))
        self._tell()

    def end(self) -> None:
        self.ended = True
        self._tell()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class ExitError(Exception):
    """The program ends by itself with this exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Process:
    """One run of a program. `run` returns its exit code; `answer` is its HTTP server, once it listens."""

    def __init__(self, program: Program, env: dict[str, str], log: Log, faults: Faults, pace: Pace) -> None:
        self._program, self._env, self._log, self._faults, self._pace = program, env, log, faults, pace
        self.listening = False
        self._terminated = asyncio.Event()

    def terminate(self) -> None:
        """SIGTERM: every program here ends at once with 0."""
        self._terminated.set()

    def already_running(self) -> None:
        """Be a process that became ready long ago: the installation as it is found."""
        self._say("starting")
        self._say("ready")
        self.listening = True

    async def run(self) -> int:
        work = asyncio.ensure_future(self._work())
        ended = asyncio.ensure_future(self._terminated.wait())
        try:
            await asyncio.wait({work, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return 0
            return work.result()
        except ExitError as end:
            return end.code
        finally:
            work.cancel()
            ended.cancel()
            self.listening = False
            self._log.end()

    async def _work(self) -> int:
        program = self._program
        if program.component == "exit":
            return 0
        if program.component != "pause" and not self.listening:
            self._say("starting")
            await self._pace.sleep(self._seconds("BOOT_SECONDS", "2", self._faults.boot_seconds))
            await self._check()
            self._say("ready")
            self.listening = True
        await asyncio.Event().wait()
        return 0

    async def _check(self) -> None:
        program = self._program
        if self._faults.applies(self._faults.crashing, program.component, program.version):
            self._say("FATAL: java.lang.OutOfMemoryError: Java heap space")
            raise ExitError(1)
        if self._faults.applies(self._faults.hanging, program.component, program.version):
            self._say("waiting for a lock that nobody releases")
            await asyncio.Event().wait()
        try:
            if program.component in MANAGERS:
                await self._migrate()
            else:
                await self._require_schema()
        except ExitError:
            raise
        except Exception as error:  # Whatever the driver raises ends the program, as an uncaught exception does.
            self._say(f"FATAL: {type(error).__name__}: {str(error).splitlines()[0][:300]}")
            raise ExitError(1) from error

    async def _migrate(self) -> None:
        version = self._program.version
        at = await asyncio.to_thread(self._schema)
        if release(at) > release(version):
            self._say(f"FATAL: the database is at {at}, newer than this manager: downgrade is not supported")
            raise ExitError(1)
        if release(at) == release(version):
            return
        self._say(f"migrating the database from {at} to {version}")
        label = version.replace(".", "_")
        await asyncio.to_thread(
            lambda: self._database().api_proxy.update_many({}, {"$set": {f"migrated_{label}": True}})
        )
        await self._pace.sleep(self._seconds("MIGRATION_SECONDS", "0", self._faults.migration_seconds))
        await asyncio.to_thread(lambda: self._database()[f"introduced_{label}"].insert_one({"at": time.time()}))
        if version == "2025.08.0":
            self._say("FATAL: java.lang.IllegalStateException: migration V2025_08 left an index build unfinished")
            raise ExitError(1)
        await asyncio.to_thread(
            lambda: self._database().apinizer_schema.update_one(
                {"_id": "schema"}, {"$set": {"version": version}}, upsert=True
            )
        )

    async def _require_schema(self) -> None:
        at = await asyncio.to_thread(self._schema)
        if at != self._program.version:
            name = self._program.component
            self._say(
                f"FATAL: the database is at {at}, this {name} needs {self._program.version}: update the manager first"
            )
            raise ExitError(1)

    def _schema(self) -> str:
        state = self._database().apinizer_schema.find_one({"_id": "schema"})
        return str(state["version"]) if state else "0.0.0"

    def _database(self) -> Any:
        name = self._env.get("SPRING_DATA_MONGODB_DATABASE", "apinizerdb")
        return client(self._env["SPRING_DATA_MONGODB_URI"])[name]

    def _seconds(self, name: str, default: str, override: float | None) -> float:
        return float(self._env.get(name, default)) if override is None else override

    def _say(self, text: str) -> None:
        stamp = time.strftime("%FT%TZ", time.gmtime())
        self._log.write(f"{stamp} {self._program.component} {self._program.version} {text}")

    def answer(self, path: str) -> tuple[int, bytes] | None:
        """(status, JSON body) of a GET; None while nothing listens."""
        if not self.listening:
            return None
        if path.startswith("/apinizer/management/health"):
            return 200, json.dumps({"status": "UP"}).encode()
        if path.startswith("/apinizer/management/version"):
            return 200, json.dumps({"version": self._program.version}).encode()
        return 404, json.dumps({"error": "not found"}).encode()


def release(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def client(uri: str) -> Any:
    """A client for a database, one per address: components of one cluster share it."""
    import pymongo

    with _CLIENTS_LOCK:
        if uri not in _CLIENTS:
            _CLIENTS[uri] = pymongo.MongoClient(uri, serverSelectionTimeoutMS=5000)
        return _CLIENTS[uri]
