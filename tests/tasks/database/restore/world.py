"""What the tests of the restore share: a wire in which faults are put, databases before and after, their pictures."""

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import bson
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS
from pymongo import MongoClient

from tasks.database.archive.metadata import EXACT
from tasks.database.connection import open_database
from tasks.database.dump import dump
from tasks.database.restore.plan import RestoreRequest
from tasks.database.restore.run import RestoreEvidence, restore

Client = MongoClient[dict[str, Any]]
DB = "apinizerdb"
# The lock is renewed by the clock: at which place of the order is different each time.
_NO_PLACE = {"findAndModify"}
_UNCOUNTED = {b"hello", b"ismaster", b"isMaster", b"ping", b"endSessions"}


def picture(client: Client, database: str = DB) -> dict[str, Any]:
    """All that a database is: kind, options, indexes and documents of each collection, as bytes."""
    found = {}
    for info in client[database].list_collections():
        name = info["name"]
        if name == "system.views":
            continue
        indexes, documents = [], []
        if info["type"] != "view":
            collection = client[database].get_collection(name, codec_options=EXACT)
            indexes = sorted(bson.encode(index) for index in collection.list_indexes())
            raw = client[database].get_collection(name, codec_options=DEFAULT_RAW_BSON_OPTIONS)
            documents = [bytes(document.raw) for document in raw.find()]
        found[name] = (info["type"], bson.encode(info.get("options", {})), indexes, documents)
    return found


def backup(uri: str, directory: Path, **options: Any) -> Path:
    """A backup of the test's database, not proved yet."""
    with open_database(uri) as client:
        return dump(client, DB, directory, apinizer_version="2025.04.3", **options).archive


def put_back(uri: str, archive: Path, request: RestoreRequest | None = None, **options: Any) -> RestoreEvidence:
    """The restore as its callers do it, but that nobody watches for others: that has tests of its own."""
    with open_database(uri) as client:
        return restore(client, archive, request or RestoreRequest(database=DB), **{"watch_others": False, **options})


class Wire:
    """A way to the server on which a fault can be put at the nth command of a name; heartbeats are not counted.

    `fault` is called with the command's name, before the server gets it or, with `after`, once it has it and
    before the client learns so.  It returns True for the connection to be cut.
    """

    def __init__(self, host: str, port: int) -> None:
        self._there = (host, port)
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.commands: list[str] = []
        self._at: tuple[str, int] | None = None
        self._after = False
        self._fault: Callable[[str], bool] = lambda _name: False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/?directConnection=true"

    def arm(
        self, at: tuple[str, int] | None, fault: Callable[[str], bool] | None = None, *, after: bool = False
    ) -> None:
        """Count anew and put the fault at the command of this name and number, from 0; None for no fault."""
        with self._lock:
            self.commands, self._at, self._after = [], at, after
            self._fault = fault or (lambda _name: False)

    def places(self, *names: str) -> list[tuple[str, int]]:
        """Every command that was sent, or those of some names, as `arm` takes them."""
        return [
            (name, self.commands[:at].count(name))
            for at, name in enumerate(self.commands)
            if not names or name in names
        ]

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._there) as server, suppress(OSError):
            answered = threading.Semaphore(0)
            threading.Thread(target=self._back, args=(server, client, answered), daemon=True).start()
            while message := _message(client):
                name = _name(message)
                due, after = self._count(name)
                if due and not after and self._fault(name):
                    break
                server.sendall(message)
                if due and after and self._fault(name):
                    # The server ends what it has begun, as a server does, before anybody looks.
                    answered.acquire(timeout=10)
                    break
                if name and not (due and after):
                    answered.acquire(timeout=300)
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
                server.shutdown(socket.SHUT_RDWR)

    def _count(self, name: str) -> tuple[bool, bool]:
        with self._lock:
            if not name or name in _NO_PLACE:
                return False, False
            self.commands.append(name)
            return (name, self.commands.count(name) - 1) == self._at, self._after

    @staticmethod
    def _back(server: socket.socket, client: socket.socket, answered: threading.Semaphore) -> None:
        with suppress(OSError):
            while message := _message(server):
                if not _is_hello(message):
                    answered.release()
                with suppress(OSError):
                    client.sendall(message)
            client.shutdown(socket.SHUT_RDWR)


def _message(client: socket.socket) -> bytes:
    head = _exactly(client, 16)
    return head + _exactly(client, struct.unpack_from("<i", head)[0] - 16) if head else b""


def _exactly(client: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        data = client.recv(count)
        if not data:
            return b""
        parts.append(data)
        count -= len(data)
    return b"".join(parts)


def _name(message: bytes) -> str:
    """The command of an OP_MSG (its body's first field), empty for what is not counted."""
    if struct.unpack_from("<i", message, 12)[0] != 2013:
        return ""
    name = message[26 : message.index(0, 26)]
    return "" if name in _UNCOUNTED else name.decode()


def _is_hello(reply: bytes) -> bool:
    return b"maxBsonObjectSize" in reply[:4096]
