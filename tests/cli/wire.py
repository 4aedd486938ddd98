"""A way to the database through which a test hears, changes or cuts what is said."""

import socket
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit


class Wire:
    """Passes bytes on between clients and the server of `uri`; `replies` are replaced in what the server says."""

    def __init__(self, uri: str, replies: dict[bytes, bytes] | None = None) -> None:
        self._parts = urlsplit(uri)
        self._replies = replies or {}
        assert all(len(old) == len(new) for old, new in self._replies.items())
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for each in self._open:
            each.close()

    @property
    def uri(self) -> str:
        """The same address by this way."""
        login = self._parts.netloc.rpartition("@")[0]
        port = self._listener.getsockname()[1]
        return urlunsplit(self._parts._replace(netloc=f"{login}@127.0.0.1:{port}" if login else f"127.0.0.1:{port}"))

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection((self._parts.hostname, self._parts.port))
            except OSError:
                return
            self._open += [near, far]
            threading.Thread(target=self._pass, args=(near, far, {}), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, self._replies), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket, changes: dict[bytes, bytes]) -> None:
        try:
            while data := source.recv(1 << 16):
                for old, new in changes.items():
                    data = data.replace(old, new)
                sink.sendall(data)
        except OSError:
            pass
        for each in (source, sink):
            each.close()
