"""How the tests' registry answers: the distribution specification, as Docker's registry 2.8 reads it."""

import json
import re
import secrets
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

from tests.tasks.images.registry.state import Ordered, Repository, Seen, Served, sha256


@dataclass(frozen=True)
class _Reply:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class _CutError(Exception):
    """The line ends here."""


def _wrong(status: int, code: str, message: str = "") -> _Reply:
    body = json.dumps({"errors": [{"code": code, "message": message or code.lower(), "detail": {}}]}).encode()
    return _Reply(status, body, {"Content-Type": "application/json"})


_ROUTE = re.compile(r"/v2/(?P<repository>.+?)/(?P<kind>manifests|blobs/uploads|blobs|tags)/(?P<rest>.*)")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    wbufsize = -1  # Headers and body in one go: two small writes wait for the other side's delayed ACK.
    disable_nagle_algorithm = True
    state: Served

    def _serve(self) -> None:
        self.came = 0
        try:
            try:
                reply = self._decide()
                self._drain()
            except BaseException:
                self._note(0)
                raise
            # Before the answer: who has it may look at once at what was seen.
            self._note(reply.status)
            self._tell(reply)
        except (_CutError, ConnectionError, TimeoutError, ssl.SSLError):
            self.close_connection = True
            with self.state.lock:
                if self.state.faults.lose_uploads and self.command in ("PATCH", "PUT"):
                    self.state.uploads.clear()
            # shutdown, not close: the other files of this connection keep it open.
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def _note(self, status: int) -> None:
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        login, span = self.headers.get("Authorization", ""), self.headers.get("Range", "")
        with self.state.lock:
            self.state.seen.append(Seen(self.command, url.path, query, login, span, status, self.came))

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = _serve  # noqa: N815 - the base class calls them so

    def log_message(self, *_: object) -> None:
        """Nothing: the tests say what they need to say."""

    # ------------------------------------------------------------ bodies
    def _pieces(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().partition(b";")[0].strip() or b"0", 16):
                yield self._exactly(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            piece = self._exactly(min(left, 65536))
            left -= len(piece)
            yield piece

    def _exactly(self, size: int) -> bytes:
        piece = self.rfile.read(size)
        self.came += len(piece)
        if len(piece) != size:
            raise _CutError
        return piece

    def _body(self) -> bytes:
        return b"".join(self._pieces())

    def _drain(self) -> None:
        for _ in self._pieces() if not self.came else ():  # what nobody read would be taken for the next request
            pass

    def _tell(self, reply: _Reply) -> None:
        body = reply.body
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        faults = self.state.faults
        of_blob = self.command == "GET" and reply.headers.get("Content-Type") == "application/octet-stream"
        if of_blob and faults.cut_get:
            self.wfile.write(body[: faults.cut_get.pop(0)])
            self.wfile.flush()
            raise _CutError
        if of_blob and faults.stall_get:
            self.wfile.write(body[: faults.stall_get.pop(0)])
            self.wfile.flush()
            self.connection.settimeout(20)
            self.connection.recv(1)
            raise _CutError
        self.wfile.write(body)

    # ------------------------------------------------------------ decisions
    def _decide(self) -> _Reply:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        authorization = self.headers.get("Authorization", "")
        ordered = self._ordered(url.path)
        if ordered:
            body = ordered.body if ordered.body is not None else _wrong(0, ordered.code).body if ordered.code else b""
            return _Reply(ordered.status, body, ordered.headers)
        if url.path == "/token":
            status, body = self.state.token(query, authorization)
            return _Reply(status, body, {"Content-Type": "application/json"})
        if url.path.startswith("/storage/"):
            if authorization:
                return _Reply(400, b"<Code>InvalidArgument</Code> only one auth mechanism allowed")
            return self._content(url.path.removeprefix("/storage/"))
        route = _ROUTE.fullmatch(url.path)
        repository = route["repository"] if route else ""
        action = "push" if self.command in ("POST", "PATCH", "PUT", "DELETE") else "pull"
        if route and route["kind"] == "blobs/uploads":
            action = "push"
        status, challenge = self.state.allowed(authorization, repository, action)
        if status == 401:
            reply = _wrong(401, "UNAUTHORIZED", "authentication required")
            return _Reply(401, reply.body, {**reply.headers, "WWW-Authenticate": challenge})
        if status == 403:
            return _wrong(403, "DENIED", "requested access to the resource is denied")
        if url.path in ("/v2/", "/v2"):
            return _Reply(200, b"{}")
        if not route:
            return _Reply(404, b"404 page not found")
        return self._routed(route["kind"], repository, route["rest"], {k: v[-1] for k, v in query.items()})

    def _ordered(self, path: str) -> Ordered | None:
        with self.state.lock:
            for ordered in self.state.faults.answers:
                if ordered.times and ordered.method in ("", self.command) and ordered.part in path:
                    ordered.times -= 1
                    return ordered
        return None

    def _routed(self, kind: str, repository: str, rest: str, query: Mapping[str, str]) -> _Reply:
        with self.state.lock:
            known = self.state.repositories.get(repository)
        if kind == "tags":
            if known is None or not known.tags:
                return _wrong(404, "NAME_UNKNOWN", "repository name not known to registry")
            return _Reply(200, json.dumps({"name": repository, "tags": sorted(known.tags)}).encode())
        if kind == "manifests":
            return self._put_manifest(repository, rest) if self.command == "PUT" else self._manifest(known, rest)
        if kind == "blobs":
            return self._blob(known, rest)
        return self._upload(repository, rest, query)

    def _manifest(self, known: Repository | None, reference: str) -> _Reply:
        digest = known.tags.get(reference, reference) if known else ""
        if known is None or digest not in known.manifests:
            # Docker's registry says so for a repository that it does not know as well.
            return _wrong(404, "MANIFEST_UNKNOWN", "manifest unknown")
        media_type, content = known.manifests[digest]
        if media_type not in self.headers.get("Accept", ""):
            return _wrong(404, "MANIFEST_UNKNOWN", "OCI index found, but accept header does not support OCI indexes")
        content = self.state.faults.wrong.get(digest, content)
        told = {} if self.state.faults.headless else {"Docker-Content-Digest": digest}
        return _Reply(200, content, {"Content-Type": media_type, **told})

    def _put_manifest(self, repository: str, reference: str) -> _Reply:
        content = self._body()
        media_type = self.headers.get("Content-Type", "")
        parsed = json.loads(content)
        with self.state.lock:
            known = self.state.repositories.setdefault(repository, Repository())
            wanted = [d["digest"] for d in [parsed.get("config"), *parsed.get("layers", [])] if d]
            missing = [digest for digest in wanted if digest not in known.blobs]
            if parsed.get("mediaType", media_type) != media_type:
                return _wrong(400, "MANIFEST_INVALID", "media types differ")
            if missing:
                return _wrong(400, "MANIFEST_BLOB_UNKNOWN", f"blob unknown to registry: {missing}")
            digest = sha256(content)
            if ":" in reference and reference != digest:
                return _wrong(400, "DIGEST_INVALID")
            known.manifests[digest] = (media_type, content)
            if ":" not in reference:
                known.tags[reference] = digest
        return _Reply(201, b"", {"Docker-Content-Digest": digest, "Location": f"/v2/{repository}/manifests/{digest}"})

    def _blob(self, known: Repository | None, digest: str) -> _Reply:
        if known is None or digest not in known.blobs:
            return _wrong(404, "BLOB_UNKNOWN", "blob unknown to registry")
        if self.state.faults.storage:
            return _Reply(307, b"", {"Location": f"{self.state.faults.storage}/storage/{digest}"})
        return self._content(digest)

    def _content(self, digest: str) -> _Reply:
        content = self.state.faults.wrong.get(digest, self.state.blobs.get(digest))
        if content is None:
            return _wrong(404, "BLOB_UNKNOWN")
        headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not asked or not self.state.faults.ranges:
            return _Reply(200, content, headers)
        start = int(asked[1])
        if start >= len(content):
            return _Reply(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        told = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        return _Reply(206, content[start:], {**headers, **told})

    # ------------------------------------------------------------ uploads
    def _upload(self, repository: str, identity: str, query: Mapping[str, str]) -> _Reply:
        if self.command == "POST":
            return self._begin(repository, query)
        with self.state.lock:
            if identity not in self.state.uploads or self.state.uploads[identity][0] != repository:
                # Docker's registry 2.8 says BLOB_UPLOAD_INVALID after a cut.
                return _wrong(404, self.state.faults.lose_uploads or "BLOB_UPLOAD_UNKNOWN", "blob upload unknown")
            _, kept, patches = self.state.uploads[identity]
        if self.command == "GET":
            return _Reply(204, b"", self._where(repository, identity, len(kept)))
        if self.command == "DELETE":
            self.state.uploads.pop(identity, None)
            return _Reply(204)
        if self.command == "PATCH":
            refusal = self._refused(kept, patches)
            if refusal:
                return refusal
            with self.state.lock:
                self.state.uploads[identity] = (repository, kept, patches + 1)
        self._keep(kept)
        if self.command == "PATCH" and self.state.faults.stall_patch:
            self.connection.settimeout(20)
            self.connection.recv(1)
            raise _CutError
        if self.command == "PATCH":
            return _Reply(202, b"", self._where(repository, identity, len(kept)))
        with self.state.lock:
            if sha256(bytes(kept)) != query.get("digest"):
                return _wrong(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
            self.state.uploads.pop(identity, None)
            self.state.put_blob(repository, bytes(kept))
        return _Reply(201, b"", {"Docker-Content-Digest": query["digest"], "Location": f"/v2/{repository}/blobs/x"})

    def _begin(self, repository: str, query: Mapping[str, str]) -> _Reply:
        with self.state.lock:
            source = self.state.repositories.get(query.get("from", ""))
            if self.state.faults.mounts and source and query.get("mount") in source.blobs:
                self.state.put_blob(repository, self.state.blobs[query["mount"]])
                return _Reply(201, b"", {"Docker-Content-Digest": query["mount"]})
            identity = secrets.token_hex(8)
            self.state.uploads[identity] = (repository, bytearray(), 0)
        return _Reply(202, b"", self._where(repository, identity, 0))

    def _refused(self, kept: bytearray, patches: int) -> _Reply | None:
        if self.state.faults.patches and patches >= self.state.faults.patches:
            return _wrong(405, "UNSUPPORTED", "one PATCH only")
        asked = re.fullmatch(r"(\d+)-(\d+)", self.headers.get("Content-Range", ""))
        if asked and int(asked[1]) != len(kept):
            return _wrong(416, "BLOB_UPLOAD_INVALID", "range invalid")
        return None

    def _keep(self, kept: bytearray) -> None:
        faults = self.state.faults
        has_body = self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers
        cuts = faults.cut_patch if self.command == "PATCH" else faults.cut_put
        cut = cuts.pop(0) if has_body and cuts else None
        for piece in self._pieces():
            if cut is not None and self.came >= cut:
                kept += piece[: len(piece) - (self.came - cut)]
                raise _CutError
            kept += piece

    def _where(self, repository: str, identity: str, size: int) -> dict[str, str]:
        state = self.state
        base = f"http://{state.host}" if state.faults.plain_location else ""
        # The state in the address is what must be sent back as it came.
        location = f"{base}/v2/{repository}/blobs/uploads/{identity}?_state={secrets.token_urlsafe(6)}"
        return {"Location": location, "Range": f"0-{max(size - 1, 0)}", "Docker-Upload-UUID": identity}
