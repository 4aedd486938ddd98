"""Real servers for the database tests: SecantusDB, which speaks MongoDB's wire protocol, in processes of their own."""

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import quote

import bson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pymongo import MongoClient

from tasks.database.archive.format import CollectionEntry, Header, Namespace
from tasks.database.archive.metadata import CollectionMetadata
from tasks.database.archive.writer import ArchiveWriter

ODD_PASSWORD = "p%40ss w:rd/ü?#[]@x"


@contextmanager
def _server(storage: str, port: int, *options: str, asked: str = "", pids: list[int] | None = None) -> Iterator[str]:
    program = Path(sys.executable).with_name("secantusd-py")
    if not program.exists():
        pytest.skip("SecantusDB is not installed (extra `sandbox`)")
    command = [str(program), "--host", "127.0.0.1", "--port", str(port), "--storage-path", storage]
    process = subprocess.Popen([*command, "--log-level", "ERROR", *options], stdout=subprocess.DEVNULL)
    if pids is not None:
        pids.append(process.pid)
    try:
        address = f"127.0.0.1:{port}"
        with MongoClient[dict[str, Any]](
            f"mongodb://{address}/?directConnection=true{asked}", serverSelectionTimeoutMS=60_000
        ) as client:
            client.admin.command("hello")
        yield address
    finally:
        process.send_signal(signal.SIGCONT)  # A test may have made it silent.
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:  # Connections that nobody closed hold it up.
            process.kill()
            process.wait(10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server without login; on the disk, for one in memory runs out of it, its oplog keeps all that was written."""
    storage = tmp_path_factory.mktemp("open")
    with _server(str(storage), _free_port()) as address:
        yield f"mongodb://{address}/?directConnection=true"
    shutil.rmtree(storage, ignore_errors=True)


@pytest.fixture
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """The URI of a server for one test alone, and its process id: it may be killed."""
    storage, pids = tmp_path_factory.mktemp("mortal"), list[int]()
    with _server(str(storage), _free_port(), pids=pids) as address:
        yield f"mongodb://{address}/?directConnection=true", pids[0]


@pytest.fixture(scope="session")
def locked_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`host:port` of a server that wants a login: user `apinizer`, password ODD_PASSWORD."""
    storage, port = tmp_path_factory.mktemp("mongo"), _free_port()
    with _server(str(storage), port) as address, MongoClient[dict[str, Any]](
        f"mongodb://{address}/?directConnection=true"
    ) as client:  # fmt: skip
        client.admin.command("createUser", "apinizer", pwd=ODD_PASSWORD, roles=["root"])
        client.admin.command("createUser", "reader", pwd="reader", roles=[{"role": "read", "db": "other"}])
    with _server(str(storage), port, "--auth") as address:
        yield address
    shutil.rmtree(storage, ignore_errors=True)


@pytest.fixture(scope="session")
def tls_certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of 127.0.0.1 and, in the same file, its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    pem = serialization.Encoding.PEM
    path.write_bytes(
        certificate.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@pytest.fixture(scope="session")
def tls_address(tls_certificate: Path) -> Iterator[str]:
    """`host:port` of a server that speaks TLS only."""
    options = ("--tls-cert-file", str(tls_certificate), "--tls-key-file", str(tls_certificate))
    with _server(":memory:", _free_port(), *options, asked=f"&tls=true&tlsCAFile={tls_certificate}") as address:
        yield address


@pytest.fixture
def login(locked_address: str) -> Callable[[str, str], str]:
    """A URI of the locked server for a user and a password."""

    def made(user: str = "apinizer", password: str = ODD_PASSWORD) -> str:
        return f"mongodb://{quote(user, safe='')}:{quote(password, safe='')}@{locked_address}/?authSource=admin&directConnection=true"

    return made


@pytest.fixture
def client(uri: str) -> Iterator[MongoClient[dict[str, Any]]]:
    """A client of the server without login; databases of other tests are gone."""
    with MongoClient[dict[str, Any]](uri) as found:
        for name in found.list_database_names():
            if name not in {"admin", "config", "local"}:
                found.drop_database(name)
        yield found


Archive = Callable[..., bytes]


class Bytes(list[bytes]):
    """A sink that keeps what it gets."""

    def write(self, data: bytes) -> None:
        self.append(data)


@pytest.fixture(scope="session")
def archive() -> Archive:
    """Makes the bytes of an archive: `archive({"name": [document, …]}, turns=…)` with `db` as its database."""

    def made(contents: dict[str, Iterable[dict[str, Any]]], *, rounds: int = 1) -> bytes:
        sink = Bytes()
        names = [Namespace("db", name) for name in contents]
        index = {"v": 2, "key": {"_id": 1}, "name": "_id_"}
        entries = [
            CollectionEntry(n, CollectionMetadata(n.collection, "collection", "", {}, (index,)).encode(), "collection")
            for n in names
        ]
        writer = ArchiveWriter(sink, Header("8.0.4", "test", len(names) if rounds > 1 else 1), entries)
        raws = {n: [bson.encode(d) for d in contents[n.collection]] for n in names}
        for turn in range(rounds):
            for n in names:
                if turn == 0:
                    writer.begin(n)
                run = raws[n][turn::rounds]
                writer.documents(n, b"".join(run), len(run))
                if rounds == 1:
                    writer.end(n)
        if rounds > 1:
            for n in names:
                writer.end(n)
        writer.close()
        return b"".join(sink)

    return made
