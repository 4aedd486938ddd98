"""`restore` as people run it: one sandbox with its manager scaled to 0, whose tests follow each other."""

import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.sandbox.launch import Sandbox
from tests.cli.conftest import COMMAND, SPEED, four_parts
from tests.cli.database import Snapshot, opened, snapshot
from tests.cli.test_backup import Person, bulk
from tests.flows.world import MANAGER, OLD, archives, clean_environment, eventually

OWN = "apinizer-restore."


class Keeper(Person):
    """A person with a backup of a database that somebody spoilt since."""

    archive: Path
    then: Snapshot

    def scale(self, replicas: int) -> None:
        self.world.change(self.world.path(MANAGER), {"spec": {"replicas": replicas}})
        space = MANAGER.partition("/")[0]
        gone = lambda: not any(p["metadata"]["namespace"] == space for p in self.world.pods())  # noqa: E731
        if not replicas:
            assert eventually(gone)

    def now(self) -> Snapshot:
        return snapshot(self.sandbox.mongo_uri)

    def spoil(self) -> None:
        with opened(self.sandbox.mongo_uri) as database:
            database.policy.drop()
            database.api_proxy.update_many({}, {"$set": {"broken": True}})
            database.credential.delete_many({})
            database.made_by_the_upgrade.replace_one({"_id": 1}, {}, upsert=True)


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory, prefect_env: dict[str, str]) -> Iterator[Keeper]:
    with Sandbox(version=OLD, speed=SPEED) as sandbox:
        made = Keeper(sandbox, tmp_path_factory.mktemp("keeper"), prefect_env)
        ran = made.run("backup", "-o", "json")
        assert ran.code == 0, ran
        made.archive, made.then = Path(ran.document["archive"]), made.now()
        yield made


def test_not_while_a_manager_runs(keeper: Keeper) -> None:
    for more in ("--dry-run", "--yes"):
        ran = keeper.run("restore", keeper.archive, more)
        assert ran.code == 3, ran
        four_parts(ran.err)
        assert "kubectl scale deployment" in ran.err
    assert keeper.now() == keeper.then
    keeper.scale(0)


def test_what_would_be_is_shown_and_nothing_done(keeper: Keeper) -> None:
    keeper.spoil()
    before = keeper.now()
    ran = keeper.run("restore", keeper.archive, "--dry-run", "-o", "json")
    assert ran.code == 0, ran
    verbs = {a["target"]["collection"]: a["verb"] for a in ran.document["actions"]}
    assert (verbs["policy"], verbs["api_proxy"], verbs["made_by_the_upgrade"]) == ("create", "replace", "leave")
    assert any("made_by_the_upgrade" in sentence for sentence in ran.document["sentences"])
    text = keeper.run("restore", keeper.archive, "--dry-run").out
    assert "replace" in text
    assert "Not in the archive, left as they are: made_by_the_upgrade." in text
    assert keeper.now() == before


def test_without_a_terminal_it_wants_to_be_told(keeper: Keeper) -> None:
    before = keeper.now()
    ran = keeper.run("restore", keeper.archive)
    assert ran.code == 2
    four_parts(ran.err)
    assert "--yes" in ran.err
    assert keeper.now() == before


