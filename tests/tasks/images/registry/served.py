"""A registry that speaks the distribution specification over real HTTP(S) on loopback, with faults to order.

    with served(auth="token") as registry:
        made = registry.put_image("apinizercloud/worker:1", [b"layer one", b"layer two"])
        ...  # registry.host, registry.name("apinizercloud/worker:1"), registry.ca_file, USER and PASSWORD

It answers as Docker's registry 2.8 does where the specification leaves room.
"""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path

from tests.tasks.images.registry.handler import Handler
from tests.tasks.images.registry.state import (
    DOCKER,
    DOCKER_LIST,
    OCI,
    OCI_INDEX,
    PASSWORD,
    USER,
    Faults,
    Made,
    Ordered,
    Served,
    sha256,
)

__all__ = [
    "DOCKER",
    "DOCKER_LIST",
    "OCI",
    "OCI_INDEX",
    "PASSWORD",
    "USER",
    "Faults",
    "Made",
    "Ordered",
    "Served",
    "certificate",
    "served",
    "sha256",
]


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
    handler = type("Handler", (Handler,), {"state": state})
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
