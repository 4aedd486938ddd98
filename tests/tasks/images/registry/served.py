"""A registry that speaks the distribution specification over real HTTP(S) on loopback, with faults to order.

    with served(auth="token") as registry:
        made = registry.put_image("apinizercloud/worker:1", [b"layer one", b"layer two"])
        ...  # registry.host, registry.name("apinizercloud/worker:1"), registry.ca_file, USER and PASSWORD

It answers as Docker's registry 2.8 does where the specification leaves room.
"""

import gzip
import hashlib
import json
import re
import secrets
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

USER, PASSWORD = "pusher", "pässword:1"
BASIC = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
_CONFIG = {
    DOCKER: "application/vnd.docker.container.image.v1+json",
    OCI: "application/vnd.oci.image.config.v1+json",
}
_LAYER = {
    DOCKER: "application/vnd.docker.image.rootfs.diff.tar.gzip",
    OCI: "application/vnd.oci.image.layer.v1.tar+gzip",
}


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Seen:
    """One request: the status is 0 where the line was cut; `received` counts the bytes of its body."""

    method: str
    path: str
    query: Mapping[str, str]
    authorization: str
    range: str
    status: int
    received: int


@dataclass
class Ordered:
    """An answer instead of the true one, for the next `times` requests that fit."""

    method: str
    part: str
    status: int
    code: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    times: int = 1


@dataclass
class Faults:
    """What goes wrong; may be changed while the server runs. Lists are used up from the front."""

    cut_get: list[int] = field(default_factory=list)  # a blob's GET ends after so many bytes of its body
    cut_patch: list[int] = field(default_factory=list)  # a PATCH of an upload ends after so many bytes came
    cut_put: list[int] = field(default_factory=list)  # and a PUT that has a body
    lose_uploads: str = ""  # with a cut PATCH all uploads are lost; the code that is answered for them then
    stall_get: list[int] = field(default_factory=list)  # a blob's GET says nothing more after so many bytes
    answers: list[Ordered] = field(default_factory=list)
    wrong: dict[str, bytes] = field(default_factory=dict)  # digest -> what is sent instead
    storage: str = ""  # scheme://host:port that blobs are redirected to
    mounts: bool = True
    patches: int = 0  # how many PATCHes an upload takes; 0 any
    ranges: bool = True
    token_uses: int = 0  # a token is good for so many requests; 0 any
    expires_in: int | None = 300
    denied: set[str] = field(default_factory=set)  # repositories that the user may not use
    plain_location: bool = False  # Locations are absolute and say http, as behind a proxy that ends TLS
    headless: bool = False  # no Docker-Content-Digest


@dataclass(frozen=True)
class Made:
    """An image that was put: digests, and what its blobs hold."""

    config: str
    diff_ids: tuple[str, ...]
    layers: tuple[str, ...]
    manifest: str
    sizes: tuple[int, ...]


@dataclass
class Repository:
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    blobs: set[str] = field(default_factory=set)


