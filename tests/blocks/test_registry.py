"""Asking a registry for a tag, of a small server that speaks the distribution specification on loopback."""

import json
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from blocks.settings import ImageSourceSettings
from tasks.domain.reference import ImageReference
from tasks.images.registry import holds, presence

MANIFEST = "/v2/apinizercloud/portal/manifests/2025.04.5"
USER, PASSWORD, TOKEN = "puller", "pässword:1", "opaque-token"
BASIC = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@dataclass
class Registry:
    """Holds one tag; `guard` is "" or how it asks for a login; `wrong` is a status that it answers to everything."""

    guard: str = ""
    wrong: int = 0
    realm: str = ""
    token_field: str = "token"
    token_answer: bytes | None = None
    redirect: str = ""
    port: int = 0
    seen: list[tuple[str, str, str]] = field(default_factory=list)

    def answer(self, method: str, target: str, authorization: str, accept: str) -> tuple[int, dict[str, str], bytes]:
        self.seen.append((method, target, authorization))
        url = urlsplit(target)
        if url.path == "/token":
            return self.token(parse_qs(url.query), authorization)
        if self.wrong:
            return self.wrong, {}, b""
        if self.redirect:
            return 307, {"Location": self.redirect}, b""
        if self.guard and authorization != {"basic": BASIC, "bearer": f"Bearer {TOKEN}"}.get(self.guard):
            return 401, {"WWW-Authenticate": self.challenge()}, b""
        if "application/vnd.oci.image.index.v1+json" not in accept:
            return 404, {}, b""  # as registries answer for an index to somebody who takes no index
        return (200 if url.path == MANIFEST else 404), {}, b""

    def challenge(self) -> str:
        realm = self.realm or f"http://127.0.0.1:{self.port}/token"
        return {
            "basic": 'Basic realm="registry"',
            "bearer": f'Bearer realm="{realm}",service="registry.test",scope="repository:apinizercloud/portal:pull"',
            "strange": "Negotiate",
        }[self.guard]

    def token(self, query: dict[str, list[str]], authorization: str) -> tuple[int, dict[str, str], bytes]:
        wanted = {"service": ["registry.test"], "scope": ["repository:apinizercloud/portal:pull"]}
        if query != wanted or authorization not in ("", BASIC):
            return 403, {}, b""
        body = self.token_answer if self.token_answer is not None else json.dumps({self.token_field: TOKEN}).encode()
        return 200, {"Content-Type": "application/json"}, body


Serve = Callable[..., Registry]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[ThreadingHTTPServer] = []

    def start(*, tls: ssl.SSLContext | None = None, **how: object) -> Registry:
        state = Registry(**how)  # type: ignore[arg-type]

        class Handler(BaseHTTPRequestHandler):
            def _reply(self) -> None:
                status, headers, body = state.answer(
                    self.command, self.path, self.headers.get("Authorization", ""), self.headers.get("Accept", "")
                )
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET = _reply  # noqa: N815 - the names that the base class calls

            def log_message(self, *_: object) -> None:
                """Nothing: the test says what it needs to say."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        state.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        return state

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def settings(**given: object) -> ImageSourceSettings:
    return ImageSourceSettings.model_validate({"insecure": True, **given})


LOGIN = {"user": USER, "password": SecretStr(PASSWORD)}


def portal(port: int, tag: str = "2025.04.5") -> ImageReference:
    return ImageReference.parse(f"127.0.0.1:{port}/apinizercloud/portal:{tag}")


def test_a_tag_that_is_there_and_one_that_is_not(serve: Serve) -> None:
    there = serve()
    assert holds(portal(there.port), settings()) is True
    assert holds(portal(there.port, "2025.04.05"), settings()) is False
    assert {(method, login) for method, _, login in there.seen} == {("HEAD", "")}


@pytest.mark.parametrize("status", [400, 403, 429, 500, 503])
def test_another_answer_is_no_answer(serve: Serve, status: int) -> None:
    assert holds(portal(serve(wrong=status).port), settings()) is None


def test_a_basic_login(serve: Serve) -> None:
    there = serve(guard="basic")
    assert holds(portal(there.port), settings(**LOGIN)) is True
    assert holds(portal(there.port, "1"), settings(**LOGIN)) is False
    assert there.seen[0][2] == "", "the password is sent to who asks for it only"
    assert holds(portal(there.port), settings()) is None
    assert holds(portal(there.port), settings(user=USER, password="wrong")) is None


@pytest.mark.parametrize("token_field", ["token", "access_token"])
def test_a_token_service(serve: Serve, token_field: str) -> None:
    there = serve(guard="bearer", token_field=token_field)
    assert holds(portal(there.port), settings()) is True, "anonymously, as at Docker Hub"
    assert holds(portal(there.port), settings(**LOGIN)) is True
    assert holds(portal(there.port, "1"), settings(**LOGIN)) is False
    assert holds(portal(there.port), settings(user=USER, password="wrong")) is None
    logins = [login for _, target, login in there.seen if target.startswith("/token")]
    assert logins[:3] == ["", BASIC, BASIC]


@pytest.mark.parametrize("answer", [b"", b"no json", b"{}"])
def test_a_token_service_that_gives_none(serve: Serve, answer: bytes) -> None:
    assert holds(portal(serve(guard="bearer", token_answer=answer).port), settings()) is None


def test_a_token_that_is_not_accepted(serve: Serve) -> None:
    there = serve(guard="bearer", token_answer=b'{"token": "another"}')
    assert holds(portal(there.port), settings()) is None


@pytest.mark.parametrize(
    ("guard", "realm"), [("strange", ""), ("bearer", "nonsense"), ("bearer", "http://127.0.0.1:1/token")]
)
def test_a_challenge_that_cannot_be_met(serve: Serve, guard: str, realm: str) -> None:
    assert holds(portal(serve(guard=guard, realm=realm).port), settings(**LOGIN)) is None


def test_a_redirect_is_followed_without_the_login(serve: Serve) -> None:
    other = serve()
    there = serve(redirect=f"http://127.0.0.1:{other.port}{MANIFEST}")
    assert holds(portal(there.port), settings(**LOGIN)) is True
    assert [login for *_, login in other.seen] == [""]


def test_nobody_listens() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert holds(portal(closed.getsockname()[1]), settings()) is None


def test_somebody_listens_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert holds(portal(silent.getsockname()[1]), settings()) is None


def test_somebody_else_listens(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def speak() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        threading.Thread(target=speak, daemon=True).start()
        assert holds(portal(other.getsockname()[1]), settings()) is None


def test_a_name_that_nobody_knows() -> None:
    assert holds(ImageReference.parse("registry.invalid:5000/apinizercloud/portal:1"), settings()) is None


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 with its key, that only who is told trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "registry.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(made.public_bytes(pem) + private)
    return path


def test_tls_is_trusted_by_its_ca_alone(serve: Serve, certificate: Path, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    there = serve(tls=context)
    trusting = ImageSourceSettings(ca_file=str(certificate))
    assert holds(portal(there.port), trusting) is True
    assert holds(portal(there.port, "1"), trusting) is False
    assert holds(portal(there.port), ImageSourceSettings()) is None
    assert holds(portal(there.port), ImageSourceSettings(ca_file=str(tmp_path / "nowhere.pem"))) is None


def test_plain_http_only_where_it_is_allowed(serve: Serve) -> None:
    there = serve(guard="basic")
    secure = ImageSourceSettings(user=USER, password=SecretStr(PASSWORD))
    assert holds(portal(there.port), secure) is None
    assert there.seen == []
