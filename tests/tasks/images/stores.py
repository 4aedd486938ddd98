"""What a node's runtime does with an archive, in memory, by the rules of containerd's import and of moby's load.

Only the tool at the end of the line is replaced: what is asked, computed, written and proved is the product's own.
"""

# ruff: noqa: ARG002 -- the engine here has the whole interface and uses a part of it.

import gzip
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from tasks.domain.errors import TemporaryError, UpgradeError
from tasks.domain.reference import ImageReference
from tasks.images.containerd.listing import UNCOMPRESSED, Looked, Named
from tasks.images.containerd.target import ContainerdTarget
from tasks.images.engine import DockerNodeTarget, DockerSource
from tasks.images.engine.answers import EngineFacts, Known
from tasks.images.model import Image, Platform, digest_of
from tasks.images.remote import Host, Remote
from tasks.images.saved.v1_id import chain_ids

AMD = Platform("linux", "amd64")


class Import:
    """What is written goes to `done` when it is finished, and nowhere when it is not."""

    def __init__(self, done: Any) -> None:
        self._done = done
        self._content = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._content.clear()

    def write(self, content: bytes) -> None:
        self._content += content

    def finish(self) -> None:
        with tarfile.open(fileobj=io.BytesIO(bytes(self._content))) as archive:
            files = {}
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                assert member.name not in files, "each file once"
                files[member.name] = file.read()
        self._done(files, len(self._content))


def plain(content: bytes) -> bytes:
    """Decompressed by its first bytes, as every runtime does."""
    return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


class ContainerdStore(ContainerdTarget):
    """A node whose containerd is a dictionary (images/archive/importer.go and the unpacking after it)."""

    def __init__(self, name: str = "node-a") -> None:
        super().__init__(Remote(Host(name)), name)
        self.blobs: dict[str, bytes] = {}
        self.labels: dict[str, dict[str, str]] = {}
        self.images: dict[str, Named] = {}
        self.wire = 0

    def keep(self, images: Sequence[Image]) -> None:
        """Old: it knows no pinning."""

    def layer(self, diff_id: str) -> bytes:
        return plain(
            next(self.blobs[digest] for digest, told in self.labels.items() if told.get(UNCOMPRESSED) == diff_id)
        )

    def _look(self) -> Looked:
        small = {digest: content for digest, content in self.blobs.items() if not self.labels[digest]}
        sizes = {digest: len(content) for digest, content in self.blobs.items()}
        self._looked = Looked((1, 6), AMD, 10**12, True, dict(self.images), dict(self.labels), sizes, small)
        return self._looked

    def _importing(self) -> Any:
        return Import(self._imported)

    def _imported(self, files: dict[str, bytes], size: int) -> None:
        self.wire += size
        for name, content in files.items():
            if name not in ("oci-layout", "manifest.json"):
                self.blobs.setdefault(digest_of(content), content)
                self.labels.setdefault(digest_of(content), {})
        if json.loads(files["oci-layout"])["imageLayoutVersion"] != "1.0.0":
            raise UpgradeError("unsupported OCI version")
        for entry in json.loads(files["index.json"])["manifests"]:
            manifest = json.loads(self._there(entry))
            config = json.loads(self._there(manifest["config"]))
            for diff_id, layer in zip(config["rootfs"]["diff_ids"], manifest["layers"], strict=True):
                self._unpack(layer, diff_id)
            self.images[entry["annotations"]["io.containerd.image.name"]] = Named(entry["digest"], entry["mediaType"])

    def _there(self, descriptor: dict[str, Any]) -> bytes:
        content = self.blobs.get(descriptor["digest"])
        if content is None or len(content) != descriptor["size"]:
            raise UpgradeError(f"content digest {descriptor['digest']}: not found")
        return content

    def _unpack(self, layer: dict[str, Any], diff_id: str) -> None:
        content = self._there(layer)
        # For the OCI's types the type says how it is compressed; Docker's are looked at (images.DiffCompression).
        if layer["mediaType"].startswith("application/vnd.oci.") and content.startswith(b"\x1f\x8b") != layer[
            "mediaType"
        ].endswith("+gzip"):
            raise UpgradeError(f"{layer} is compressed otherwise")
        if digest_of(plain(content)) != diff_id:
            raise UpgradeError(f"wrong diff id calculated on extraction of {layer}")
        self.labels[layer["digest"]][UNCOMPRESSED] = diff_id


