"""The process of the Kubernetes API: `python -m deployments.sandbox.serve`, started by `launch`.

It reads its orders as one JSON line on stdin and ends when stdin closes, so it never outlives its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import json
import os
import secrets
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments.sandbox.database import Database, free_port, is_installed

if TYPE_CHECKING:
    import uvicorn

JsonObject = dict[str, Any]


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate of this server's own, for loopback; clients trust it by the kubeconfig."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sandbox")])
    today = dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")])
    usage = x509.KeyUsage(
        True, False, False, False, False, True, True, False, False
    )  # Signatures, certificates, revocations.
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - dt.timedelta(days=1))
        .not_valid_after(today + dt.timedelta(days=30))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private, public = directory / "api.key", directory / "api.crt"
    private.touch(mode=0o600)
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return public, private


def write_kubeconfig(path: Path, url: str, certificate: Path, token: str) -> None:
    """A kubeconfig in JSON, which is YAML; nobody else can read it."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "sandbox",
        "clusters": [{"name": "sandbox", "cluster": {"server": url, "certificate-authority": str(certificate)}}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": "admin"}}],
    }
    partial = path.with_suffix(".partial")
    partial.touch(mode=0o600)
    partial.write_text(json.dumps(config, indent=1))
    partial.replace(path)


class Server:
    """uvicorn, with a listening socket that can be closed and opened again on the same port."""

    def __init__(self, orders: JsonObject, database: Database) -> None:
        self._orders, self._database = orders, database
        self._config: uvicorn.Config
        self._server: uvicorn.Server
        self._port = 0

    async def run(self) -> None:
        preparing = asyncio.create_task(self._database.prepare(self._orders["version"]))
        await asyncio.sleep(0)
        import uvicorn

        from deployments.sandbox.api import Api
        from deployments.sandbox.cluster import Cluster
        from deployments.sandbox.control import Control
        from deployments.sandbox.world import Installation

        orders, directory = self._orders, Path(self._orders["directory"])
        cluster = Cluster(orders["token"], float(orders["speed"]))
        cluster.start(Installation(orders["version"], self._database.uri, orders["prefix"]))
        public, private = await asyncio.to_thread(make_certificate, directory)
        self._config = uvicorn.Config(
            Api(cluster, Control(cluster, self._database, self.go_down)),
            log_level="critical",
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=75,
            ssl_certfile=str(public),
            ssl_keyfile=str(private),
        )
        self._server = uvicorn.Server(self._config)
        self._server.config.load()
        listener = _listen(0)
        self._port = listener.getsockname()[1]
        self._server.lifespan = self._config.lifespan_class(self._config)
        await self._server.startup(sockets=[listener])
        url = f"https://127.0.0.1:{self._port}"
        write_kubeconfig(directory / "kubeconfig", url, public, orders["token"])
        print(json.dumps({"url": url, "mongo_uri": self._database.uri}), flush=True)
        await preparing
        print(json.dumps({"database": True}), flush=True)
        await self._server.main_loop()

    async def go_down(self, seconds: float) -> None:
        """Refuse connections and break those that are open, for so long."""
        for listening in self._server.servers:
            listening.close()
        for connection in list(self._server.server_state.connections):
            if transport := getattr(connection, "transport", None):
                transport.abort()
        await asyncio.sleep(seconds)
        self._server.servers = []
        await self._server.startup(sockets=[_listen(self._port)])


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(2048)
    listener.setblocking(False)
    return listener


def _end_with_parent(database: Database) -> None:
    """Read stdin until it closes: the parent is gone, or wants this to end."""
    while sys.stdin.read(1):
        pass
    database.kill()
    os._exit(0)


def main() -> None:
    orders = json.loads(sys.stdin.readline())
    if not is_installed():
        print(
            json.dumps({"error": 'the sandbox\'s database is not installed: pip install "apinizer-upgrade[sandbox]"'}),
            flush=True,
        )
        return
    database = Database(Path(orders["directory"]), free_port(), secrets.token_hex(12))
    database.start(auth=False)
    threading.Thread(target=_end_with_parent, args=(database,), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(Server(orders, database).run())


if __name__ == "__main__":
    main()