@pytest.mark.parametrize("answer", ["n\n", "\n"])
def test_at_a_terminal_it_asks(keeper: Keeper, answer: str) -> None:
    before = keeper.now()
    near, far = pty.openpty()
    os.write(near, answer.encode())
    done = subprocess.run(
        [COMMAND, "restore", str(keeper.archive)],
        stdin=far, cwd=keeper.folder, env=clean_environment() | keeper.sandbox.env(), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    os.close(near)
    os.close(far)
    assert done.returncode == 1
    assert "Put the database back like this?" in done.stderr
    assert "was not started" in done.stderr
    assert keeper.now() == before


def test_selected_collections_under_another_name(keeper: Keeper) -> None:
    ran = keeper.run("restore", keeper.archive, "--include", "policy", "--rename", "policy=policy_then", "--yes", "-o", "json")  # fmt: skip
    assert ran.code == 0, ran
    assert ran.document["created"] == ["policy_then"]
    assert ran.document["safety_backup"] == ""  # nothing that is there now would go
    now = keeper.now()
    assert now["policy_then"][3] == keeper.then["policy"][3]
    assert "policy" not in now


def test_merging_by_id(keeper: Keeper) -> None:
    ran = keeper.run("restore", keeper.archive, "--include", "api_proxy", "--include", "credential", "--merge", "ours", "--yes", "-o", "json")  # fmt: skip
    assert ran.code == 0, ran
    assert set(ran.document["merged"]) == {"api_proxy", "credential"}
    now = keeper.now()
    assert now["credential"] == keeper.then["credential"]  # all were missing
    with opened(keeper.sandbox.mongo_uri) as database:
        assert database.api_proxy.count_documents({"broken": True}) == len(keeper.then["api_proxy"][3])


def test_the_whole_database_and_nothing_else(keeper: Keeper) -> None:
    before = len(archives(keeper.backups))
    ran = keeper.run("restore", keeper.archive, "--exact", "--yes", "-o", "json")
    assert ran.code == 0, ran
    assert set(ran.document["dropped"]) == {"made_by_the_upgrade", "policy_then"}
    assert keeper.now() == keeper.then
    assert len(archives(keeper.backups)) == before + 1
    assert str(archives(keeper.backups)[-1]) in ran.document["safety_backup"]


def test_a_database_by_its_address_and_no_cluster(keeper: Keeper) -> None:
    uri = {"APINIZER_UPGRADE_URI": keeper.sandbox.mongo_uri}
    keeper.spoil()
    ran = keeper.run("restore", keeper.archive, "--yes", "--no-safety-backup", cluster=False, **uri)
    assert ran.code == 0, ran
    assert "no cluster is configured here" in ran.err
    assert {k: v for k, v in keeper.now().items() if k in keeper.then} == keeper.then
    # One that is configured and away is another thing.
    away = {**uri, "KUBECONFIG": str(_elsewhere(keeper))}
    ran = keeper.run("restore", keeper.archive, "--dry-run", cluster=False, **away)
    assert ran.code == 1, ran
    assert "could not be reached" in ran.err
    assert keeper.run("restore", keeper.archive, "--dry-run", "--no-cluster", cluster=False, **away).code == 0


def _elsewhere(keeper: Keeper) -> Path:
    path = keeper.folder / "elsewhere"
    text = keeper.sandbox.kubeconfig.read_text()
    path.write_text(text.replace(keeper.sandbox.api_url, "https://127.0.0.1:1"))
    return path


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--merge", "mine"), "mine"),
        (("--rename", "policy"), "OLD=NEW"),
        (("--include", "nothing_of_this"), "nothing_of_this"),
        (("--exact", "--include", "policy"), "exact"),
        (("--source-database", "other"), "other"),
    ],
)
def test_what_cannot_be_asked_for(keeper: Keeper, arguments: tuple[str, ...], told: str) -> None:
    before = keeper.now()
    ran = keeper.run("restore", keeper.archive, "--dry-run", *arguments)
    assert ran.code in (1, 2), ran
    assert told in ran.err
    assert "Safe now: Nothing was changed." in ran.err
    assert keeper.now() == before


def test_an_archive_of_another_installation(keeper: Keeper, tmp_path: Path) -> None:
    with Sandbox(version=OLD, speed=SPEED) as other:
        stranger = Person(other, tmp_path, keeper.prefect)
        with opened(other.mongo_uri) as database:  # another's objects have other identities
            for name in ("api_proxy", "policy", "credential"):
                found = list(database[name].find())
                database[name].drop()
                for document in found:
                    document.pop("_id")
                database[name].insert_many(found)
        theirs = stranger.run("backup", "-o", "json").document["archive"]
    before = keeper.now()
    ran = keeper.run("restore", theirs, "--yes")
    assert ran.code == 3, ran
    four_parts(ran.err)
    assert "installation" in ran.err
    assert keeper.now() == before
    assert keeper.run("restore", theirs, "--dry-run", "--from-other-installation").code == 0


def test_a_manager_that_appears_stops_it_and_interrupted_it_goes_on(keeper: Keeper) -> None:
    bulk(keeper, 40)
    ran = keeper.run("backup", "-o", "json")
    archive, then = ran.document["archive"], keeper.now()
    with opened(keeper.sandbox.mongo_uri) as database:
        database.bulk.update_many({"_id": {"$lt": 100}}, {"$set": {"text": ""}})
    spoilt = keeper.now()

    def started() -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [COMMAND, "restore", archive, "--yes", "--no-safety-backup"],
            env=clean_environment() | keeper.prefect | keeper.sandbox.env(),
            cwd=keeper.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert any("restore: loading bulk" in line for line in process.stdout)
        return process

    def mine() -> Snapshot:
        return {name: value for name, value in keeper.now().items() if not name.startswith(OWN)}

    with started() as process:
        keeper.world.change(keeper.world.path(MANAGER), {"spec": {"replicas": 1}})
        _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    four_parts(err)
    assert "A manager appeared" in err
    assert mine() == spoilt
    keeper.scale(0)
    with started() as process:
        process.send_signal(signal.SIGTERM)
        begin = time.monotonic()
        _, err = process.communicate(timeout=120)
        assert time.monotonic() - begin < 60
    assert process.returncode == 143, err
    four_parts(err)
    assert "No collection was replaced" in err
    assert mine() == spoilt
    ran = keeper.run("restore", archive, "--yes", "--no-safety-backup")
    assert ran.code == 0, ran
    assert keeper.now() == then
