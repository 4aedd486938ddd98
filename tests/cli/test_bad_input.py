"""Bad input: the right exit code, an error in four parts, no secret, no traceback, and nothing changed."""

import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, Ran, four_parts
from tests.flows.world import NEW, OLD, World


@pytest.fixture
def unchanged(world: World, tmp_path: Path) -> Iterator[Callable[[Ran, int], str]]:
    """Judge how a command ended: `unchanged(ran, exit_code)` is its text."""
    before = world.written()

    def judge(ran: Ran, code: int) -> str:
        assert ran.code == code, ran
        four_parts(ran.err)
        assert not any(secret in ran.out + ran.err for secret in world.secrets())
        return ran.err

    yield judge
    assert world.written() == before
    assert list(tmp_path.rglob("*.archive*")) == []


Judge = Callable[[Ran, int], str]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        pytest.param(("--to", "newest"), 2, "newest", id="no version"),
        pytest.param(("--to", ""), 2, "version", id="empty version"),
        pytest.param(("--to", "2025.04.1"), 3, "downgrad", id="lower version"),
        pytest.param(("--to", "2024.01.6"), 3, "downgrad", id="older line"),
        pytest.param(("--to", NEW, "--environments", "stage"), 2, "stage", id="unknown environment"),
        pytest.param(("--to", NEW, "--parallel", "0"), 2, "--parallel", id="nothing in parallel"),
        pytest.param(("--to", NEW, "--timeout", "-5"), 2, "--timeout", id="negative timeout"),
        pytest.param(("--to", NEW, "--frobnicate"), 2, "--frobnicate", id="unknown option"),
        pytest.param(("--to", NEW, "--context", "nowhere"), 2, "nowhere", id="unknown context"),
        pytest.param(("--to", NEW, "--kubeconfig", "/nowhere/config"), 2, "/nowhere/config", id="no kubeconfig"),
        pytest.param(("--to", NEW, "--namespace", "default"), 1, "No Apinizer was found", id="no Apinizer there"),
        pytest.param(("--to", NEW, "--repository", "gateway=x"), 2, "gateway=x", id="unknown component"),
        pytest.param(("--to", NEW, "--image-prefix", "https://hub/x"), 2, "prefix", id="prefix with a scheme"),
        pytest.param(("--to", NEW, "--config", "/nowhere.yaml"), 2, "/nowhere.yaml", id="no config"),
        pytest.param((), 2, "--to", id="no target"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "upgrade"])
