"""`rollback` as people run it: one sandbox whose upgrade failed, tests that follow each other."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.sandbox.launch import Sandbox
from tests.cli.conftest import SPEED, four_parts
from tests.cli.database import Snapshot, snapshot
from tests.cli.test_backup import Person
from tests.flows.world import ALL, MANAGER, OLD, WORKERS, eventually, journals

BAD = "2025.08.0"


class Hurried(Person):
    """A person at three in the morning: the manager of the new version crashed in the middle of its migration."""

    then: Snapshot

    @property
    def sha256(self) -> str:
        return str(next(j for j in journals(self.world) if j["kind"] == "upgrade")["backup"]["sha256"])


@pytest.fixture(scope="module")
def hurried(tmp_path_factory: pytest.TempPathFactory, prefect_env: dict[str, str]) -> Iterator[Hurried]:
    with Sandbox(version=OLD, speed=SPEED) as sandbox:
        made = Hurried(sandbox, tmp_path_factory.mktemp("hurried"), prefect_env)
        made.then = snapshot(sandbox.mongo_uri)
        yield made


def test_nothing_to_go_back_from(hurried: Hurried) -> None:
    ran = hurried.run("rollback", "--dry-run")
    assert ran.code == 2, ran
    four_parts(ran.err)
    assert "no upgrade to go back from" in ran.err


def test_a_failed_upgrade_names_the_way_back(hurried: Hurried) -> None:
    """A person who is offered the way back and says no has it as before."""
    ran = hurried.types(b"y\nn\n", "upgrade", "--to", BAD, "--on-failure", "rollback")
    assert ran.code == 1, ran
    assert f"return to {OLD}? [y/N]" in ran.err
    told = ran.err[ran.err.index("Error: ", ran.err.rindex("[y/N]")) :]
    four_parts(told)
    (upgrade,) = journals(hurried.world)
    assert f"apinizer-upgrade rollback {upgrade['id']}" in told
    assert hurried.world.images()[MANAGER] == f"apinizercloud/manager:{BAD}"
    assert hurried.world.at(OLD) == ALL - {MANAGER}


def test_it_shows_what_would_be_lost_and_changes_nothing(hurried: Hurried) -> None:
    before = hurried.world.written()
    text = hurried.run("rollback", "--dry-run")
    assert text.code == 0, text
    for part in ("stop the manager", "put the database back", "introduced_2025_08_0", f"manager:{OLD}", "What is lost"):
        assert part in text.out
    found = hurried.run("rollback", "--dry-run", "-o", "json").document
    assert found["puts_database_back"]
    assert found["to"] == OLD
    assert found["backup"]["sha256"] == hurried.sha256
    assert "introduced_2025_08_0" in {c["name"] for c in found["lost"]["collections"]}
    assert {a["verb"] for a in found["restore"]["actions"]} == {"replace", "drop"}
    (hurried.folder / "file").touch()
    nowhere = hurried.run("rollback", "--dry-run", "--backup-dir", "file")
    assert nowhere.code == 2, nowhere
    assert "Backups cannot be written to" in nowhere.err
    assert hurried.world.written() == before
    assert [j["kind"] for j in journals(hurried.world)] == ["upgrade"]


def test_without_a_terminal_the_backup_has_to_be_named(hurried: Hurried) -> None:
    before = hurried.world.written()
    for more, part in (((), hurried.sha256[:12]), (("--yes",), "--backup"), (("--backup", "0" * 12), "was named")):
        ran = hurried.run("rollback", *more)
        assert ran.code == 2, ran
        four_parts(ran.err)
        assert part in ran.err
    assert hurried.world.written() == before


def test_a_person_is_asked_and_may_say_no(hurried: Hurried) -> None:
    """Who has named the backup, on the command line or by its variable, is asked all the same."""
    before = hurried.world.written()
    upgrade = next(j["id"] for j in journals(hurried.world))
    for more, variable in (((), hurried.sha256), (("--backup", hurried.sha256[:12]), "")):
        ran = hurried.types(b"n\n", "rollback", *more, APINIZER_UPGRADE_BACKUP=variable)
        assert ran.code == 1, ran
        assert f"to {OLD}?" in ran.err
        told = ran.err[ran.err.index("Error: ") :]
        four_parts(told)
        assert "The rollback was not started." in told
        assert f"This try changed nothing. Changed by the run {upgrade} before: {MANAGER}." in told
        assert f"apinizer-upgrade rollback {upgrade}" in told
    assert hurried.world.written() == before


def test_what_a_person_agreed_to_is_what_is_done(hurried: Hurried) -> None:
    """Somebody scales a worker while the question stands: the way back is another then, and another one is to be agreed to."""
    worker = hurried.world.path(WORKERS[0])
    count = hurried.world.get(worker)["spec"]["replicas"]
    ran = hurried.types(
        b"y\n", "rollback", meanwhile=lambda: hurried.world.change(worker, {"spec": {"replicas": count + 1}})
    )
    assert ran.code == 1, ran
    told = ran.err[ran.err.index("Error: ") :]
    four_parts(told)
    assert "another than the one that was shown" in told
    assert hurried.world.images()[MANAGER] == f"apinizercloud/manager:{BAD}"
    assert [j["kind"] for j in journals(hurried.world)] == ["upgrade"]
    hurried.world.change(worker, {"spec": {"replicas": count}})


def test_a_backup_that_is_not_the_one_is_said_before_anybody_is_asked(hurried: Hurried) -> None:
    ran = hurried.types(b"y\n", "rollback", "--backup", "0" * 12)
    assert ran.code == 2, ran
    assert "?" not in ran.err.partition("Error: ")[0]
    assert "was named" in ran.err


def test_a_person_says_yes(hurried: Hurried) -> None:
    ran = hurried.types(b"y\n", "rollback")
    assert ran.code == 0, ran
    assert f"Rolled back to {OLD}." in ran.out
    safety = Path(ran.out.partition("--include")[0].rpartition("restore ")[2].strip())
    assert safety.is_file()
    assert hurried.world.at(OLD) == ALL
    assert snapshot(hurried.sandbox.mongo_uri) == hurried.then
    assert not any(secret in ran.out + ran.err for secret in hurried.world.secrets())


def test_what_was_rolled_back_is_not_rolled_back_again(hurried: Hurried) -> None:
    for more in ((), ("--dry-run",)):
        ran = hurried.run("rollback", "--backup", hurried.sha256, *more)
        assert ran.code == 3, ran
        four_parts(ran.err)
    assert hurried.world.deployments()[MANAGER]["spec"]["replicas"] == 1


def test_a_collection_of_the_failed_version_is_brought_back_from_the_safety_backup(hurried: Hurried) -> None:
    rollback = next(j for j in journals(hurried.world) if j["kind"] == "rollback")
    safety = rollback["safety"]
    hurried.world.change(hurried.world.path(MANAGER), {"spec": {"replicas": 0}})
    assert eventually(lambda: not any(p["metadata"]["namespace"] == "apinizer" for p in hurried.world.pods()))
    for name in (Path(safety["archive"]).name, safety["sha256"][:12]):
        ran = hurried.run("restore", "--include", "api_proxy", "--from", name, "--dry-run")
        assert ran.code == 0, ran
        assert "documents of the archive have fields that those of now have not: migrated_2025_08_0" in ran.out
    ran = hurried.run("restore", "--include", "api_proxy", "--from", safety["sha256"][:12], "--yes", "-o", "json")
    assert ran.code == 0, ran
    assert ran.document["replaced"] == ["api_proxy"]
    now = snapshot(hurried.sandbox.mongo_uri)
    assert now["api_proxy"][3] != hurried.then["api_proxy"][3]
    assert {k: v for k, v in now.items() if k != "api_proxy"} == {
        k: v for k, v in hurried.then.items() if k != "api_proxy"
    }
    for more, part in ((("--from", "nosuch"), "no backup nosuch"), ((), "No backup is named")):
        ran = hurried.run("restore", "--include", "api_proxy", *more, "--yes")
        assert ran.code == 2, ran
        four_parts(ran.err)
        assert part in ran.err
