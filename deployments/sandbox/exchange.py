"""One HTTP request and its answer, over ASGI."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from deployments.sandbox import failures, protobuf

JsonObject = dict[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Exchange:
    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query = dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True))
        self.headers: dict[str, str] = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        self.started = False
        # For the audit: what was read as the body, and what was answered.
        self.read: Any = None
        self.answered: Any = None
        self.status = 0
        self.instead: failures.ApiError | None = None  # What the client gets in place of the answer.

    @property
    def accept(self) -> str:
        return str(self.headers.get("accept", ""))

    @property
    def content_type(self) -> str:
        return str(self.headers.get("content-type", "")).partition(";")[0].strip()

    def asks(self, name: str) -> bool:
        return self.query.get(name, "") in ("true", "1", "True")

    async def body(self) -> bytes:
        parts: list[bytes] = []
        while True:
            message = await self._receive()
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(parts)

    async def json(self) -> Any:
        """The body as JSON (or YAML); raises ApiError 400 for what is neither, 415 for another media type."""
        self.read = await self._json()
        return self.read

    async def _json(self) -> Any:
        raw = await self.body()
        if not raw:
            return {}
        kind = self.content_type
        try:
            if kind == protobuf.MEDIA_TYPE:
                return protobuf.decode(raw)
            if "yaml" in kind:
                import yaml

                return yaml.safe_load(raw)
            if kind and "json" not in kind:
                raise failures.unsupported_media_type()
            return json.loads(raw)
        except ValueError as error:
            raise failures.bad_request(
                f"the object provided is unrecognized (must be of type json): {error}"
            ) from error

    # ---------------------------------------------------------------- answers
    async def answer(
        self, body: bytes, status: int = 200, kind: str = "application/json", headers: dict[str, str] | None = None
    ) -> None:
        instead, done = self.instead, status
        if instead is not None:
            self.instead = None
            body, status, kind, headers = dump(instead.status), instead.code, "application/json", instead.headers
        await self._start(status, kind, {"Content-Length": str(len(body)), **(headers or {})})
        self.status = done
        await self._send({"type": "http.response.body", "body": body})

    async def answer_json(self, obj: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.answered = obj
        await self.answer(dump(obj), status, headers=headers)

    async def answer_error(self, error: failures.ApiError) -> None:
        await self.answer_json(error.status, error.code, error.headers)

    async def stream(self, parts: AsyncIterator[bytes], kind: str) -> None:
        """Send parts as they come, until they end or the client goes away."""
        await self._start(200, kind, {})
        await self._send({"type": "http.response.body", "body": b"", "more_body": True})
        gone = asyncio.ensure_future(self._disconnected())
        pump = asyncio.ensure_future(self._pump(parts))
        try:
            await asyncio.wait({gone, pump}, return_when=asyncio.FIRST_COMPLETED)
            if pump.done():
                pump.result()
        finally:
            gone.cancel()
            pump.cancel()

    async def _pump(self, parts: AsyncIterator[bytes]) -> None:
        async for part in parts:
            await self._send({"type": "http.response.body", "body": part, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})

    async def _disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _start(self, status: int, kind: str, headers: dict[str, str]) -> None:
        self.started, self.status = True, status
        listed = [
            (b"content-type", kind.encode()),
            (b"audit-id", b"sandbox"),
            *((name.lower().encode(), value.encode()) for name, value in headers.items()),
        ]
        await self._send({"type": "http.response.start", "status": status, "headers": listed})


def number_of(query: dict[str, str], name: str) -> int | None:
    """A whole number of a query, None when it is not given; raises ApiError 400 for other text."""
    text = query.get(name, "")
    if not text:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise failures.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from error


def dump(obj: Any) -> bytes:
    return json.dumps(obj, separators=(",", ":"), ensure_ascii=False).encode()