def test_arguments(cli: Cli, unchanged: Judge, command: str, arguments: tuple[str, ...], code: int, told: str) -> None:
    if command == "plan" and "--timeout" in arguments:
        pytest.skip("a plan waits for nothing")
    assert told in unchanged(cli(command, *arguments), code)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param("clusters: [{kubeconfg: x}]", "kubeconfg", id="unknown key"),
        pytest.param("databse: {}", "databse", id="unknown part"),
        pytest.param("upgrade: {parallel: none}", "parallel", id="no number"),
        pytest.param("database: {uri: 'mongodb://a:s3cr3t@b', host: c}", "not both", id="two databases"),
        pytest.param("database: {password: [s3cr3t]}", "password", id="a list for a password"),
        pytest.param("a: [b", "line", id="no YAML"),
        pytest.param("- a", "mapping", id="no mapping"),
        pytest.param("", "mapping", id="empty"),
        pytest.param("images: {kind: registry}", "prefix", id="registry without prefix"),
    ],
)
def test_a_config_that_is_wrong(cli: Cli, unchanged: Judge, tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    ran = cli("upgrade", "--to", NEW, "--config", path)
    assert told in unchanged(ran, 2)
    assert "s3cr3t" not in ran.out + ran.err


@pytest.mark.parametrize(
    "content", ["", "{", "- a", "apiVersion: v1\nkind: Config\n", "\x00\x01", "clusters: 5\nusers: []\ncontexts: []"]
)
def test_a_kubeconfig_that_is_broken(cli: Cli, unchanged: Judge, tmp_path: Path, content: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(content)
    assert str(path) in unchanged(cli("upgrade", "--to", NEW, env={"KUBECONFIG": str(path)}), 2)


def edited(world: World, path: Path, **cluster: str) -> dict[str, str]:
    """A kubeconfig like the sandbox's with another address or token."""
    config = json.loads(world.sandbox.kubeconfig.read_text())
    if token := cluster.pop("token", ""):
        config["users"][0]["user"]["token"] = token
    config["clusters"][0]["cluster"] |= cluster
    path.write_text(json.dumps(config))
    return {"KUBECONFIG": str(path)}


def test_an_api_that_refuses_connections(cli: Cli, unchanged: Judge, world: World, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    text = unchanged(cli("status", env=edited(world, tmp_path / "k", server=f"https://127.0.0.1:{port}")), 1)
    assert "could not be reached" in text


def test_an_api_that_never_answers(cli: Cli, unchanged: Judge, world: World, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hole:
        port = hole.getsockname()[1]
        begin = time.monotonic()
        unchanged(cli("status", env=edited(world, tmp_path / "k", server=f"https://127.0.0.1:{port}")), 1)
    assert time.monotonic() - begin < 60


class _Portal(http.server.BaseHTTPRequestHandler):
    """A login page, as a proxy answers everything with."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>Please log in</html>")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that the class gives
        """Not on the test's output."""


def test_an_api_that_is_something_else(cli: Cli, unchanged: Judge, world: World, tmp_path: Path) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Portal) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        text = unchanged(
            cli("status", env=edited(world, tmp_path / "k", server=f"http://127.0.0.1:{other.server_port}")), 1
        )
        other.shutdown()
    assert "not a JSON object" in text


def test_a_token_that_is_not_known(cli: Cli, unchanged: Judge, world: World, tmp_path: Path) -> None:
    env = edited(world, tmp_path / "k", token="0ther-t0ken-0f-s0meb0dy")
    ran = cli("upgrade", "--to", NEW, env=env)
    assert "refused the credentials" in unchanged(ran, 1)
    assert "0ther-t0ken" not in ran.out + ran.err


def test_who_may_do_nothing(cli: Cli, unchanged: Judge, world: World, tmp_path: Path) -> None:
    config = world.sandbox.restricted_kubeconfig(tmp_path / "k", "visitor", "", [])
    text = unchanged(cli("upgrade", "--to", NEW, env={"KUBECONFIG": str(config)}), 1)
    assert "may not" in text
    assert "kubectl auth can-i" in text


def test_a_folder_that_cannot_hold_backups(cli: Cli, unchanged: Judge, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    text = unchanged(cli("upgrade", "--yes", "--to", NEW, "--backup-dir", tmp_path / "file"), 2)
    assert "--backup-dir" in text


def test_a_wrong_password_in_the_secret(cli: Cli, unchanged: Judge, world: World) -> None:
    right = world.database_url()
    password = right.partition("://")[2].partition("@")[0].partition(":")[2]
    world.set_database_url(right.replace(password, "wr0ng-and-s3cret"))
    try:
        ran = cli("upgrade", "--yes", "--to", NEW)
        assert "wr0ng" not in ran.out + ran.err
        assert "refused the login" in unchanged(ran, 1)
    finally:
        world.set_database_url(right)


def test_images_that_are_nowhere(cli: Cli, world: World, unchanged: Judge) -> None:
    """Nothing tells beforehand that a registry lacks a tag; at least the version is one that nobody ever saw."""
    ran = cli("plan", "--to", "2025.04.5")
    assert ran.code in (0, 3)
    assert OLD in ran.out


def test_a_demonstration_of_what_there_is_not(cli: Cli, unchanged: Judge) -> None:
    assert "2024.01.6" in unchanged(cli("demo", "--from", "2024.01.6"), 2)
    assert "newest" in unchanged(cli("demo", "--to", "newest"), 2)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param("upgrade --to newest -o json", 2, id="no version"),
        pytest.param("upgrade --to 2025.04.1 --output=json", 3, id="blocked"),
        pytest.param("plan --to 2025.04.1 -ojson", 3, id="blocked plan"),
        pytest.param("status --kubeconfig /nowhere -o json", 2, id="no kubeconfig"),
        pytest.param("status --frob -o json", 2, id="unknown option"),
    ],
)
def test_an_error_as_json_is_one_document(cli: Cli, world: World, arguments: str, code: int) -> None:
    ran = cli(*arguments.split())
    document = ran.document
    assert (ran.code, document["exit_code"]) == (code, code)
    assert set(document["error"]) == {"happened", "observed", "safe", "next"}
    assert all(document["error"].values())
    assert document["error"]["happened"] in ran.err
    if code == 3:
        assert document["blocked"]
        assert [f["code"] for f in document["findings"] if f["severity"] == "blocking"] == ["downgrade"]
