"""Restores that are killed, cut off and refused in the middle: each collection stays whole, and the next one ends equal."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tasks.database.restore.names import is_own, own_of
from tasks.database.restore.progress import RestoreProgress
from tasks.domain.errors import BlockedError, TemporaryError
from tests.tasks.database.restore.world import DB, Client, Wire, backup, picture, put_back

KILLS = int(os.environ.get("KILLS", "15"))  # `make faults`: 50
# This server loses options when it renames a collection, so what has such options is made in its place; on a server
# that keeps them these are renamed like the others.
MADE_IN_PLACE = {"capped", "sorted"}
CHANGES_KIND = {"was a view", "was a collection"}


def old(client: Client) -> None:
    """The database at the time of the backup."""
    db = client[DB]
    for name in ("api_proxy", "policies", "credentials"):
        db[name].insert_many([{"_id": f"{name} {i}", "text": "x" * 200, "version": 1} for i in range(40)])
    db["api_proxy"].create_index("text")
    db["policies"].create_index([("version", 1), ("_id", -1)], unique=True)
    db.create_collection("checked", validator={"version": {"$exists": True}}, validationLevel="moderate")
    db["checked"].insert_one({"_id": 1, "version": 1})
    db.create_collection("capped", capped=True, size=1 << 16)
    db["capped"].insert_many([{"_id": i} for i in range(10)])
    db.create_collection("sorted", collation={"locale": "tr"})
    db["sorted"].insert_many([{"_id": word} for word in "ıiaü"])
    db.create_collection("was a view", viewOn="api_proxy", pipeline=[])
    db["was a collection"].insert_one({"_id": 1})
    db["as it is"].insert_one({"_id": 1})


def new(client: Client) -> None:
    """What an upgrade made of it."""
    db = client[DB]
    for name in ("api_proxy", "policies", "checked"):
        db[name].update_many({}, {"$set": {"version": 2, "more": 1}})
    db.drop_collection("credentials")
    db["api_proxy"].drop_indexes()
    db["sorted"].insert_one({"_id": "new"})
    db["capped"].insert_one({"_id": "new"})
    db.drop_collection("was a view")
    db["was a view"].insert_one({"_id": "now a collection"})
    db.drop_collection("was a collection")
    db.create_collection("was a collection", viewOn="api_proxy", pipeline=[])


def reset(client: Client, make: Callable[[Client], None] = lambda _client: None) -> dict[str, Any]:
    client.drop_database(DB)
    old(client)
    make(client)
    return picture(client)


@pytest.fixture
def scene(client: Client, uri: str, tmp_path: Path) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """The archive, the picture that it holds, and the picture after the upgrade, which the database shows."""
    before = reset(client)
    archive = backup(uri, tmp_path)
    return archive, before, reset(client, new)


def assert_each_is_whole(client: Client, before: dict[str, Any], after: dict[str, Any]) -> Counter[str]:
    """Documents of each collection are all old or all new; a view is one or the other; what was found."""
    now = picture(client)
    found: Counter[str] = Counter()
    copies = own_of(now)
    for name in before.keys() | after.keys():
        content = (now[name][0], now[name][3]) if name in now else None
        wanted = {"old": before.get(name), "new": after.get(name)}
        state = next((label for label, one in wanted.items() if (one and (one[0], one[3])) == content), "neither")
        # In between these have no name of their own, or not all of it; then their checked copy is there.
        if state == "neither" and name in MADE_IN_PLACE | CHANGES_KIND:
            assert any(name.endswith(".state") for name in copies), name
            assert len(copies) > 1, name
            state = "on its way"
        assert state != "neither", (name, content and len(content[1]))
        found[state] += name != "as it is"
    return found


@pytest.fixture
def mortal() -> Iterator[Callable[[str, Path, Callable[[int], None]], int]]:
    """Runs a restore in a process of its own; gives its wait status."""
    root = Path(__file__).parents[4]
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("mortal.py"))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(root)},
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout

        def run(uri: str, archive: Path, told: Callable[[int], None]) -> int:
            assert process.stdin
            assert process.stdout
            print(uri, archive, DB, sep="\t", file=process.stdin, flush=True)
            told(int(process.stdout.readline()))
            return int(process.stdout.readline())

        yield run
        process.stdin.close()


@pytest.mark.timeout(280)
def test_killed_at_many_moments(
    scene: tuple[Path, dict[str, Any], dict[str, Any]], client: Client, uri: str, wire: Wire,
    mortal: Callable[[str, Path, Callable[[int], None]], int],
) -> None:  # fmt: skip
    archive, before, after = scene
    wire.arm(None)
    assert mortal(wire.uri, archive, lambda _pid: None) == 0
    random = Random(3)  # noqa: S311 - which moments are tried
    moments = [
        *random.choices(wire.places("insert"), k=KILLS // 5),
        *random.choices(wire.places("renameCollection", "drop", "collMod"), k=KILLS // 3),
        *random.choices(wire.places("create", "createIndexes", "update"), k=KILLS // 10),
    ]
    moments += random.choices(wire.places(), k=KILLS - len(moments))
    killed_at: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for at in moments:
        reset(client, new)
        child: list[int] = []
        known = threading.Event()

        def kill(name: str, child: list[int] = child, known: threading.Event = known) -> bool:
            assert known.wait(30)
            killed_at[name] += 1
            os.kill(child[0], signal.SIGKILL)
            return True

        def told(pid: int, child: list[int] = child, known: threading.Event = known) -> None:
            child.append(pid)
            known.set()

        wire.arm(at, kill, after=random.random() < 0.5)
        status = mortal(wire.uri, archive, told)
        assert os.WIFSIGNALED(status), at
        found += assert_each_is_whole(client, before, after)
        put_back(uri, archive)
        assert picture(client) == before
    print(f"\nkilled at {dict(killed_at)}; found {dict(found)}")
    assert sum(killed_at.values()) == KILLS
    # The faults landed in the middle: while loading, in the swap with some in place and some not.
    assert killed_at["insert"] >= KILLS // 5
    assert killed_at["renameCollection"] + killed_at["drop"] + killed_at["collMod"] >= KILLS // 3
    assert found["old"]
    assert found["new"]


def test_a_guard_that_says_no_leaves_each_collection_whole(
    scene: tuple[Path, dict[str, Any], dict[str, Any]], client: Client, uri: str
) -> None:
    archive, before, after = scene
    asked = 0

    def count() -> None:
        nonlocal asked
        asked += 1

    put_back(uri, archive, guard=count)
    total = asked
    assert total > 40
    found: Counter[str] = Counter()
    for at in range(1, total + 1, 4):
        reset(client, new)
        asked = 0

        def refuse(at: int = at) -> None:
            nonlocal asked
            asked += 1
            if asked >= at:
                raise BlockedError("A manager appeared.")

        with pytest.raises(BlockedError, match="manager") as caught:
            put_back(uri, archive, guard=refuse)
        assert any(text in caught.value.safe for text in ("whole", "No collection was replaced", "Nothing was changed"))
        if at == 1:
            assert picture(client) == after
        found += assert_each_is_whole(client, before, after)
        put_back(uri, archive)
        assert picture(client) == before
    assert found["old"]
    assert found["new"]


@pytest.mark.parametrize("after", [False, True])
def test_a_cut_connection_is_taken_up_again(
    scene: tuple[Path, dict[str, Any], dict[str, Any]],
    client: Client,
    wire: Wire,
    after: bool,  # noqa: FBT001
) -> None:
    """Whether the server got the last command or not."""
    archive, before, upgraded = scene
    wire.arm(None)
    put_back(wire.uri, archive)
    places = wire.places()
    of = {name: [place for place in places if place[0] == name] for name, _ in places}
    # What only looks before the first write fails at once, and nothing was changed.
    begin = places.index(("update", 0))
    moments = [at[len(at) // 2] for at in of.values() if places.index(at[len(at) // 2]) >= begin]
    cut: list[str] = []
    for moment in [*moments, *of["insert"][:2]]:
        reset(client, new)
        wire.arm(moment, lambda name: bool(cut.append(name)) or True, after=after)
        put_back(wire.uri, archive)
        assert picture(client) == before, moment
    assert {"insert", "create", "createIndexes", "renameCollection", "drop", "update"} <= set(cut)
    assert upgraded != before


def test_a_server_that_stays_away(
    scene: tuple[Path, dict[str, Any], dict[str, Any]], client: Client, uri: str, wire: Wire
) -> None:
    archive, before, after = scene
    wire.arm(None)
    put_back(wire.uri, archive)
    reset(client, new)

    def gone(_name: str) -> bool:
        wire.close()
        return True

    wire.arm(("insert", 2), gone)
    with pytest.raises(TemporaryError) as caught:
        put_back(wire.uri, archive, patience=0.5)
    assert "No collection was replaced" in caught.value.safe
    assert {name: one for name, one in picture(client).items() if not is_own(name)} == after
    put_back(uri, archive)
    assert picture(client) == before


@pytest.mark.parametrize("moment", [("insert", 2), ("createIndexes", 1), ("renameCollection", 1), ("drop", 0)])
def test_who_lost_the_lock_while_it_waited_writes_no_more(
    scene: tuple[Path, dict[str, Any], dict[str, Any]], client: Client, wire: Wire, moment: tuple[str, int]
) -> None:
    """The guard is asked before each try, not only before the first."""
    archive, before, after = scene
    cut: list[int] = []

    def guard() -> None:
        if cut:
            raise BlockedError("Another run holds the lock.")

    wire.arm(moment, lambda _name: not cut.append(len(wire.commands)))
    with pytest.raises(BlockedError, match="lock"):
        put_back(wire.uri, archive, guard=guard)
    # Commands of other collections may have been on their way at that moment, one for each lane; the last removes
    # the restore's own lock.
    *written, unlocked = [
        name for name in wire.commands[cut[0] :] if name in {"insert", "create", "renameCollection", "drop"}
    ]
    assert unlocked == "drop"
    assert len(written) <= 2
    assert_each_is_whole(client, before, after)
    put_back(wire.uri, archive)
    assert picture(client) == before


def test_a_server_that_is_killed_and_comes_back(client: Client, uri: str, tmp_path: Path) -> None:
    """The server loses nothing that it confirmed; the restore waits for it and ends equal."""
    client.drop_database(DB)
    old(client)
    before = picture(client)
    archive = backup(uri, tmp_path)
    program = Path(sys.executable).with_name("secantusd-py")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    storage = tmp_path / "storage"
    command = [str(program), "--host", "127.0.0.1", "--port", port, "--storage-path", str(storage), "--sync-on-commit"]
    there = f"mongodb://127.0.0.1:{port}/?directConnection=true"
    servers = [subprocess.Popen([*command, "--log-level", "ERROR"], stdout=subprocess.DEVNULL)]
    killed: list[str] = []
    try:
        with Client(there, serverSelectionTimeoutMS=60_000) as second:
            second.admin.command("ping")

            def progress(at: RestoreProgress) -> None:
                if (at.phase, at.collection) in {
                    ("load", "credentials"),
                    ("rename", "policies"),
                } and at.phase not in killed:
                    killed.append(at.phase)
                    servers[-1].kill()
                    servers[-1].wait(30)
                    servers.append(subprocess.Popen([*command, "--log-level", "ERROR"], stdout=subprocess.DEVNULL))

            put_back(there, archive, progress=progress)
            assert picture(second) == before
    finally:
        servers[-1].kill()
        servers[-1].wait(30)
    assert killed == ["load", "rename"]