class Served:
    """The registry's state; `host` is where it listens."""

    def __init__(self, auth: str | None, faults: Faults) -> None:
        self.auth = auth
        self.faults = faults
        self.host = ""
        self.scheme = "http"
        self.ca_file = ""
        self.blobs: dict[str, bytes] = {}
        self.repositories: dict[str, Repository] = {}
        self.uploads: dict[str, tuple[str, bytearray, int]] = {}
        self.tokens: dict[str, tuple[str, int]] = {}
        self.seen: list[Seen] = []
        self.lock = threading.RLock()

    # ------------------------------------------------------------ what tests do with it
    def name(self, name: str) -> str:
        return f"{self.host}/{name}"

    def put_blob(self, repository: str, content: bytes) -> str:
        digest = sha256(content)
        self.blobs[digest] = content
        self.repositories.setdefault(repository, Repository()).blobs.add(digest)
        return digest

    def put_manifest(self, name: str, media_type: str, content: bytes) -> str:
        path, _, tag = name.partition(":")
        repository = self.repositories.setdefault(path, Repository())
        digest = sha256(content)
        repository.manifests[digest] = (media_type, content)
        if tag:
            repository.tags[tag] = digest
        return digest

    def put_image(
        self,
        name: str,
        layers: Sequence[bytes],
        *,
        media_type: str = DOCKER,
        platform: str = "linux/amd64",
        compressed: bool = True,
        level: int = 6,
        **config: object,
    ) -> Made:
        """An image of these layers (their uncompressed contents); a name without a tag is held by digest only."""
        repository = name.partition(":")[0]
        system, _, architecture = platform.partition("/")
        architecture, _, variant = architecture.partition("/")
        diff_ids = [sha256(layer) for layer in layers]
        head: dict[str, Any] = {"architecture": architecture, "os": system, "config": config}
        if variant:
            head["variant"] = variant
        text = json.dumps({**head, "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode()
        stored = [gzip.compress(layer, level, mtime=0) if compressed else layer for layer in layers]
        layer_type = _LAYER[media_type] if compressed else "application/vnd.oci.image.layer.v1.tar"
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": _descriptor(_CONFIG[media_type], text),
            "layers": [_descriptor(layer_type, layer) for layer in stored],
        }
        self.put_blob(repository, text)
        for layer in stored:
            self.put_blob(repository, layer)
        digest = self.put_manifest(name, media_type, json.dumps(manifest).encode())
        sizes = tuple(len(layer) for layer in stored)
        return Made(sha256(text), tuple(diff_ids), tuple(sha256(s) for s in stored), digest, sizes)

    def put_index(self, name: str, made: Mapping[str, Made], *, media_type: str = OCI_INDEX) -> str:
        """A manifest list over images that the same repository holds, by platform."""
        repository = self.repositories[name.partition(":")[0]]
        entries = []
        for platform, image in made.items():
            kind, content = repository.manifests[image.manifest]
            system, architecture, *variant = platform.split("/")
            described = {"os": system, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
            entries.append({**_descriptor(kind, content), "platform": described})
        index = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries}
        return self.put_manifest(name, media_type, json.dumps(index).encode())

    def manifest(self, name: str) -> dict[str, Any]:
        """The manifest that a tag names now."""
        path, _, tag = name.partition(":")
        repository = self.repositories[path]
        return dict(json.loads(repository.manifests[repository.tags[tag]][1]))

    def requests(self, method: str = "", part: str = "") -> list[Seen]:
        with self.lock:
            return [seen for seen in self.seen if method in ("", seen.method) and part in seen.path]

    @property
    def received(self) -> int:
        """The bytes of all bodies that came."""
        return sum(seen.received for seen in self.requests())

    # ------------------------------------------------------------ tokens
    def allowed(self, authorization: str, repository: str, action: str) -> tuple[int, str]:
        """200, 401 or 403, with the challenge."""
        if repository in self.faults.denied and authorization:
            return 403, ""
        if self.auth is None:
            return 200, ""
        if self.auth == "basic":
            return (200, "") if authorization == BASIC else (401, 'Basic realm="a registry, with a comma"')
        scopes, uses = self.tokens.get(authorization.removeprefix("Bearer "), ("", 0))
        wanted = f"repository:{repository}:pull,push" if action == "push" else f"repository:{repository}:pull"
        granted = {f"{s.rpartition(':')[0]}:{a}" for s in scopes.split() for a in s.rpartition(":")[2].split(",") if a}
        spent = self.faults.token_uses and uses >= self.faults.token_uses
        if f"repository:{repository}:{action}" in granted and not spent:
            self.tokens[authorization.removeprefix("Bearer ")] = (scopes, uses + 1)
            return 200, ""
        realm = f"{self.scheme}://{self.host}/token"
        return 401, f'Bearer realm="{realm}",service="registry.test",scope="{wanted}",error="invalid_token"'

    def token(self, query: Mapping[str, list[str]], authorization: str) -> tuple[int, bytes]:
        if authorization not in ("", BASIC):
            return 401, b'{"details": "incorrect username or password"}'
        if query.get("service") != ["registry.test"]:
            return 400, b""
        asked = " ".join(query.get("scope", [])).split()
        if not authorization:  # anybody may pull
            asked = [f"{scope.rpartition(':')[0]}:pull" for scope in asked]
        token = secrets.token_hex(8)
        self.tokens[token] = (" ".join(asked), 0)
        answer: dict[str, object] = {"token": token}
        if self.faults.expires_in is not None:
            answer["expires_in"] = self.faults.expires_in
        return 200, json.dumps(answer).encode()


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(content), "size": len(content)}


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


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    wbufsize = -1  # Headers and body in one go: two small writes wait for the other side's delayed ACK.
    disable_nagle_algorithm = True
    state: Served

    def _serve(self) -> None:
        self.came = 0
        status = 0
        try:
            reply = self._decide()
            status = reply.status
            self._tell(reply)
        except (_CutError, ConnectionError, TimeoutError, ssl.SSLError):
            self.close_connection = True
            with self.state.lock:
                if self.state.faults.lose_uploads and self.command in ("PATCH", "PUT"):
                    self.state.uploads.clear()
            # shutdown, not close: the other files of this connection keep it open.
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
        finally:
            url = urlsplit(self.path)
            query = {key: values[-1] for key, values in parse_qs(url.query).items()}
            with self.state.lock:
                self.state.seen.append(
                    Seen(
                        self.command,
                        url.path,
                        query,
                        self.headers.get("Authorization", ""),
                        self.headers.get("Range", ""),
                        status,
                        self.came,
                    )
                )

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

    def _tell(self, reply: _Reply) -> None:
        for _ in self._pieces() if not self.came else ():  # what nobody read would be taken for the next request
            pass
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


def certificate(folder: Path, *, host: str = "127.0.0.1") -> Path:
    """A PEM file with a key and a certificate that only who is told trusts; it is its own CA."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"the CA of {folder.name}")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(host))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "registry.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(made.public_bytes(pem) + private)
    return path


@contextmanager
def served(*, auth: str | None = None, tls: Path | None = None, faults: Faults | None = None) -> Iterator[Served]:
    """A registry on a port of its own; `auth` is None, "basic" or "token"; `tls` the PEM file of `certificate`."""
    state = Served(auth, faults or Faults())
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)
        # The handshake is the connection's own thread's, so that a client that breaks it off stops nobody else.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        state.scheme, state.ca_file = "https", str(tls)
    state.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
