"""The way to the database: typed errors, and never a secret in one."""

import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from pymongo import MongoClient
from pymongo.errors import AutoReconnect, ConnectionFailure, NotPrimaryError, OperationFailure

from tasks.database.connection import explain, hosts_of, look, open_database
from tasks.domain.errors import (
    ForbiddenError,
    TemporaryError,
    UnauthorizedError,
    UpgradeError,
    UsageError,
)

Login = Callable[..., str]


def told(error: UpgradeError) -> str:
    """Everything that a log, a journal or a traceback could show of an error, but for lines of these tests."""
    frames = [frame for frame in traceback.TracebackException.from_exception(error).format() if __file__ not in frame]
    return "\n".join([str(error), repr(error), str(error.as_json()), *frames])


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_look(client: MongoClient[dict[str, Any]], uri: str) -> None:
    client["apinizerdb"]["a"].insert_many([{"_id": i} for i in range(10)])
    client["apinizerdb"].create_collection("b")
    facts = look(uri, "apinizerdb")
    assert facts.is_primary
    assert facts.exists
    assert facts.collections == 2
    assert facts.size >= 10 * 14
    assert facts.server_version[0].isdigit()


def test_look_at_a_database_that_is_not_there(client: MongoClient[dict[str, Any]], uri: str) -> None:
    facts = look(uri, "nowhere")
    assert (facts.exists, facts.size, facts.collections) == (False, 0, 0)


def test_login_with_an_odd_password(login: Login) -> None:
    assert look(login(), "apinizerdb").is_primary


ODD = ["wrong", "p%40ss", "a:b@c/d?e#f", "ü \"'", "%", "apinizer"]


@pytest.mark.parametrize("password", ODD)
def test_wrong_password(login: Login, password: str) -> None:
    with pytest.raises(UnauthorizedError) as caught:
        look(login(password=password), "apinizerdb")
    text = told(caught.value).replace(f"'{quote(password)}'", "")
    if len(password) > 1 and password != "apinizer":
        assert password not in text
    assert quote(password, safe="") not in text.replace("apinizer", "") or len(password) == 1


def test_unknown_user(login: Login) -> None:
    with pytest.raises(UnauthorizedError) as caught:
        look(login("nobody-7f3a", "x9"), "apinizerdb")
    assert "nobody-7f3a" not in told(caught.value)


def test_no_login_where_one_is_wanted(locked_address: str) -> None:
    with pytest.raises(UnauthorizedError):
        look(f"mongodb://{locked_address}/?directConnection=true", "apinizerdb")


def test_a_user_without_the_right(login: Login) -> None:
    with pytest.raises(ForbiddenError) as caught, open_database(login("reader", "reader")) as client:
        client["apinizerdb"].command({"find": "a"})
    assert caught.value.next


def test_nothing_listens() -> None:
    address = free_address()
    with pytest.raises(TemporaryError, match="refused") as caught:
        look(f"mongodb://user-7f3a:pw-55aa@{address}/?directConnection=true", "db", timeout=0.5)
    assert address in str(caught.value)
    assert "user-7f3a" not in told(caught.value)
    assert "pw-55aa" not in told(caught.value)


def test_an_unknown_host() -> None:
    with pytest.raises(TemporaryError, match="host name is not known"):
        look("mongodb://u:p@no-such-host.invalid:25080/", "db", timeout=0.5)


def test_tls_that_the_server_does_not_speak(uri: str) -> None:
    with pytest.raises(TemporaryError, match=r"TLS handshake|closed the connection|did not answer"):
        look(f"{uri}&tls=true", "db", timeout=1)


def test_a_certificate_that_is_not_trusted(tls_address: str) -> None:
    uri = f"mongodb://u:p@{tls_address}/?directConnection=true&tls=true"
    with pytest.raises(TemporaryError, match=r"TLS handshake failed .self-signed certificate"):
        look(uri, "db", timeout=3)


def test_no_tls_where_the_server_wants_it(tls_address: str) -> None:
    with pytest.raises(TemporaryError, match="closed the connection"):
        look(f"mongodb://{tls_address}/?directConnection=true", "db", timeout=3)


