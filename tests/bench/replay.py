"""A server that only replays: MongoDB's wire protocol with batches that were made before, so that a client is measured.

It speaks OP_MSG as far as a dump needs it and never looks a document up: every `getMore` gets one of a few
prepared runs of as many documents as were asked for, at most 16 MB; the ids of the reply alone are made anew.  Run as a program it prints its port and serves until it is
killed: `python -m tests.bench.replay GIGABYTES COLLECTIONS DOCUMENTS`, the last a file that `keep` wrote.
"""

import socket
import struct
import sys
import threading
from pathlib import Path
from random import Random
from typing import Any

import bson

DATABASE = "bench"
DOCUMENT_SIZE = 500
_HEADER = struct.Struct("<iiii")
_OP_MSG, _OP_QUERY, _OP_REPLY = 2013, 2004, 1
_RUN = 16 * 1000 * 1000 // (DOCUMENT_SIZE + 8)  # Documents of the largest batch.
_RUNS = 5  # Different ones, that no cache of one of them flatters what is measured.
_FIRST = 101  # Documents that `find` gives when it is not told, as a real server.


def text_like(count: int, seed: int = 1) -> list[bytes]:
    """`count` documents of exactly 500 bytes, as an API gateway's settings and logs are: names, paths, ids, prose."""
    random = Random(seed)  # noqa: S311 - the same documents each time
    syllables = [a + b for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u", "an", "er", "in")]
    words = ["".join(random.choices(syllables, k=random.randint(1, 3))) for _ in range(900)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    documents = []
    for number in range(count):
        fields: dict[str, Any] = {
            "_id": bson.ObjectId(random.randbytes(12)),
            "_class": "com.apinizer.entity.proxy.ApiProxy",
            "name": f"{random.choice(words)}-{number}",
            "path": f"/api/v1/{random.choice(words)}/{random.choice(words)}",
            "status": random.choice((200, 200, 200, 201, 404, 500)),
            "enabled": random.random() < 0.9,
            "created": bson.Int64(1_700_000_000_000 + random.randrange(10**10)),
            "description": "",
        }
        room = DOCUMENT_SIZE - len(bson.encode(fields))
        fields["description"] = " ".join(random.choices(words, weights, k=200))[:room]
        documents.append(bson.encode(fields))
    return documents


def keep(path: Path) -> bytes:
    """Make the documents that are replayed over and over, some 79 MB, and write them to `path`."""
    documents = b"".join(document for seed in range(_RUNS) for document in text_like(_RUN, seed))
    path.write_bytes(documents)
    return documents


def kept(path: Path) -> list[list[bytes]]:
    """The runs of documents that `keep` wrote."""
    data, size = path.read_bytes(), _RUN * DOCUMENT_SIZE
    return [
        [data[at : at + DOCUMENT_SIZE] for at in range(start, start + size, DOCUMENT_SIZE)]
        for start in range(0, len(data), size)
    ]


def array(documents: list[bytes]) -> bytes:
    """The BSON array of raw documents."""
    body = b"".join(b"\x03%d\0%b" % (number, document) for number, document in enumerate(documents))
    return struct.pack("<i", len(body) + 5) + body + b"\0"


class Prepared:
    """Collections of `documents` documents each; the runs of documents that any batch is one of."""

    def __init__(self, documents: list[list[bytes]], collections: int, size: int) -> None:
        self._runs = documents
        self._arrays: dict[tuple[int, int], bytes] = {}
        self.names = [f"collection{number:02}" for number in range(collections)]
        self.documents = size // collections // DOCUMENT_SIZE
        self.size = self.documents * DOCUMENT_SIZE * collections

    def reply(self, name: str, start: int, count: int) -> tuple[bytes, bytes, bytes]:
        """The reply with `count` documents, the collection's from `start` on, in three parts that need not be joined.

        The cursor's id is where it goes on.
        """
        count = min(count, _RUN, self.documents - start)
        end = start + count
        word = b"nextBatch" if start else b"firstBatch"
        documents = self._array(start // _RUN % _RUNS, count)
        cursor = bson.encode({"id": bson.Int64(end if end < self.documents else 0), "ns": f"{DATABASE}.{name}"})[4:]
        inner = b"\x04" + word + b"\0"
        length = 4 + len(inner) + len(documents) + len(cursor)
        head = b"\x03cursor\0" + struct.pack("<i", length) + inner
        tail = cursor + bson.encode({"ok": 1.0})[4:]
        return struct.pack("<i", 4 + len(head) + len(documents) + len(tail)) + head, documents, tail

    def _array(self, run: int, count: int) -> bytes:
        key = (run, count)
        if key not in self._arrays:
            self._arrays[key] = array(self._runs[run][:count])
        return self._arrays[key]


def serve(prepared: Prepared, listener: socket.socket) -> None:
    """Answer every connection in a thread of its own, for ever."""
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_talk, args=(connection, prepared), daemon=True).start()


def _talk(connection: socket.socket, prepared: Prepared) -> None:
    with connection:
        while header := _exactly(connection, _HEADER.size):
            length, request, _, code = _HEADER.unpack(header)
            body = _exactly(connection, length - _HEADER.size)
            if code == _OP_QUERY:
                answer = bson.encode(_hello())
                parts: tuple[bytes, ...] = (struct.pack("<iqii", 8, 0, 0, 1) + answer,)
                kind = _OP_REPLY
            else:
                command = bson.decode(body[5 : 5 + struct.unpack_from("<i", body, 5)[0]])
                parts = (b"\0\0\0\0\0", *_answer(command, prepared))
                kind = _OP_MSG
            connection.sendall(_HEADER.pack(_HEADER.size + sum(map(len, parts)), 1, request, kind) + parts[0])
            for part in parts[1:]:
                connection.sendall(part)


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            return b""
        parts += part
    return bytes(parts)


def _answer(command: dict[str, Any], prepared: Prepared) -> tuple[bytes, ...]:
    name = next(iter(command))
    if name == "find" and command["find"] in prepared.names:
        return prepared.reply(command["find"], 0, int(command.get("batchSize", command.get("limit", _FIRST))))
    if name == "getMore":
        return prepared.reply(command["collection"], int(command["getMore"]), int(command.get("batchSize", _RUN)))
    return (bson.encode(_plain(name, command, prepared)),)


def _plain(name: str, command: dict[str, Any], prepared: Prepared) -> dict[str, Any]:
    match name:
        case "hello" | "ismaster" | "isMaster":
            return _hello()
        case "buildInfo" | "buildinfo":
            return {"version": "7.0.0", "ok": 1.0}
        case "listDatabases":
            return {"databases": [{"name": DATABASE, "sizeOnDisk": prepared.size, "empty": False}], "ok": 1.0}
        case "listCollections":
            return _cursor([_described(number, found) for number, found in enumerate(prepared.names)])
        case "listIndexes":
            return _cursor([{"v": 2, "key": {"_id": 1}, "name": "_id_"}])
        case "dbStats" | "dbstats":
            return {"dataSize": prepared.size, "collections": len(prepared.names), "ok": 1.0}
        case "collStats" | "collstats":
            return {"size": prepared.size // len(prepared.names), "count": prepared.documents, "ok": 1.0}
        case "count":
            return {"n": prepared.documents, "ok": 1.0}
        case "find" | "aggregate":
            return _cursor([])
        case _:
            return {"ok": 1.0}


def _described(number: int, name: str) -> dict[str, Any]:
    uuid = bson.Binary(bytes(15) + bytes([number]), 4)
    return {"name": name, "type": "collection", "options": {}, "info": {"readOnly": False, "uuid": uuid}}


def _cursor(documents: list[dict[str, Any]]) -> dict[str, Any]:
    return {"cursor": {"firstBatch": documents, "id": bson.Int64(0), "ns": f"{DATABASE}.$cmd"}, "ok": 1.0}


def _hello() -> dict[str, Any]:
    return {
        "helloOk": True,
        "isWritablePrimary": True,
        "ismaster": True,
        "maxBsonObjectSize": 16 * 1024 * 1024,
        "maxMessageSizeBytes": 48_000_000,
        "maxWriteBatchSize": 100_000,
        "minWireVersion": 0,
        "maxWireVersion": 21,
        "logicalSessionTimeoutMinutes": 30,
        "ok": 1.0,
    }


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0)) as found:
        found.listen(64)
        made = Prepared(kept(Path(sys.argv[3])), int(sys.argv[2]), round(float(sys.argv[1]) * 1e9))
        print(found.getsockname()[1], made.size, flush=True)
        serve(made, found)
