"""Which images exist, what runs in them, and what each node holds."""

from __future__ import annotations

import hashlib
import re
import socket
from dataclasses import dataclass
from typing import Any

from deployments.sandbox.faults import Faults
from deployments.sandbox.resources import NODES
from deployments.sandbox.store import Store, editable

JsonObject = dict[str, Any]

# Release to its repositories: the portal and the manager were renamed on the way.
RELEASES: dict[str, tuple[str, ...]] = {
    "2025.04.3": ("manager", "worker", "cache", "portal", "integration"),
    "2025.07.0": ("manager", "worker", "cache", "apiportal", "integration"),
    "2025.08.0": ("manager", "worker", "cache", "apiportal", "integration"),
    "2025.11.1": ("apimanager", "worker", "cache", "apiportal", "integration"),
}
PAUSE = "docker.io/realcluster/pause:1"
_HOST = re.compile(r"^(localhost|[a-zA-Z0-9-]+(\.[a-zA-Z0-9-]+)+|[a-zA-Z0-9.-]+:\d+)$")
_PATH = re.compile(
    r"^(?P<path>[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?$"
)


@dataclass(frozen=True, slots=True)
class Program:
    """What an image runs: a component of a release, or `pause`, or `exit` (ends at once with 0)."""

    component: str
    version: str


class PullError(Exception):
    """An image cannot be had; the message is the container runtime's."""


def normalise(image: str) -> str | None:
    """The full name (`docker.io/apinizercloud/worker:2025.04.3`) of an image as written; None when it is no name."""
    host, _, rest = image.partition("/")
    if not rest or not _HOST.match(host):
        host, rest = "docker.io", image
    found = _PATH.match(rest)
    if not found:
        return None
    path = found["path"]
    if host == "docker.io" and "/" not in path:
        path = f"library/{path}"
    name = f"{host}/{path}"
    if found["digest"]:
        return f"{name}@{found['digest']}"
    return f"{name}:{found['tag'] or 'latest'}"


def digest_of(full: str) -> str:
    """The manifest digest: the same content, whatever registry it comes from."""
    return "sha256:" + hashlib.sha256("/".join(full.rsplit("/", 2)[-2:]).encode()).hexdigest()


def program_of(full: str) -> Program | None:
    """What a full image name runs, by its last path element and tag; None when no registry has it."""
    if full == PAUSE:
        return Program("pause", "1")
    repository, _, tag = full.rsplit("/", 1)[-1].partition(":")
    if tag in RELEASES and repository in RELEASES[tag]:
        return Program(repository, tag)
    for version, repositories in RELEASES.items():
        for one in repositories:
            base = full.partition("@")[0].rsplit("/", 1)[0]
            if (
                "@" in full
                and full.rsplit("/", 1)[-1].startswith(f"{one}@")
                and full.endswith(digest_of(f"{base}/{one}:{version}"))
            ):
                return Program(one, version)
    if full.rsplit("/", 1)[-1].startswith("busybox"):
        return Program("exit", "1")
    return None


def entry(full: str) -> JsonObject:
    """An image as `node.status.images` lists it."""
    name = full.partition("@")[0].rpartition(":")[0] if "@" not in full else full.partition("@")[0]
    names = [f"{name}@{digest_of(full)}", full] if "@" not in full else [full]
    return {"names": names, "sizeBytes": 700_000 if full == PAUSE else 48_234_496 + int(digest_of(full)[7:12], 16)}


def _listens(host: str) -> bool:
    """Whether a registry on loopback is there at all."""
    name, _, port = host.partition(":")
    try:
        socket.create_connection((name, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


class NodeImages:
    """The images of the nodes, kept where the real ones are seen: in `status.images`."""

    def __init__(self, store: Store, faults: Faults) -> None:
        self._store, self._faults = store, faults

    def holds(self, node: str, full: str) -> bool:
        found = self._store.get(NODES, "", node)
        return found is not None and any(full in one["names"] for one in found["status"].get("images") or [])

    def pull(self, node: str, image: str, full: str) -> None:
        """Bring an image to a node; raises PullError with containerd's words when that cannot be."""
        host = full.split("/", 1)[0]
        failed = f'rpc error: code = Unknown desc = failed to pull and unpack image "{full}": failed to resolve reference "{full}": '
        if "*" in self._faults.unreachable_registries or host in self._faults.unreachable_registries:
            server = "registry-1.docker.io" if host == "docker.io" else host
            path, _, tag = full.split("/", 1)[1].rpartition(":")
            raise PullError(
                f'{failed}failed to do request: Head "https://{server}/v2/{path}/manifests/{tag}": dial tcp: lookup {server.split(":")[0]}: no such host'
            )
        if host.startswith(("127.0.0.1:", "localhost:")) and not _listens(host):
            path, _, tag = full.split("/", 1)[1].rpartition(":")
            raise PullError(
                f'{failed}failed to do request: Head "http://{host}/v2/{path}/manifests/{tag}": dial tcp {host}: connect: connection refused'
            )
        missing = self._faults.missing_images.get(image, self._faults.missing_images.get(full))
        if program_of(full) is None or (missing is not None and (not missing or node in missing)):
            raise PullError(
                f'rpc error: code = NotFound desc = failed to pull and unpack image "{full}": failed to resolve reference "{full}": {full}: not found'
            )
        self.add(node, full)

    def add(self, node: str, full: str) -> None:
        if not self.holds(node, full):
            self._store.edit(NODES, "", node, lambda one: one["status"].setdefault("images", []).append(entry(full)))

    def remove(self, node: str, full: str) -> None:
        def write(one: JsonObject) -> None:
            one["status"]["images"] = [
                entry for entry in editable(one["status"].get("images") or []) if full not in entry["names"]
            ]

        self._store.edit(NODES, "", node, write)
