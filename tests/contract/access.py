"""Where the API server is and how to be let in: the little of a kubeconfig that these tests need."""

import base64
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Access:
    """An API server's address, the bearer token of an identity (None: anonymous) and what its certificate is checked by."""

    server: str
    token: str | None
    tls: ssl.SSLContext | bool

    def as_identity(self, token: str | None) -> "Access":
        """The same server for the bearer of another token, or for nobody in particular."""
        return Access(self.server, token, self.tls)


def read_kubeconfig(path: str | Path) -> Access:
    """The current context of one kubeconfig file; relative file names in it are relative to its folder."""
    base = Path(path).resolve().parent
    config: dict[str, Any] = yaml.safe_load(Path(path).read_text())
    context = _named(config["contexts"], config["current-context"])["context"]
    cluster = _named(config["clusters"], context["cluster"])["cluster"]
    user = _named(config["users"], context["user"])["user"]
    token = user.get("token")
    if token is None and "tokenFile" in user:
        token = (base / user["tokenFile"]).read_text().strip()
    return Access(cluster["server"].rstrip("/"), token, _trust(cluster, base))


def kubeconfig_from_environment() -> Path:
    """The first file that ``$KUBECONFIG`` names."""
    return Path(os.environ["KUBECONFIG"].split(os.pathsep)[0])


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)


def _trust(cluster: dict[str, Any], base: Path) -> ssl.SSLContext | bool:
    if cluster.get("insecure-skip-tls-verify"):
        return False
    if data := cluster.get("certificate-authority-data"):
        return ssl.create_default_context(cadata=base64.b64decode(data).decode())
    if file := cluster.get("certificate-authority"):
        return ssl.create_default_context(cafile=str(base / file))
    return True