class EngineStore:
    """A Docker engine that is a dictionary (image/tarexport of moby 20.10), as source and as target."""

    def __init__(self, name: str = "node-d") -> None:
        self.where = f"Docker engine of {name}"
        self.configs: dict[str, bytes] = {}
        self.chains: dict[str, bytes] = {}
        self.tagged: dict[str, str] = {}
        self.wire = 0

    def source(self) -> DockerSource:
        source = DockerSource("unix:///nowhere.sock")
        source._engine = self
        return source

    def target(self) -> DockerNodeTarget:
        target = DockerNodeTarget(Remote(Host("node-d")), "node-d")
        target._engine = self  # type: ignore[assignment]
        return target

    def put(self, name: str, config: bytes, layers: Sequence[bytes]) -> None:
        """An image, as `docker pull` brings it."""
        diff_ids = tuple(json.loads(config)["rootfs"]["diff_ids"])
        self.chains.update(zip(chain_ids(diff_ids), layers, strict=True))
        self.configs[digest_of(config)] = config
        self.tagged[ImageReference.parse(name).normal] = digest_of(config)

    def diff_ids(self, config: str) -> tuple[str, ...]:
        return tuple(json.loads(self.configs[config])["rootfs"]["diff_ids"])

    def layer(self, diff_id: str) -> bytes:
        return next(content for content in self.chains.values() if digest_of(content) == diff_id)

    def facts(self) -> EngineFacts:
        return EngineFacts("20.10.24", "/var/lib/docker", AMD, keeps_blobs=False)

    def look(self) -> tuple[EngineFacts, int | None, tuple[Known, ...]]:
        return self.facts(), 10**12, self.known(list(self.tagged))

    def known(self, names: Sequence[str]) -> tuple[Known, ...]:
        ids = dict.fromkeys(self.tagged[name] for name in names if name in self.tagged)
        return tuple(
            Known(one, frozenset(n for n, c in self.tagged.items() if c == one), self.diff_ids(one), AMD, 1)
            for one in ids
        )

    def history(self, name: str) -> list[dict[str, Any]]:
        return []

    def tags(self, repository: str) -> tuple[str, ...]:
        return ()

    def pull(self, name: str, platform: Platform | None) -> None:
        raise TemporaryError("closed site")

    def tag(self, id: str, name: str) -> None:  # noqa: A002 -- as the engine's.
        assert id in self.configs
        self.tagged[name] = id

    @contextmanager
    def save(self, names: Sequence[str]) -> Iterator[Iterator[bytes]]:
        """In the form of Docker 25 and later: `blobs/sha256/` with plain layers, what names them last."""
        files: dict[str, bytes] = {}
        listed = []
        for name in names:
            config = self.tagged[name]
            paths = []
            for chain in chain_ids(self.diff_ids(config)):
                paths.append("blobs/sha256/" + digest_of(self.chains[chain])[7:])
                files[paths[-1]] = self.chains[chain]
            files["blobs/sha256/" + config[7:]] = self.configs[config]
            listed.append({"Config": "blobs/sha256/" + config[7:], "RepoTags": [name], "Layers": paths})
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for path, content in [*sorted(files.items()), ("manifest.json", json.dumps(listed).encode())]:
                info = tarfile.TarInfo(path)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        whole = out.getvalue()
        yield (whole[at : at + 4096] for at in range(0, len(whole), 4096))

    def load(self) -> Import:
        return Import(self._loaded)

    def _loaded(self, files: dict[str, bytes], size: int) -> None:
        self.wire += size
        for entry in json.loads(files["manifest.json"]):
            config = files[entry["Config"]]
            diff_ids = tuple(json.loads(config)["rootfs"]["diff_ids"])
            for path, diff_id, chain in zip(entry["Layers"], diff_ids, chain_ids(diff_ids), strict=True):
                if chain not in self.chains:
                    content = plain(files[path])
                    if digest_of(content) != diff_id:
                        raise UpgradeError(f"invalid diffID for layer {diff_id}")
                    self.chains[chain] = content
            self.configs[digest_of(config)] = config
            for name in entry["RepoTags"]:
                self.tagged[ImageReference.parse(name).normal] = digest_of(config)
