"""`upgrade` as people run it: one sandbox for each story, whose tests follow each other."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.sandbox.launch import Sandbox
from tests.cli.conftest import COMMAND, SPEED, Ran, four_parts, run_at_terminal, run_command
from tests.flows.world import (
    ALL,
    MANAGER,
    NEW,
    OLD,
    World,
    archives,
    clean_environment,
    eventually,
    journals,
    leftovers,
    lock_holder,
)


class Story:
    """A sandbox and a folder that a person works in, for tests that follow each other."""

    def __init__(self, sandbox: Sandbox, folder: Path) -> None:
        self.sandbox, self.folder, self.world = sandbox, folder, World(sandbox)
        self.backups = folder / "backups"

    def run(self, *arguments: object, **env: str) -> Ran:
        return run_command(*arguments, folder=self.folder, env={**self.sandbox.env(), **env})


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with Sandbox(version=OLD, speed=SPEED) as sandbox:
        yield Story(sandbox, tmp_path_factory.mktemp("person"))


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Story]:
    with Sandbox(version=OLD, speed=3) as sandbox:
        yield Story(sandbox, tmp_path)


def test_a_failure_as_json_is_one_document(story: Story) -> None:
    story.sandbox.lose_image(f"apinizercloud/worker:{NEW}", "node-a", "node-b")
    ran = story.run("upgrade", "--to", NEW, "--yes", "-o", "json")
    assert ran.code == 1
    assert ran.document["exit_code"] == 1
    error = ran.document["error"]
    assert all(error.values())
    assert f"apinizercloud/worker:{NEW}" in error["happened"]
    assert MANAGER in error["safe"]
    assert str(archives(story.backups)[0]) in error["safe"]
    assert error["happened"] in ran.err
    assert "Traceback" not in ran.err
    assert story.world.at(NEW) == {MANAGER, "test/worker", "test/cache"}


def test_the_same_command_again_names_the_unfinished_run(story: Story) -> None:
    before = story.world.written()
    ran = story.run("upgrade", "--to", NEW, "--yes")
    assert ran.code == 3
    four_parts(ran.err)
    (journal,) = journals(story.world)
    assert f"apinizer-upgrade resume {journal['id']}" in ran.err
    assert "This try changed nothing." in ran.err
    assert story.world.written() == before


def test_resume_completes_it_from_another_folder(story: Story, tmp_path: Path) -> None:
    """Nothing but the cluster is needed: the journal is there, and the backup stays where it is."""
    story.sandbox.faults(missing_images={})
    for node in ("node-a", "node-b"):
        story.sandbox.load_image(f"apinizercloud/worker:{NEW}", node)
    ran = run_command("resume", "--yes", "-o", "json", folder=tmp_path, env=story.sandbox.env())
    assert ran.code == 0, ran
    report = ran.document
    assert report["complete"]
    assert report["backup"].startswith(str(archives(story.backups)[0]))
    assert not (tmp_path / "backups").exists()
    assert {row["deployment"] for row in report["rows"]} == ALL
    assert story.world.at(NEW) == ALL
    assert all(NEW in answer for answer in story.world.answered().values())
    # The manager was there already: its database had been backed up by the first try.
    assert len(archives(story.backups)) == 1
    (journal,) = journals(story.world)
    assert (journal["id"], journal["how"], len(journal["tries"])) == (report["run"], "complete", 2)
    ran = story.run("resume", "--yes")
    assert ran.code == 2
    assert "no unfinished run" in ran.err


def test_a_third_time_there_is_nothing_to_do(story: Story) -> None:
    before = story.world.written()
    ran = story.run("upgrade", "--to", NEW, "--yes")
    assert ran.code == 0
    assert "Nothing to do" in ran.out
    assert ran.err == ""
    ran = story.run("upgrade", "--to", NEW, "--yes", "-o", "json")
    assert (ran.code, ran.document["nothing_to_do"], ran.document["complete"]) == (0, True, True)
    assert story.world.written() == before
    assert len(archives(story.backups)) == 1


def test_the_next_release_in_text(story: Story) -> None:
    """Across the manager's new name, all others together, with a backup folder by the environment."""
    folder = story.folder / "elsewhere"
    ran = story.run("upgrade", "--to", "2025.11.1", "--together", "--yes", APINIZER_UPGRADE_BACKUP_DIR=str(folder))
    assert ran.code == 0, ran
    assert ran.err == ""
    assert story.world.at("2025.11.1") == ALL
    assert story.world.images()[MANAGER] == "apinizercloud/apimanager:2025.11.1"
    (archive,) = archives(folder)
    assert archive.stat().st_mode & 0o777 == 0o600
    assert str(archive) in ran.out
    assert f"Upgraded from {NEW} to 2025.11.1." in ran.out
    assert not any(secret in ran.out for secret in story.world.secrets())
    assert "manager | " in ran.out  # its log, while it migrates


