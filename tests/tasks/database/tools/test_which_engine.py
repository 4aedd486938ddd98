"""A backup and a restore go to the engine that was asked for, or to the one that can."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pymongo import MongoClient

from tasks.cluster.database_secret import DatabaseAddress
from tasks.database.archive.format import Namespace
from tasks.database.backing_up import choose_engine, make_backup
from tasks.database.order import BackupOrder
from tasks.database.proof import prove
from tasks.database.putting_back import find_restorer, put_back, what_stands_against, with_remarks
from tasks.database.restore.plan import Action, Refusal, RestorePlan, RestoreRequest, Verb
from tasks.domain.errors import BlockedError, TemporaryError, UsageError
from tests.tasks.database.tools.conftest import Installed

DB = "apinizerdb"
Client = MongoClient[dict[str, Any]]


@pytest.fixture
def address(client: Client, uri: str) -> DatabaseAddress:
    client[DB].things.insert_many([{"_id": n} for n in range(50)])
    return DatabaseAddress(SecretStr(uri), DB, "the test")


def plan(*reasons: str, verb: Verb | None = None) -> RestorePlan:
    """A plan with these reasons against it, in their order, and a collection that is done so."""
    against = [
        Refusal(kind="blocked", happened=one, needs_safety=one == "safety", native_only=one == "native")
        for one in reasons
    ]
    return RestorePlan(
        archive="a",
        database=DB,
        source_database=DB,
        actions=(Action(verb=verb, target=Namespace(DB, "c")),) if verb else (),
        refused=next(iter(against), None),
        native_only=next((one for one in against if one.native_only), None),
    )


@pytest.mark.parametrize(("engine", "taken"), [("auto", "native"), ("native", "native"), ("mongodump", "mongodump")])
def test_as_it_was_asked_for(
    address: DatabaseAddress, tools: Installed, tmp_path: Path, engine: str, taken: str
) -> None:
    order = BackupOrder.model_validate({"directory": str(tmp_path), "engine": engine})
    told: list[str] = []
    evidence = make_backup(address, order, "2025.04.3", say=told.append)
    assert (evidence.manifest.engine, evidence.manifest.database) == (taken, DB)
    assert tools.started is (taken == "mongodump")
    assert bool(told) is (taken == "mongodump")
    assert prove(evidence.archive).documents == 50


def test_a_tool_that_is_not_installed(
    address: DatabaseAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    if any(Path(folder, "mongodump").exists() for folder in ("/usr/bin", "/bin")):
        pytest.skip("mongodump is installed here")
    with pytest.raises(UsageError, match="mongodump cannot"):
        make_backup(address, BackupOrder(directory=str(tmp_path), engine="mongodump"), "1")
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_away_is_the_tools_only_where_a_machine_is_named(tools: Installed, tmp_path: Path) -> None:
    away = DatabaseAddress(SecretStr("mongodb://127.0.0.1:1/?directConnection=true"), DB, "the test")
    with pytest.raises(TemporaryError):
        choose_engine(away, BackupOrder(directory=str(tmp_path)))


def test_a_collection_left_out_of_the_whole_server_is_no_tools_work(address: DatabaseAddress, tools: Installed) -> None:
    order = BackupOrder(whole_server=True, leave_out=(f"{DB}.things",))
    assert choose_engine(address, order)[1] is None
    with pytest.raises(UsageError):
        choose_engine(address, order.model_copy(update={"engine": "mongodump"}))


@pytest.mark.parametrize(
    ("reasons", "engine", "safety_comes", "against"),
    [
        ([], "auto", False, ""),
        (["x"], "auto", True, "x"),
        (["x", "safety", "native"], "auto", True, "x"),
        (["safety"], "auto", True, ""),
        (["safety"], "auto", False, "safety"),
        (["native"], "auto", False, ""),
        (["native"], "mongodump", False, ""),
        (["native"], "native", True, "native"),
        (["safety", "native"], "auto", True, ""),
        (["safety", "native"], "auto", False, "safety"),
        (["safety", "native"], "native", True, "native"),
    ],
)
def test_what_stands_against_a_restore(
    reasons: list[str],
    engine: str,
    safety_comes: bool,  # noqa: FBT001
    against: str,
) -> None:
    found = what_stands_against(plan(*reasons), engine, safety_comes=safety_comes)
    assert (found.happened if found else "") == against


def test_what_is_to_be_known_of_the_way_is_in_the_plan(tools: Installed) -> None:
    def told(found: RestorePlan, engine: str, *, safety_comes: bool) -> str:
        return " ".join(with_remarks(found, engine, "", safety_comes=safety_comes).sentences)

    assert told(plan(verb=Verb.REPLACE), "auto", safety_comes=True) == ""
    assert "in place" in told(plan(verb=Verb.REPLACE), "mongodump", safety_comes=True)
    chosen = told(plan("safety", "native", verb=Verb.DROP), "auto", safety_comes=True)
    assert "mongorestore 100" in chosen
    assert "the merge replaces" in told(plan(verb=Verb.MERGE), "auto", safety_comes=False)
    assert "gone for good" in told(plan(verb=Verb.REPLACE), "auto", safety_comes=False)
    assert told(plan(verb=Verb.CREATE), "auto", safety_comes=False) == ""


@pytest.mark.parametrize(
    ("archive", "manager", "told"),
    [
        ("2025.11.1", "2025.04.3", True),
        ("2025.04.3", "2025.04.3", False),
        ("", "2025.04.3", False),
        ("2025.04.3", "unknown", False),
    ],
)
def test_data_of_another_version_than_the_managers_is_told(archive: str, manager: str, *, told: bool) -> None:
    found = plan(verb=Verb.REPLACE).model_copy(update={"version": archive})
    sentences = with_remarks(found, "native", "", safety_comes=True, version=manager).sentences
    assert any("does not start with that of a newer one" in one for one in sentences) is told


def test_who_restores(tools: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_restorer("auto", "", plan()) is None
    assert find_restorer("native", "", plan("native")) is None
    for engine, against in (("mongodump", plan()), ("auto", plan("native")), ("auto", plan("safety", "native"))):
        tool = find_restorer(engine, "", against)
        assert tool is not None
        assert tool.program == "mongorestore"
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    if any(Path(folder, "mongorestore").exists() for folder in ("/usr/bin", "/bin")):
        return
    with pytest.raises(BlockedError, match="Neither"):
        find_restorer("auto", "", plan("native"))


@pytest.mark.parametrize("engine", ["native", "mongodump"])
def test_either_puts_back_what_the_other_took(
    address: DatabaseAddress, client: Client, tools: Installed, tmp_path: Path, engine: str
) -> None:
    other = "native" if engine == "mongodump" else "mongodump"
    taken = make_backup(address, BackupOrder.model_validate({"directory": str(tmp_path), "engine": other}), "1")
    client[DB].things.delete_many({"_id": {"$lt": 20}})
    safety = make_backup(address, BackupOrder(directory=str(tmp_path)), "2").archive
    prove(safety)
    evidence = put_back(
        address.uri,
        taken.archive,
        RestoreRequest(database=DB),
        find_restorer(engine, "", plan()),
        guard=lambda: None,
        safety=safety,
        progress=lambda _: None,
        stop=lambda: False,
    )
    assert evidence.replaced == ("things",)
    assert client[DB].things.count_documents({}) == 50
