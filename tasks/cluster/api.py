"""The Kubernetes API as plain JSON, over the official client's connection.

The official client reads the kubeconfig: TLS, proxies, tokens and exec plugins just work.  Its model classes
are left out (a list of pods costs ten times as much through them) and so are its retries: what is tried again
is decided here, in sight.
"""

import contextlib
import http.client
import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlencode

from urllib3 import Timeout
from urllib3 import exceptions as web

from tasks.cluster.answers import GoneError, JsonObject, Request, ServerAwayError, clean, error_of, lost, status_of
from tasks.cluster.retry import Retry
from tasks.domain.errors import TemporaryError, UnauthorizedError, UpgradeError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient
    from urllib3.response import BaseHTTPResponse

Query = str | int | bool
PatchType = Literal["strategic", "merge", "json"]
PAGE = 500
REQUEST_SECONDS = 30.0
CONNECTIONS = 32
# What the HTTP library, TLS and sockets raise.
BROKEN = (web.HTTPError, http.client.HTTPException, OSError, ValueError)
MAX_BODY = 256 * 1024 * 1024

_PATCH = {
    "strategic": "application/strategic-merge-patch+json",
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
}


@dataclass(frozen=True, slots=True)
class Listing:
    """A whole list: its items (without kind and apiVersion, as lists serve them) and where a watch goes on."""

    items: list[JsonObject]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a proxied pod or service itself answered: HTTP status and body as text."""

    status: int
    text: str


class Lines:
    """Lines of an answer as they come.  `close()` may be called by any thread and ends the iteration."""

    def __init__(self, response: "BaseHTTPResponse", request: Request) -> None:
        self._response = response
        self._request = request
        self._ended = threading.Event()

    def closed(self) -> bool:
        """True once `close()` was called."""
        return self._ended.is_set()

    def close(self) -> None:
        """End the stream: a reader blocked in it wakes and sees its end."""
        self._ended.set()
        with contextlib.suppress(ValueError, RuntimeError, OSError):  # already ended
            self._response.shutdown()

    def __iter__(self) -> Iterator[bytes]:
        """Whole lines without their end; a last line that was cut is not given (it would be half an event)."""
        rest = b""
        while not self.closed():
            try:
                chunk = self._response.read1(65536)
            except BROKEN as error:
                if self.closed():
                    return
                raise _translated(self._request, error) from None
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line for line in lines if line.strip())


class KubernetesApi:
    """One cluster's API.  Safe to share between threads.

    `name` is the cluster's name in messages.  `timeout` is the whole of one request in seconds, its answer's
    body included.  Reads are tried again on temporary errors as `retry` says; writes only where the request
    surely never took effect.  Every method raises the errors of `tasks.domain.errors`: `UnauthorizedError`,
    `ForbiddenError`, `NotFoundError`, `ConflictError`, `TemporaryError` (`ServerAwayError`, `GoneError`), or
    `UpgradeError` for what the server does not accept.
    """

    def __init__(
        self, client: "ApiClient", name: str = "", *, timeout: float = REQUEST_SECONDS, retry: Retry | None = None
    ) -> None:
        self.name = name
        self.retry = retry or Retry()
        self._client = client
        self._timeout = timeout
        self._auth = threading.Lock()
        pools = client.rest_client.pool_manager
        # Each rollout holds watches and a log open; a pool of five would close and open connections all the time.
        pools.connection_pool_kw["maxsize"] = max(CONNECTIONS, pools.connection_pool_kw.get("maxsize") or 0)

    def patient(self, seconds: float, *, timeout: float | None = None) -> "KubernetesApi":
        """The same API with another patience for temporary errors, and perhaps another time for one request, sharing
        connections and credentials.
        """
        retry = Retry(seconds, self.retry.base, self.retry.cap, self.retry.sleep, self.retry.rng)
        other = KubernetesApi(self._client, self.name, timeout=timeout or self._timeout, retry=retry)
        other._auth = self._auth  # one login at a time, whichever of the two asks
        return other

    @property
    def server(self) -> str:
        """The address, without userinfo: fit for messages."""
        return clean(str(self._client.configuration.host))

    def get(self, path: str, **query: Query) -> JsonObject:
        """The object at `path`, e.g. `/apis/apps/v1/namespaces/prod/deployments/worker`."""
        return self._json("GET", path, query)

    def list(self, path: str, *, labels: str = "", fields: str = "") -> Listing:
        """All items of the collection at `path`, in pages; begins again when a page's token has expired."""
        for _ in range(3):
            try:
                return self._pages(path, {"labelSelector": labels, "fieldSelector": fields})
            except GoneError:
                continue
        # The token cannot outlive a list this slow: one answer, however large.
        whole = self._json("GET", path, {"labelSelector": labels, "fieldSelector": fields})
        return Listing(whole.get("items") or [], str(whole.get("metadata", {}).get("resourceVersion", "")))

    def create(self, path: str, body: JsonObject, **query: Query) -> JsonObject:
        """POST `body` to the collection (or subresource) at `path`."""
        return self._json("POST", path, query, body)

    def replace(self, path: str, body: JsonObject, **query: Query) -> JsonObject:
        """PUT `body`; with its metadata.resourceVersion the write is conditional."""
        return self._json("PUT", path, query, body)

    def delete(self, path: str, body: JsonObject | None = None, **query: Query) -> JsonObject:
        """DELETE; `body` may be `DeleteOptions` with preconditions."""
        return self._json("DELETE", path, query, body)

    def patch(self, path: str, body: object, how: PatchType = "strategic", **query: Query) -> JsonObject:
        """PATCH with one of the three patch types; conditional where the body names a resourceVersion."""
        return self._json("PATCH", path, query, body, _PATCH[how])

    def text(self, path: str, **query: Query) -> str:
        """The answer as text, e.g. a pod's log."""
        return self._body("GET", path, query)[1].decode("utf-8", "replace")

    def answer(self, path: str, **query: Query) -> Answer:
        """What a proxied pod or service answers, whatever its status; raises only what the API server itself says.

        Not tried again: the caller knows which answers of a pod are worth another try.
        """
        request = Request("GET", path, self.name)
        status, headers, body = self._once(request, query, None, "")
        if status >= 300 and status_of(body) is not None:
            raise error_of(request, status, headers, body)
        return Answer(status, body.decode("utf-8", "replace"))

    @contextmanager
    def lines(self, path: str, query: Mapping[str, Query], idle: float) -> Iterator[Lines]:
        """A streamed answer (watch, followed log), line by line.

        `idle` seconds without a byte raise `ServerAwayError`: a half-open connection is silent for ever.
        """
        request = Request("GET", path, self.name, watch=bool(query.get("watch")))
        response = self._send(request, query, None, "", idle)
        try:
            if response.status >= 300:
                body = self._read(request, response, time.monotonic() + self._timeout)
                raise error_of(request, response.status, response.headers, body)
            yield Lines(response, request)
        finally:
            # What is left unread would make the connection unusable for the next request: close, do not return it.
            response.close()

    def _pages(self, path: str, query: dict[str, Query]) -> Listing:
        items: list[JsonObject] = []
        token = ""
        while True:
            page = self._json("GET", path, {**query, "limit": PAGE, "continue": token})
            items += page.get("items") or []
            meta = page.get("metadata") or {}
            token = str(meta.get("continue") or "")
            if not token:
                return Listing(items, str(meta.get("resourceVersion") or ""))

    def _json(
        self, method: str, path: str, query: Mapping[str, Query], body: object = None, kind: str = "application/json"
    ) -> JsonObject:
        request, data = self._body(method, path, query, body, kind)
        try:
            value = json.loads(data)
        except ValueError:
            value = None
        if isinstance(value, dict):
            return value
        raise lost(request, f"the answer is not a JSON object: {data[:80]!r}", unsent=False)

    def _body(
        self, method: str, path: str, query: Mapping[str, Query], body: object = None, kind: str = ""
    ) -> tuple[Request, bytes]:
        request = Request(method, path, self.name)
        data = None if body is None else json.dumps(body).encode()

        def attempt() -> bytes:
            status, headers, answer = self._once(request, query, data, kind)
            if status >= 300:
                raise error_of(request, status, headers, answer)
            return answer

        def again(error: TemporaryError) -> bool:
            return isinstance(error, ServerAwayError) and (request.reads or error.unsent)

        return request, self.retry.call(attempt, again=again)

    def _once(
        self, request: Request, query: Mapping[str, Query], data: bytes | None, kind: str
    ) -> tuple[int, Mapping[str, str], bytes]:
        end = time.monotonic() + self._timeout
        response = self._send(request, query, data, kind, self._timeout)
        try:
            body = self._read(request, response, end)
        except BaseException:
            response.close()
            raise
        response.release_conn()
        return response.status, response.headers, body

    def _send(
        self, request: Request, query: Mapping[str, Query], data: bytes | None, kind: str, seconds: float
    ) -> "BaseHTTPResponse":
        fields = {key: _text(value) for key, value in query.items() if value != ""}
        url = (
            str(self._client.configuration.host).rstrip("/")
            + request.path
            + ("?" + urlencode(fields) if fields else "")
        )
        headers = self._headers(request)
        if data is not None:
            headers["Content-Type"] = kind
        timeout = Timeout(connect=min(10.0, self._timeout), read=seconds)
        try:
            response: BaseHTTPResponse = self._client.rest_client.pool_manager.request(
                request.method, url, body=data, headers=headers, timeout=timeout,
                retries=False, redirect=False, preload_content=False,
            )  # fmt: skip
        except BROKEN as error:
            raise _translated(request, error) from None
        return response

    def _headers(self, request: Request) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": "apinizer-upgrade"}
        try:
            with self._auth:  # an exec plugin (a cloud login) is run once, not by each thread
                settings = self._client.configuration.auth_settings()
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            raise UnauthorizedError(
                "The kubeconfig's login did not give credentials.",
                observed=f"{type(error).__name__} before {request}: {clean(str(error))}",
                next="Run the login by hand, e.g. `kubectl get nodes`, and see what its plugin says.",
            ) from None
        for setting in settings.values():
            if setting.get("in") == "header" and setting.get("value"):
                headers[setting["key"]] = setting["value"]
        return headers

    def _read(self, request: Request, response: "BaseHTTPResponse", end: float) -> bytes:
        """The whole body, within the request's time: a read timeout alone lets a slow drip go on for ever."""
        chunks: list[bytes] = []
        size = 0
        try:
            while chunk := response.read1(1 << 20):
                chunks.append(chunk)
                size += len(chunk)
                if time.monotonic() > end or size > MAX_BODY:
                    break
            else:
                return b"".join(chunks)
        except BROKEN as error:
            raise _translated(request, error) from None
        raise lost(request, f"the answer was not whole after {self._timeout:g} s and {size} bytes", unsent=False)


def _text(value: Query) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _translated(request: Request, error: Exception) -> UpgradeError:
    """The typed error of what the HTTP library, TLS or the socket raised."""
    cause: Any = error
    for step in (error, error.__cause__, error.__context__, *error.args):
        if isinstance(step, ssl.SSLCertVerificationError):
            cause = step
            break
    if isinstance(cause, ssl.SSLCertVerificationError):
        return UpgradeError(
            "The Kubernetes API's certificate was not accepted.",
            observed=f"{request}: {clean(str(cause))}",
            next="Check certificate-authority and the server's name in the kubeconfig (tls-server-name).",
        )
    unsent = isinstance(error, (web.NewConnectionError, web.ConnectTimeoutError, web.ProxyError))
    why = str(error).partition(": ")[2] if isinstance(error, web.NewConnectionError) else str(error)
    away = lost(request, why or type(error).__name__, unsent=unsent)
    away.silent = isinstance(error, web.ReadTimeoutError)
    return away
