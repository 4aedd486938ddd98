"""Two restores of one database: the second is told who is at work, the dead are taken over from, the frozen stop."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.database.connection import open_database
from tasks.database.restore import lock
from tasks.database.restore.lock import hold
from tasks.database.restore.names import LOCK
from tasks.domain.errors import BlockedError
from tasks.record.whereabouts import here
from tests.tasks.database.restore.world import DB, Client, Wire, backup, picture, put_back


@pytest.fixture
def archive(client: Client, uri: str, tmp_path: Path) -> Path:
    for name in "abc":
        client[DB][name].insert_many([{"_id": i, "v": name} for i in range(20)])
    return backup(uri, tmp_path)


def test_the_second_is_told_who_is_at_work(
    archive: Path, client: Client, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LEASE", 3.0)
    before = picture(client)
    other = backup(uri, tmp_path / "other")
    told: list[str] = []

    def guard() -> None:
        copies = [name for name in client[DB].list_collection_names() if name.endswith(".0001")]
        if copies and not told:
            told.append("")
            for one in (archive, other):
                with pytest.raises(BlockedError, match="Another restore") as caught:
                    put_back(uri, one)
                told.append(str(caught.value))

    put_back(uri, archive, guard=guard)
    assert len(told) == 3
    assert f"process {os.getpid()}" in told[1]
    assert archive.name in told[1]
    assert picture(client) == before


def holder(**fields: Any) -> dict[str, Any]:
    return {"_id": "restore", "holder": "x", "host": "elsewhere", "place": "elsewhere", "pid": 1, "started": "1",
            "archive": "other.archive", "beat": 0, **fields}  # fmt: skip


def test_who_is_dead_is_taken_over_from_at_once(archive: Path, client: Client, uri: str) -> None:
    """Also where a later process has its number."""
    before = picture(client)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for pid in (gone.pid, os.getpid()):
        client[DB][LOCK].insert_one(holder(place=here()["place"], pid=pid, started="1"))
        # Who would wait for a sign of life would be stopped.
        with open_database(uri) as one, hold(one, DB, "mine.archive", stop=lambda: True) as held:
            held.check()
        client[DB][LOCK].insert_one(holder(place=here()["place"], pid=pid, started="1"))
        put_back(uri, archive)
        assert picture(client) == before


def test_who_is_elsewhere_lives_as_long_as_the_beat_goes_on(
    archive: Path, client: Client, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = picture(client)
    monkeypatch.setattr(lock, "LEASE", 1.5)
    client[DB][LOCK].insert_one(holder())
    ended = threading.Event()

    def beats() -> None:
        while not ended.wait(0.2):
            client[DB][LOCK].update_one({}, {"$inc": {"beat": 1}})

    thread = threading.Thread(target=beats)
    thread.start()
    try:
        with pytest.raises(BlockedError, match=r"(?s)Another restore.*other\.archive.*on elsewhere"):
            put_back(uri, archive)
    finally:
        ended.set()
        thread.join()
    put_back(uri, archive)
    assert picture(client) == before


def test_who_lost_it_says_to_whom_and_leaves_it_alone(
    client: Client, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_database(uri) as one, hold(one, DB, "mine.archive") as held:
        held.check()
        monkeypatch.setattr(lock, "LEASE", 3.0)
        with pytest.raises(BlockedError, match=r"(?s)Another restore.*mine\.archive"), hold(one, DB, "x.archive"):
            pytest.fail("two at once")
        client[DB][LOCK].replace_one({}, {key: value for key, value in holder().items() if key != "_id"})
        held._sure = 0.0
        with pytest.raises(BlockedError, match=r"(?s)lost the right.*other\.archive"):
            held.check()
    assert client[DB][LOCK].find_one({"holder": "x"})
    client[DB][LOCK].drop()
    with open_database(uri) as one, hold(one, DB, "mine.archive"):
        assert client[DB][LOCK].count_documents({}) == 1
    assert LOCK not in client[DB].list_collection_names()


@pytest.fixture
def process() -> Iterator[Callable[[str, Path], "subprocess.Popen[str]"]]:
    """A restore in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def run(uri: str, archive: Path) -> subprocess.Popen[str]:
        program = Path(__file__).with_name("mortal.py")
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
        one = subprocess.Popen(
            [sys.executable, str(program), "once"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )  # fmt: skip
        assert one.stdin
        print(uri, archive, DB, sep="\t", file=one.stdin, flush=True)
        started.append(one)
        return one

    yield run
    for one in started:
        one.kill()
        one.communicate()


@pytest.mark.parametrize("moment", [("create", 0), ("renameCollection", 0)])
def test_a_frozen_one_that_wakes_writes_nothing_more(
    archive: Path, client: Client, uri: str, wire: Wire, monkeypatch: pytest.MonkeyPatch,
    process: Callable[[str, Path], "subprocess.Popen[str]"], moment: tuple[str, int],
) -> None:  # fmt: skip
    before = picture(client)
    client[DB]["a"].update_many({}, {"$set": {"v": "of now"}})
    frozen, known = threading.Event(), threading.Event()
    child: list[subprocess.Popen[str]] = []

    def freeze(_name: str) -> bool:
        assert known.wait(30)
        child[0].send_signal(signal.SIGSTOP)
        frozen.set()
        return False

    wire.arm(moment, freeze, after=True)
    child.append(process(wire.uri, archive))
    known.set()
    assert frozen.wait(60)
    monkeypatch.setattr(lock, "LEASE", 1.0)
    sent = len(wire.commands)
    put_back(uri, archive)
    assert picture(client) == before
    client[DB]["a"].update_many({}, {"$set": {"v": "written after the restore"}})
    after = picture(client)
    child[0].send_signal(signal.SIGCONT)
    assert "lost the right to write" in child[0].communicate(timeout=60)[1]
    assert picture(client) == after
    written = {"insert", "create", "drop", "renameCollection", "update", "collMod", "createIndexes"}
    assert not written.intersection(wire.commands[sent:])