def test_a_certificate_that_is_trusted(tls_address: str, tls_certificate: Path) -> None:
    uri = f"mongodb://{tls_address}/?directConnection=true&tls=true&tlsCAFile={tls_certificate}"
    assert look(uri, "db").is_primary


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def take() -> None:
            try:
                while True:
                    kept.append(server.accept()[0])
            except OSError:
                return

        threading.Thread(target=take, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        for connection in kept:
            connection.close()


def test_a_server_that_never_answers(silent: str) -> None:
    with pytest.raises(TemporaryError, match="did not answer in time"):
        look(f"mongodb://{silent}/?directConnection=true", "db", timeout=0.3)


BAD_URIS = [
    "",
    "http://host",
    "mongodb://",
    "mongodb:///db",
    "mongodb://user:pa/ss-5c1e@host/",
    "mongodb://user:pa@ss-5c1e@host/",
    "mongodb://user:pa:ss-5c1e@host/",
    "mongodb://user:pa?ss-5c1e@host/",
    "mongodb://5c1e/secret@host/",
    "mongodb://user:ss-5c1e@host:port/",
    "mongodb://user:ss-5c1e@host:99999/",
    "mongodb://user:%zz5c1e@host/?authMechanism=NOT-5c1e",
    "mongodb://user:ss-5c1e@host/?tls=maybe-5c1e",
    "mongodb://user:ss-5c1e@host/?directConnection=true&replicaSet=a&loadBalanced=true",
    "user:ss-5c1e@host:25080",
]


@pytest.mark.parametrize("uri", BAD_URIS)
def test_bad_uris(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        look(uri, "db", timeout=0.3)
    assert "5c1e" not in told(caught.value)


def test_hosts_are_told_without_the_rest() -> None:
    assert hosts_of("mongodb://u:p%40@a:1,b:2/db?x=y") == "a:1,b:2"
    assert hosts_of("mongodb+srv://u:p@cluster.example.org") == "cluster.example.org"
    assert hosts_of("mongodb://a") == "a"


ERRORS = [
    (OperationFailure("secret-5c1e", 18, {"codeName": "AuthenticationFailed"}), UnauthorizedError),
    (OperationFailure("secret-5c1e", 13, {"codeName": "Unauthorized"}), ForbiddenError),
    (OperationFailure("secret-5c1e", 11600, {"codeName": "InterruptedAtShutdown"}), TemporaryError),
    (OperationFailure("secret-5c1e", 175, {"codeName": "QueryPlanKilled"}), TemporaryError),
    (OperationFailure("secret-5c1e", 59, {"codeName": "CommandNotFound", "errmsg": "5c1e"}), UpgradeError),
    (NotPrimaryError("secret-5c1e"), TemporaryError),
    (AutoReconnect("secret-5c1e: connection closed"), TemporaryError),
    (ConnectionFailure("secret-5c1e"), TemporaryError),
]


@pytest.mark.parametrize(
    ("problem", "kind"), ERRORS, ids=[str(kind.__name__) + str(i) for i, (_, kind) in enumerate(ERRORS)]
)
def test_driver_errors_become_this_projects(problem: Any, kind: type[UpgradeError]) -> None:
    error = explain(problem, "host:1")
    assert type(error) is kind
    assert "5c1e" not in told(error)
    assert "host:1" in str(error)


RIGHTS = yaml.safe_load((Path(__file__).parent / "tables" / "rights.yaml").read_text())


@pytest.mark.parametrize("case", RIGHTS, ids=[case["text"][:60] for case in RIGHTS])
def test_a_right_that_is_missing_is_named_with_its_role(case: dict[str, Any]) -> None:
    problem = OperationFailure("secret-5c1e", 13, {"codeName": "Unauthorized", "errmsg": case["text"]})
    error = explain(problem, "host:1")
    assert "5c1e" not in told(error)
    for words in case["holds"]:
        assert words in f"{error.observed} {error.next}"
