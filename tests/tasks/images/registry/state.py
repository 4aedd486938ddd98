"""What the tests' registry holds, whom it lets in, what it has seen, and what it gets wrong."""

import gzip
import hashlib
import json
import secrets
import threading
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
    stall_patch: bool = False  # a PATCH is never answered
    stall_get: list[int] = field(default_factory=list)  # a blob's GET says nothing more after so many bytes
    answers: list[Ordered] = field(default_factory=list)
    wrong: dict[str, bytes] = field(default_factory=dict)  # digest -> what is sent instead
    storage: str = ""  # scheme://host:port that blobs are redirected to
    mounts: bool = True
    patches: int = 0  # how many PATCHes an upload takes; 0 any
    ranges: bool = True
    token_uses: int = 0  # a token is good for so many requests; 0 any
    expires_in: int | None = 300
    pull_only: bool = False  # the user may not push: the token says less than was asked for
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
        error = "insufficient_scope" if granted and not spent else "invalid_token"
        return 401, f'Bearer realm="{realm}",service="registry.test",scope="{wanted}",error="{error}"'

    def token(self, query: Mapping[str, list[str]], authorization: str) -> tuple[int, bytes]:
        if authorization not in ("", BASIC):
            return 401, b'{"details": "incorrect username or password"}'
        if query.get("service") != ["registry.test"]:
            return 400, b""
        asked = " ".join(query.get("scope", [])).split()
        if not authorization or self.faults.pull_only:  # anybody may pull
            asked = [f"{scope.rpartition(':')[0]}:pull" for scope in asked]
        token = secrets.token_hex(8)
        self.tokens[token] = (" ".join(asked), 0)
        answer: dict[str, object] = {"token": token}
        if self.faults.expires_in is not None:
            answer["expires_in"] = self.faults.expires_in
        return 200, json.dumps(answer).encode()


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(content), "size": len(content)}
