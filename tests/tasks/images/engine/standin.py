"""A Docker engine of the tests' own: it keeps images as moby does and answers over a unix socket, and it can fail.

What it does with an archive follows moby's image/tarexport (save.go, load.go of 20.10 and 26); the samples of real
engines, and the end-to-end tests against them, hold it to that.  Its command `docker` is
standin_docker.py.
"""

import gzip
import hashlib
import io
import json
import socketserver
import ssl
import sys
import tarfile
import threading
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import zstandard
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def sha(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def dump(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def tar_of(files: Sequence[tuple[str, bytes | str]]) -> bytes:
    """An archive of files, and of links where a text stands for the content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def full(name: str) -> str:
    """docker.io/library/NAME for NAME."""
    name = name.removeprefix("docker.io/").removeprefix("library/")
    head = name.partition("/")[0]
    if "/" in name and ("." in head or ":" in head):
        return name
    return f"docker.io/{name}" if "/" in name else f"docker.io/library/{name}"


def short(name: str) -> str:
    return full(name).removeprefix("docker.io/").removeprefix("library/")


class RefusedError(Exception):
    pass


@dataclass
class Engine:
    """Images by Id, layers by chain ID; with `store` "containerd" content by digest."""

    store: str = "graph"
    form: int = 20
    configs: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    layers: dict[str, bytes] = field(default_factory=dict)
    content: dict[str, bytes] = field(default_factory=dict)
    loaded: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    fault: str = ""
    version: str = "20.10.24"

    # What it holds

    def add(self, name: str, layers: Sequence[bytes], **config: Any) -> str:
        """Make an image of uncompressed layers; returns its config's digest."""
        document = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": [name]},
            "created": "2026-01-01T00:00:00Z",
        }
        document |= config
        document["rootfs"] = {"type": "layers", "diff_ids": [sha(layer) for layer in layers]}
        content = dump(document)
        self._keep(content, layers)
        if self.store == "graph":
            self.tags[full(name)] = sha(content)
        else:
            self.tags[full(name)] = self._manifest(content, layers)
        return sha(content)

    def _keep(self, config: bytes, layers: Sequence[bytes]) -> None:
        self.configs[sha(config)] = config
        for chain, layer in zip(self.chains(config), layers, strict=True):
            self.layers[chain] = layer

    def _manifest(self, config: bytes, layers: Sequence[bytes]) -> str:
        blobs = [(gzip.compress(layer, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip") for layer in layers]
        manifest = dump(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": sha(config),
                    "size": len(config),
                },
                "layers": [{"mediaType": kind, "digest": sha(blob), "size": len(blob)} for blob, kind in blobs],
            }
        )
        self.content |= {sha(each): each for each in (config, manifest, *(blob for blob, _ in blobs))}
        return sha(manifest)

    @staticmethod
    def chains(config: bytes) -> list[str]:
        chains: list[str] = []
        for diff_id in json.loads(config)["rootfs"]["diff_ids"]:
            chains.append(sha(f"{chains[-1]} {diff_id}".encode()) if chains else diff_id)
        return chains

    def config_of(self, image: str) -> bytes:
        return (
            self.configs[image]
            if self.store == "graph"
            else self.content[json.loads(self.content[image])["config"]["digest"]]
        )

    def find(self, name: str) -> str:
        image = self.tags.get(full(name), name)
        if image not in self.tags.values():
            raise RefusedError(f"No such image: {name}")
        return image

    def inspect(self, name: str) -> dict[str, Any]:
        image = self.find(name)
        config = json.loads(self.config_of(image))
        return {
            "Id": image,
            "RepoTags": [short(tag) for tag, other in self.tags.items() if other == image],
            "RepoDigests": [],
            "Os": config["os"],
            "Architecture": config["architecture"],
            "Variant": config.get("variant", ""),
            "Size": 1000,
            "RootFS": {"Type": "layers", "Layers": config["rootfs"]["diff_ids"]},
        }

    def info(self) -> dict[str, Any]:
        status = (
            [["driver-type", "io.containerd.snapshotter.v1"]] if self.store == "containerd" else [["Backing", "extfs"]]
        )
        return {
            "ServerVersion": self.version,
            "DockerRootDir": "/",
            "OSType": "linux",
            "Architecture": "x86_64",
            "DriverStatus": status,
        }

    # The archives

    def save(self, names: Sequence[str]) -> bytes:
        ids = {name: self.find(name) for name in names}
        if self.store == "containerd":
            return self._layout(ids)
        files: dict[str, bytes | str] = {}
        manifest = []
        places: dict[str, str] = {}
        for image in dict.fromkeys(ids.values()):
            write = self._of_20 if self.form == 20 else self._of_25
            paths = write(image, files, places)
            config = f"{image[7:]}.json" if self.form == 20 else f"blobs/sha256/{image[7:]}"
            files[config] = self.configs[image]
            tags = [short(name) for name, other in ids.items() if other == image]
            manifest.append({"Config": config, "RepoTags": tags, "Layers": paths})
        last = [("manifest.json", dump(manifest)), ("repositories", b"{}")]
        return tar_of([*sorted(files.items()), *last])

    def _of_20(self, image: str, files: dict[str, bytes | str], places: dict[str, str]) -> list[str]:
        config = json.loads(self.configs[image])
        parent, paths = "", []
        chains, diff_ids = self.chains(self.configs[image]), config["rootfs"]["diff_ids"]
        for number, (chain, diff_id) in enumerate(zip(chains, diff_ids, strict=True)):
            last = number == len(chains) - 1
            described: dict[str, Any] = {"created": "1970-01-01T00:00:00Z", "container_config": {"Env": None}}
            if last:
                described = {key: config[key] for key in ("created", "config", "architecture", "os") if key in config}
            named = {**described, "layer_id": chain, **({"parent": f"sha256:{parent}"} if parent else {})}
            v1 = hashlib.sha256(dump(dict(sorted(named.items())))).hexdigest()
            files[f"{v1}/VERSION"] = b"1.0"
            told = {"id": v1, **({"parent": parent} if parent else {}), **described, "os": config["os"]}
            files[f"{v1}/json"] = dump(told)
            place = places.setdefault(diff_id, v1)
            files.setdefault(f"{v1}/layer.tar", self.layers[chain] if place == v1 else f"../{place}/layer.tar")
            paths.append(f"{v1}/layer.tar")
            parent = v1
        return paths

    def _of_25(self, image: str, files: dict[str, bytes | str], _places: dict[str, str]) -> list[str]:
        diff_ids = json.loads(self.configs[image])["rootfs"]["diff_ids"]
        for chain, diff_id in zip(self.chains(self.configs[image]), diff_ids, strict=True):
            files[f"blobs/sha256/{diff_id[7:]}"] = self.layers[chain]
        return [f"blobs/sha256/{diff_id[7:]}" for diff_id in diff_ids]

    def _layout(self, ids: dict[str, str]) -> bytes:
        wanted: dict[str, bytes] = {}
        index = []
        for name, image in ids.items():
            manifest = json.loads(self.content[image])
            digests = [image, manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]
            wanted |= {f"blobs/sha256/{digest[7:]}": self.content[digest] for digest in digests}
            names = {
                "io.containerd.image.name": full(name),
                "org.opencontainers.image.ref.name": name.rpartition(":")[2],
            }
            index.append(
                {
                    "mediaType": manifest["mediaType"],
                    "digest": image,
                    "size": len(self.content[image]),
                    "annotations": names,
                }
            )
        document = dump({"schemaVersion": 2, "manifests": index})
        manifest = [{"Config": f"blobs/sha256/{sha(self.config_of(image))[7:]}"} for image in ids.values()]
        last: list[tuple[str, bytes | str]] = [
            ("index.json", document),
            ("manifest.json", dump(manifest)),
            ("oci-layout", b"{}"),
        ]
        return tar_of([*sorted(wanted.items()), *last])

    def load(self, archive: bytes) -> list[str]:
        """The names that it got."""
        before = dict(self.tags)
        self._load(archive)
        return [short(name) for name, image in self.tags.items() if before.get(name) != image]

    def _load(self, archive: bytes) -> None:
        self.loaded.append(len(archive))
        try:
            with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
                files = {each.name: opened.extractfile(each).read() for each in opened if each.isreg()}  # type: ignore[union-attr]
        except tarfile.TarError:
            raise RefusedError("unexpected EOF") from None
        if self.store == "containerd":
            self._load_layout(files)
            return
        if "manifest.json" not in files:
            raise RefusedError("open /var/lib/docker/tmp/docker-import-1/repositories: no such file or directory")
        for item in json.loads(files["manifest.json"]):
            config = files[item["Config"]]
            diff_ids = json.loads(config)["rootfs"]["diff_ids"]
            for chain, diff_id, path in zip(self.chains(config), diff_ids, item["Layers"], strict=True):
                if chain not in self.layers:
                    self.layers[chain] = self._layer(diff_id, path, files)
            self.configs[sha(config)] = config
            self.tags |= {full(tag): sha(config) for tag in item["RepoTags"]}

    def _layer(self, diff_id: str, path: str, files: dict[str, bytes]) -> bytes:
        if path not in files:
            raise RefusedError(f"open /var/lib/docker/tmp/docker-import-1/{path}: no such file or directory")
        content = self._unpacked(files[path])
        if sha(content) != diff_id:
            raise RefusedError(f'invalid diffID for layer 0: expected "{diff_id}", got "{sha(content)}"')
        return content

    def _unpacked(self, content: bytes) -> bytes:
        if content[:4] == b"\x28\xb5\x2f\xfd":
            if self.version.startswith("20."):
                raise RefusedError("Error processing tar file(exit status 1): archive/tar: invalid tar header")
            return zstandard.ZstdDecompressor().decompressobj().decompress(content)
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content

    def _load_layout(self, files: dict[str, bytes]) -> None:
        self.content |= {sha(each): each for name, each in files.items() if name == f"blobs/sha256/{sha(each)[7:]}"}
        for entry in json.loads(files["index.json"])["manifests"]:
            manifest = json.loads(self.content[entry["digest"]])
            for digest in (manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])):
                if digest not in self.content:
                    raise RefusedError(f"failed to get reader from content store: content digest {digest}: not found")
            self.tags[entry["annotations"]["io.containerd.image.name"]] = entry["digest"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine: Engine

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 -- http.server's name.
        pass

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        parts = [urllib.parse.unquote(part) for part in url.path.split("/") if part]
        parts = parts[1:] if parts and parts[0].startswith("v1.") else parts
        query = urllib.parse.parse_qs(url.query)
        self.engine.asked.append("/".join(parts))
        if self.engine.fault == "500":
            self._answer(500, {"message": "driver is out of order"})
            return
        try:
            self._route(parts, query)
        except RefusedError as error:
            self._answer(404, {"message": str(error)})

    do_POST = do_GET  # noqa: N815 -- http.server asks for it so.

    def _route(self, parts: list[str], query: dict[str, list[str]]) -> None:
        engine = self.engine
        match parts:
            case ["version"]:
                self._answer(200, {"ApiVersion": "1.41", "Version": "20.10.24"})
            case ["info"]:
                self._answer(200, engine.info())
            case ["images", "get"]:
                self._stream(engine.save(query["names"]))
            case ["images", "load"]:
                self._answer(200, {"loaded": engine.load(self._body())})
            case ["images", "create"]:
                self._pull(query["fromImage"][0] + ":" + query["tag"][0])
            case ["images", "json"]:
                pattern = json.loads(query.get("filters", ["{}"])[0]).get("reference", [""])[0]
                ids = {image for tag, image in engine.tags.items() if short(tag).startswith(pattern)}
                self._answer(200, [engine.inspect(image) for image in sorted(ids)])
            case ["images", *name, "json"]:
                self._answer(200, engine.inspect("/".join(name)))
            case ["images", *name, "history"]:
                layers = engine.inspect("/".join(name))["RootFS"]["Layers"]
                self._answer(200, [{"Size": 0}, *({"Size": 100 + number} for number in reversed(range(len(layers))))])
            case ["images", *name, "tag"]:
                engine.tags[full(query["repo"][0])] = engine.find("/".join(name))
                self._answer(201, {})
            case _:
                self._answer(404, {"message": "page not found"})

    def _pull(self, name: str) -> None:
        fault = self.engine.fault
        lines = [{"status": f"Pulling from {name}"}]
        lines.append(
            {"error": fault.removeprefix("pull: ")} if fault.startswith("pull: ") else {"status": "Image is up to date"}
        )
        self._stream(b"".join(dump(line) + b"\r\n" for line in lines))

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _answer(self, code: int, document: object) -> None:
        content = dump(document)
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, content: bytes) -> None:
        self.send_response(200)
        if self.request_version == "HTTP/1.0":
            self.end_headers()
            self.wfile.write(content)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        fault = self.engine.fault
        half = content[: len(content) // 2] if fault in ("cut", "error in stream", "short") else content
        if fault == "error in stream":
            half += b'{"errorDetail":{"message":"write: no space left on device"},"error":"write: no space left on device"}\n'
        for begin in range(0, len(half), 700):
            piece = half[begin : begin + 700]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if fault == "cut":
            self.close_connection = True
            return
        self.wfile.write(b"0\r\n\r\n")


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Who leaves early is no error of the server's."""


@contextmanager
def serving(engine: Engine, path: Path) -> Iterator[str]:
    """Serve the engine at a socket; yields its address."""
    server = _Server(str(path), type("Handler", (_Handler,), {"engine": engine}))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"unix://{path}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Secured(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Who is not trusted, or does not trust, is no error of the server's."""


@contextmanager
def serving_tcp(engine: Engine, folder: Path | None) -> Iterator[str]:
    """Serve the engine at a port; with the certificates in `folder` (as Docker names them) by TLS, to who has one too."""
    handler = type("Handler", (_Handler,), {"engine": engine})
    server = _Secured(("127.0.0.1", 0), handler)
    if folder is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        context.load_verify_locations(folder / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def certificates(folder: Path) -> Path:
    """A CA that is its own and only certificate, for both sides, under the names that Docker uses."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    folder.mkdir()
    for file, content in (
        ("ca.pem", pem),
        ("cert.pem", pem),
        (
            "key.pem",
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        ),
    ):
        (folder / file).write_bytes(content)
    return folder


def command(path: Path) -> Path:
    """A program at `path` that is the command `docker`."""
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {Path(__file__).with_name("standin_docker.py")} "$@"\n')
    path.chmod(0o755)
    return path