def test_a_manager_that_crashes_is_told_with_its_last_words(fresh: Story) -> None:
    untouched = {k: v for k, v in fresh.world.written().items() if k != MANAGER}
    ran = fresh.run("upgrade", "--to", "2025.08.0", "--yes", "--backup-dir", "kept")
    assert ran.code == 1
    four_parts(ran.err)
    assert "FATAL" in ran.err
    assert str(archives(fresh.folder / "kept")[0]) in ran.err
    assert {k: v for k, v in fresh.world.written().items() if k != MANAGER} == untouched


def children(pid: int) -> set[int]:
    """The living processes whose parent is `pid`, and theirs."""
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if int(parent) == pid and state != "Z":
                found |= {int(entry.name), *children(int(entry.name))}
    return found


@pytest.mark.parametrize(
    ("number", "code", "moment"),
    [
        pytest.param(signal.SIGINT, 130, f"{MANAGER}: image set", id="Ctrl-C while the manager migrates"),
        pytest.param(signal.SIGTERM, 143, "test/worker: image set", id="SIGTERM while a worker rolls"),
        pytest.param(signal.SIGINT, 130, "backup: ", id="Ctrl-C while it backs up"),
    ],
)
def test_an_interruption(fresh: Story, number: signal.Signals, code: int, moment: str) -> None:
    with subprocess.Popen(
        [COMMAND, "upgrade", "--to", NEW, "--yes"],
        env=clean_environment() | fresh.sandbox.env(),
        cwd=fresh.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert any(moment in line for line in process.stdout)
        started = children(process.pid)
        begin = time.monotonic()
        process.send_signal(number)
        if number == signal.SIGINT:  # a second one at once is of the same wish
            time.sleep(0.05)
            process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert time.monotonic() - begin < 30
    assert process.returncode == code
    four_parts(err)
    assert "interrupted" in err
    assert len(started) >= 1  # the embedded server
    assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), 20)
    assert leftovers(fresh.backups) == []
    if moment.startswith("backup"):
        assert "Nothing was changed" in err
        assert fresh.world.at(OLD) == ALL
    else:
        assert "Not touched: " in err
        assert str(archives(fresh.backups)[0]) in err
        assert "prod/worker-prod" in err.partition("Not touched: ")[2]
        assert {"prod/worker-prod", "prod/cache-prod"} <= fresh.world.at(OLD)
    fresh.sandbox.set_speed(SPEED)
    (journal,) = journals(fresh.world)
    assert lock_holder(fresh.world) == ""
    if moment.startswith("backup"):
        assert journal["how"] == "nothing changed"
        again = fresh.run("upgrade", "--to", NEW, "--yes", "--together")
    else:
        assert f"apinizer-upgrade resume {journal['id']}" in err
        again = fresh.run("resume", journal["id"], "--yes")
    assert again.code == 0, again
    assert fresh.world.at(NEW) == ALL


def test_killed_it_leaves_no_process_and_is_gone_on_with(fresh: Story) -> None:
    with subprocess.Popen(
        [COMMAND, "upgrade", "--to", NEW, "--yes"],
        env=clean_environment() | fresh.sandbox.env(),
        cwd=fresh.folder,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert any(f"{MANAGER}: image set" in line for line in process.stdout)
        started = children(process.pid)
        os.kill(process.pid, signal.SIGKILL)
    assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), 20)
    fresh.sandbox.set_speed(SPEED)
    refused = fresh.run("upgrade", "--to", NEW, "--yes")
    assert refused.code == 3
    assert "It did not come to its end" in refused.err
    again = fresh.run("resume", "--yes", "-o", "json")
    assert again.code == 0, again
    assert json.loads(again.out)["complete"]
    assert fresh.world.at(NEW) == ALL
    assert len(archives(fresh.backups)) == 1
    (journal,) = journals(fresh.world)
    # What was under way when it was killed was set once.
    assert sorted(e["subject"] for e in journal["entries"]) == sorted(ALL)
    assert all(e.get("done") for e in journal["entries"])


def test_a_person_is_not_offered_to_go_back_from_a_manager_that_serves(fresh: Story) -> None:
    fresh.sandbox.lose_image(f"apinizercloud/worker:{NEW}", "node-a", "node-b")
    ran = run_at_terminal(
        b"y\nn\n",
        *("upgrade", "--to", NEW, "--on-failure", "rollback"),
        folder=fresh.folder,
        env=fresh.sandbox.env() | {"HOME": str(fresh.folder)},
    )
    assert ran.code == 1, ran
    four_parts(ran.err[ran.err.index("Error: ") :])
    assert ran.err.count("?") == 1, ran.err
    assert f"apinizercloud/worker:{NEW}" in ran.err
    assert MANAGER in fresh.world.at(NEW)
