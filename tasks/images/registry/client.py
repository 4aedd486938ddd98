"""Speaks to registries: logs in, follows redirects, tries again what another try may mend.

OCI distribution-spec 1.1, with Docker's registry 2.8 as the oldest peer.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from urllib.parse import urljoin, urlsplit, urlunsplit

import httpx

from tasks.domain.errors import StoppedError, TemporaryError, UpgradeError
from tasks.images.registry.access import Access
from tasks.images.registry.address import Repository
from tasks.images.registry.lines import Lines, never
from tasks.images.registry.login import Login
from tasks.images.registry.refusals import Answer, refusal
from tasks.images.registry.transport import PLAIN_OPTION, STRANGE, SilentError, told

# A registry that answered before is given the time of a restart; one that never did is soon said to be away.
TRIES = 5
TRIES_UNMET = 2
PAUSES = (0.3, 1.0, 2.0, 4.0)
# Of a line that stands still; to take an upload in may keep a registry busy for longer than to read.
SECONDS = 60.0
SECONDS_READING = 20.0
TRIES_SILENT = 2
CONNECT_SECONDS = 10.0
REDIRECTS = 5
# What is read whole: manifests (4 MiB), configs, tags; an answer that is larger is none of them.
LARGEST_BODY = 32 * 1024 * 1024
# Of a refusal or a token: what is longer is cut off.
LARGEST_NOTE = 1024 * 1024
PIECE = 256 * 1024

# The pieces of a body, to be sent again after a login or a broken line where they are a sequence.
Body = Sequence[bytes] | Iterable[bytes]


class RegistryClient:
    """One user's connections to registries; safe to be used by several threads."""

    def __init__(
        self, access: Access, *, stop: Callable[[], bool] = never, tries: int = TRIES, seconds: float = SECONDS
    ) -> None:
        self.access = access
        self._stop = stop
        self._tries = tries
        connect = min(seconds, CONNECT_SECONDS)
        limits = httpx.Timeout(seconds, connect=connect)
        self._reading = httpx.Timeout(min(seconds, SECONDS_READING), connect=connect)
        self._lines = Lines(stop)
        self._http = httpx.Client(timeout=limits, verify=access.trust(), headers={"Accept-Encoding": "identity"})
        self._login = Login(access, self._fetch_token)
        self._met: set[str] = set()

    def close(self) -> None:
        self._lines.close()
        self._http.close()

    def url(self, at: Repository, path: str) -> str:
        """`path` below the repository's API: `manifests/2025.07.0`."""
        # Docker Hub is known to have TLS; every other host is spoken to as it was named.
        plain = self.access.insecure and at.host == at.registry
        return f"{'http' if plain else 'https'}://{at.host}/v2/{at.path}/{path}"

    # ------------------------------------------------------------ questions, answered whole
    def ask(
        self,
        method: str,
        at: Repository,
        url: str,
        what: str,
        *,
        scopes: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
    ) -> Answer:
        """The answer, whatever its status; asked again where the line breaks or the server says that it may help."""
        body = (content,) if content or method in ("POST", "PUT", "PATCH") else ()
        return self._persist(at.host, lambda: self.send(method, at, url, what, body, scopes=scopes, headers=headers))

    def send(
        self,
        method: str,
        at: Repository,
        url: str,
        what: str,
        body: Body = (),
        *,
        size: int | None = None,
        scopes: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One try; `size` is the body's length where it is not a sequence (None then: in HTTP chunks)."""
        with self.open(method, at, url, what, body, size=size, scopes=scopes, headers=headers) as response:
            content = bytearray()
            with told(at.host, what, secure=url.startswith("https:")):
                for piece in response.iter_raw():
                    content += piece
                    if len(content) > LARGEST_BODY:
                        raise UpgradeError(
                            f"The registry {at.host} does not stop talking.",
                            observed=f"To {what}: more than {LARGEST_BODY} bytes.",
                            next=STRANGE,
                        )
            return answer_of(response, bytes(content))

    def require(self, answer: Answer, at: Repository, what: str, *statuses: int) -> Answer:
        """The answer where its status is one of `statuses`, else its error."""
        if answer.status in statuses:
            return answer
        raise refusal(answer, at.host, what, user=self.access.user)

    # ------------------------------------------------------------ one exchange
    @contextmanager
    def open(
        self,
        method: str,
        at: Repository,
        url: str,
        what: str,
        body: Body = (),
        *,
        size: int | None = None,
        scopes: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[httpx.Response]:
        """The response with its body unread, after a login where the registry asks for one (once)."""
        wanted = scopes or (at.pull,)
        lengths = _lengths(body, size)
        authorization = self._login.header(at.host, wanted)
        response = self._follow(method, at, url, what, body, {**(headers or {}), **lengths}, authorization)
        try:
            if response.status_code == 401 and self._of_registry(at, str(response.request.url)):
                refused = noted(response, at.host, what)
                authorization = self._login.learn(at.host, wanted, refused, authorization)
                if isinstance(body, Sequence):
                    sent = {**(headers or {}), **lengths}
                    response = self._follow(method, at, url, what, body, sent, authorization)
            yield response
        finally:
            response.close()

    def _follow(
        self,
        method: str,
        at: Repository,
        url: str,
        what: str,
        body: Body,
        headers: Mapping[str, str],
        authorization: str,
    ) -> httpx.Response:
        for _ in range(REDIRECTS):
            # Object stores refuse a second login, and another host must not see this one's.
            login = {"Authorization": authorization} if authorization and self._of_registry(at, url) else {}
            with told(at.host, what, secure=url.startswith("https:")):
                content = _pieces(body) if body else None
                sent = {**headers, **login}
                told_of = {"trace": self._lines.trace}
                patience = self._reading if method in ("GET", "HEAD") else self._http.timeout
                request = self._http.build_request(
                    method, url, headers=sent, content=content, extensions=told_of, timeout=patience
                )
                response = self._http.send(request, stream=True, follow_redirects=False)
            if method not in ("GET", "HEAD") or not response.has_redirect_location:
                return response
            response.close()
            url = self.resolve(url, response.headers["location"])
        raise UpgradeError(
            f"The registry {at.host} redirects without end.",
            observed=f"To {what}: at last to {bare(url)}",
            next=STRANGE,
        )

    def _of_registry(self, at: Repository, url: str) -> bool:
        """Whether an address is the registry's own: scheme, host and port."""
        mine = urlsplit(self.url(at, ""))
        other = urlsplit(url)
        return (mine.scheme, mine.netloc.lower()) == (other.scheme, other.netloc.lower())

    def resolve(self, url: str, location: str) -> str:
        """Where a Location leads.  A registry behind a proxy that ends TLS may say http of itself: TLS is kept."""
        try:
            before, after = urlsplit(url), urlsplit(urljoin(url, location))
        except ValueError as error:
            raise UpgradeError(
                "A registry leads to no address.", observed=f"{url}: Location: {error}", next=STRANGE
            ) from None
        if before.scheme == "https" and after.scheme == "http" and before.hostname == after.hostname:
            after = after._replace(scheme="https", netloc=before.netloc)
        if after.scheme not in ("http", "https") or (after.scheme == "http" and not self.access.insecure):
            raise UpgradeError(
                f"{before.netloc} leads to an address without TLS.",
                observed=f"Location: {after.scheme}://{after.netloc}{after.path}",
                next=f"Where that is meant, say that it has no TLS: {PLAIN_OPTION}.",
            )
        return urlunsplit(after)

    def _fetch_token(self, url: str, parameters: Sequence[tuple[str, str]], authorization: str) -> Answer:
        host = urlsplit(url).netloc
        headers = {"Authorization": authorization} if authorization else {}

        def once() -> Answer:
            with told(host, "get a token", secure=url.startswith("https:")):
                request = self._http.build_request("GET", url, params=list(parameters), headers=headers)
                reply = self._http.send(request, stream=True, follow_redirects=False)
            return noted(reply, host, "get a token")

        return self._persist(host, once)

    # ------------------------------------------------------------ patience
    def _persist(self, host: str, once: Callable[[], Answer]) -> Answer:
        attempt, silent = 0, 0
        while True:
            attempt += 1
            last = attempt >= (self._tries if host in self._met else min(self._tries, TRIES_UNMET))
            try:
                answer = once()
            except TemporaryError as error:
                self.heed()
                silent += isinstance(error, SilentError)
                if last or silent >= TRIES_SILENT:
                    raise
                self.pause(attempt)
                continue
            self._met.add(host)
            if not answer.temporary or attempt >= self._tries:
                return answer
            self.pause(attempt, answer.wait)

    def pause(self, attempt: int, seconds: float | None = None) -> None:
        """Wait before the next try; raise `StoppedError` as soon as it is asked for."""
        wanted = PAUSES[min(attempt, len(PAUSES)) - 1] if seconds is None else seconds
        until = time.monotonic() + wanted
        while (left := until - time.monotonic()) > 0:
            self.heed()
            time.sleep(min(left, 0.1))

    def heed(self) -> None:
        """Raise `StoppedError` where a stop was asked for."""
        if self._stop():
            raise StoppedError("The transfer was stopped.", observed="It was asked for.")


def noted(response: httpx.Response, host: str, what: str) -> Answer:
    """A refusal or a token with the beginning of its body, at most `LARGEST_NOTE` bytes; the response is closed."""
    content = bytearray()
    try:
        with told(host, what, secure=response.url.scheme == "https"):
            for piece in response.iter_bytes(PIECE):
                content += piece
                if len(content) >= LARGEST_NOTE:
                    break
    finally:
        response.close()
    return answer_of(response, bytes(content[:LARGEST_NOTE]))


def bare(url: str) -> str:
    """An address without what may be a secret in it: object stores sign theirs."""
    return url.partition("?")[0]


def answer_of(response: httpx.Response, body: bytes) -> Answer:
    """The response as plain data, with the body that was read."""
    return Answer(response.status_code, {k.lower(): v for k, v in response.headers.items()}, body)


def _lengths(body: Body, size: int | None) -> dict[str, str]:
    if isinstance(body, Sequence):
        return {"Content-Length": str(sum(len(piece) for piece in body))} if body else {}
    return {"Transfer-Encoding": "chunked"} if size is None else {"Content-Length": str(size)}


def _pieces(body: Body) -> Iterator[bytes]:
    """Pieces of a size that the socket takes at once: httpcore copies what is left after every send."""
    for chunk in body:
        if len(chunk) <= PIECE:
            yield chunk
        else:
            view = memoryview(chunk)
            for at in range(0, len(chunk), PIECE):
                yield bytes(view[at : at + PIECE])
