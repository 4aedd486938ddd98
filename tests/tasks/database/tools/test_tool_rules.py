"""The pure rules of the other engine, as tables: which engine, the tool's URI and options, its lines, its failures."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.database.engine import Engine, EngineFacts, choose, native_limit
from tasks.database.scope import Scope
from tasks.database.server_version import numbers
from tasks.database.tools.address import config
from tasks.database.tools.address import parse as parse_uri
from tasks.database.tools.failure import Ended, explain, host_of
from tasks.database.tools.job import _SCRIPT, wrapped
from tasks.database.tools.options import dump_options, restore_options
from tasks.database.tools.told import parse
from tasks.domain import errors

TABLES = Path(__file__).with_name("tables")
SECRET = "s3cr3t-p@ss"


def table(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load((TABLES / f"{name}.yaml").read_text(encoding="utf-8")))


@pytest.mark.parametrize("case", table("choices"), ids=str)
def test_engine(case: dict[str, Any]) -> None:
    facts = EngineFacts(
        ssh=case.get("ssh", ""),
        here=case.get("here", ""),
        there=case.get("there", ""),
        reachable=not case.get("unreachable"),
        native_cannot=case.get("cannot", ""),
    )
    scope = Scope(databases=tuple(case.get("databases", ())), left_out=tuple(case.get("left_out", ())))
    if "error" in case:
        with pytest.raises(getattr(errors, case["error"])) as caught:
            choose(Engine(case["wish"]), facts, scope)
        assert caught.value.observed
        assert caught.value.next
        return
    choice = choose(Engine(case["wish"]), facts, scope)
    assert (choice.engine, choice.where) == (case["becomes"], case.get("where", "local"))
    assert choice.reason.endswith(".") or choice.reason == case.get("cannot")


def test_a_restore_has_no_scope_that_could_be_too_much() -> None:
    assert choose(Engine.MONGODUMP, EngineFacts(here="100.9.4")).engine is Engine.MONGODUMP


def test_only_a_new_server_keeps_time_series_otherwise() -> None:
    assert native_limit("8.3.1", ["collection", "timeseries"])
    assert not native_limit("8.2.9", ["collection", "timeseries"])
    assert not native_limit("8.3.1", ["collection", "view"])
    assert numbers("r100.9.4-2-gabc") == (100, 9, 4)
    assert numbers("built-without-version-string") == ()


@pytest.mark.parametrize("case", table("addresses"), ids=lambda case: case["uri"])
def test_address(case: dict[str, Any]) -> None:
    if "error" in case:
        with pytest.raises(getattr(errors, case["error"])):
            parse_uri(case["uri"])
        return
    address = parse_uri(case["uri"])
    assert address.uri(set_name=case.get("set_name", "")) == case["becomes"]
    assert address.password == case.get("password", address.password)
    written = yaml.safe_load(config(address, set_name=case.get("set_name", "")))
    assert written == {"uri": case["becomes"]}


def test_files_of_this_machine_are_known() -> None:
    address = parse_uri("mongodb://db1/?tls=true&tlsCAFile=/etc/ca.pem&tlsCertificateKeyFile=/etc/me.pem")
    assert address.files() == ["/etc/ca.pem", "/etc/me.pem"]
    assert parse_uri("mongodb://u:p%40ss@db1/?tlsCertificateKeyFilePassword=pw").secrets
    assert {"p@ss", "p%40ss"} <= set(parse_uri("mongodb://u:p%40ss@db1").secrets)


@pytest.mark.parametrize(
    ("hosts", "own"),
    [
        ("localhost", True),
        ("127.0.0.1:25080", True),
        ("[::1]:25080", True),
        ("db1:25080", False),
        ("db1,localhost", True),
    ],
)
def test_loopback(hosts: str, *, own: bool) -> None:
    assert parse_uri(f"mongodb://{hosts}/").loopback is own


@pytest.mark.parametrize("case", table("told"), ids=lambda case: case["line"][-50:])
def test_line(case: dict[str, Any]) -> None:
    told = parse(case["line"])
    assert (None if told is None else {"kind": type(told).__name__, **asdict(told)}) == case["told"]


@pytest.mark.parametrize("case", table("failures"), ids=lambda case: case["name"])
def test_failure(case: dict[str, Any]) -> None:
    ended = Ended(
        case.get("program", "mongodump"),
        case.get("code", 1),
        case["lines"],
        "db1:25080",
        case.get("ssh", ""),
        [SECRET, "s3cr3t-p%40ss"],
    )
    error = explain(ended, safe="All is well.")
    assert type(error).__name__ == case["error"]
    assert error.safe == "All is well."
    assert error.next
    for words in case.get("holds", []):
        assert words in str(error)
    for hidden in ("s3cr3t", "apinizer:", "mongodb://"):
        assert hidden not in str(error)


def test_a_secret_too_short_to_be_found_hides_every_line() -> None:
    error = explain(Ended("mongodump", 1, ["Failed: odd words"], "db1", secrets=["pw"]), safe="")
    assert "odd" not in str(error)


def test_options_of_a_dump() -> None:
    assert dump_options(Scope(), gzip=True, oplog=True) == ["--archive", "--gzip", "--oplog"]
    found = dump_options(Scope.of("a", left_out=("log", "a.audit")), gzip=False, oplog=True)
    assert found[:4] == ["--archive", "--db=a", "--excludeCollection=log", "--excludeCollection=audit"]
    assert "--oplog" not in found
    with pytest.raises(errors.UsageError, match="mongodump cannot take"):
        dump_options(Scope(databases=("a", "b")), gzip=False, oplog=False)


def test_options_of_a_restore_mean_the_names_alone() -> None:
    found = restore_options([("x*y", "x*y"), (r"a\b", "c")], source="s", target="s", gzip=True)
    assert found[:4] == ["--archive", "--drop", "--stopOnError", "--gzip"]
    assert found[4:] == [r"--nsInclude=s.x\*y", r"--nsInclude=s.a\\b", r"--nsFrom=s.a\\b", "--nsTo=s.c"]


def test_a_destination_is_never_an_option_of_ssh() -> None:
    for destination in ("-oProxyCommand=true", "", " ", "db1 rm"):
        if destination:
            with pytest.raises(errors.UsageError):
                wrapped("true", [], destination)
    assert host_of("ssh://root@db1:2222") == "[db1]:2222"
    assert host_of("root@db1") == "db1"


def test_what_ssh_gets_is_one_line_that_every_login_shell_reads_alike() -> None:
    assert not set(_SCRIPT) & set("'\\\n")
    assert all(part.startswith(" ") for part in _SCRIPT.split("!")[1:])
    command = wrapped(_SCRIPT, ["1", "0", "mongodump", "--db=o'hara"], "db1")[-1]
    assert shlex.split(command)[1:3] == ["sh", "-c"]
    assert shlex.split(command)[-1] == "--db=o'hara"
