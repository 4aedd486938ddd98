"""The flows on the database, in this process: what is retried, refused, rehearsed, kept and let go."""

import json
import os
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blocks.settings import BackupSettings, ClusterSettings, InstallationSettings
from deployments.embedded import EmbeddedServer
from deployments.sandbox.launch import Sandbox
from tasks.domain.errors import NOTHING_CHANGED, BlockedError, DriftError, TemporaryError, UpgradeError, UsageError
from tasks.record.feed import Event, listening
from tests.cli.database import opened, snapshot
from tests.flows.test_failures import Once
from tests.flows.world import MANAGER, NEW, World, archives, eventually, leftovers, needed

Provide = Callable[..., str]


@pytest.fixture
def provided(prefect_server: EmbeddedServer, world: World, backups: Path) -> Provide:
    """Make the sandbox known as an installation with these settings of its backup; the name."""
    from blocks.installation import provide

    def make(**backup: Any) -> str:
        name = f"tested-{uuid.uuid4().hex[:6]}"
        clusters = (ClusterSettings(kubeconfig_path=str(world.sandbox.kubeconfig)),)
        provide(
            name,
            InstallationSettings(clusters=clusters, backup_dir=str(backups), backup=BackupSettings(**backup)),
        )
        return name

    return make


def scaled_to_nothing(world: World) -> None:
    world.change(world.path(MANAGER), {"spec": {"replicas": 0}})
    assert eventually(lambda: not any(p["metadata"]["namespace"] == "apinizer" for p in world.pods()))


def test_a_database_that_is_away_in_mid_dump(provided: Provide, world: World, sandbox: Sandbox, backups: Path) -> None:
    from flows.backup import backup

    with opened(sandbox.mongo_uri) as database:
        database.bulk.insert_many([{"_id": n, "text": os.urandom(1000).hex()} for n in range(20_000)])

    def away() -> None:
        sandbox.stop_database()
        threading.Timer(4, sandbox.start_database).start()

    fault, told = Once("backup", "bulk", away), list[Event]()
    with listening(fault), listening(told.append):
        result = backup(installation=provided())
    assert fault.acted
    assert any("Trying again" in event.text for event in told)
    (archive,) = archives(backups)
    assert leftovers(backups) == []
    manifest = json.loads(archive.with_name(f"{archive.name}.json").read_text())
    assert manifest["proof"]["sha256"] == result["sha256"]
    assert {n["collection"]: n["documents"] for n in manifest["namespaces"]}["bulk"] == 20_000
    assert not any(secret in str(told) for secret in world.secrets())


def test_neither_a_backup_nor_an_upgrade_of_a_half_restored_database(
    provided: Provide, world: World, backups: Path
) -> None:
    from flows.backup import backup
    from flows.upgrade import upgrade
    from tasks.database.restore.request import RestoreRequest
    from tasks.database.restore.state import State, write_state

    state = State(sha256="0" * 64, archive="x", request=RestoreRequest(database="apinizerdb"), phase="swapping")
    with opened(world.sandbox.mongo_uri) as database:
        write_state(database.client, database.name, state)
    before = snapshot(world.sandbox.mongo_uri), world.generations()
    name = provided()
    for run in (lambda: backup(installation=name), lambda: upgrade(to=NEW, installation=name)):
        with pytest.raises(BlockedError, match="interrupted while it put collections"):
            run()
    assert (snapshot(world.sandbox.mongo_uri), world.generations()) == before
    assert archives(backups) == []


def test_a_second_server_and_a_scratch_database(provided: Provide, world: World, backups: Path) -> None:
    from flows.backup import backup
    from flows.verify import verify

    before = snapshot(world.sandbox.mongo_uri)
    archive = backup(installation=provided())["archive"]
    assert verify(archive=archive)["documents"] == sum(len(c[3]) for c in before.values())
    with Sandbox() as second:
        theirs = snapshot(second.mongo_uri)
        result = verify(archive=archive, rehearse=True, installation=provided(second_server=second.mongo_uri))
        assert snapshot(second.mongo_uri) == theirs
    assert result["rehearsal"]["record"]["collections"] == len(before)
    result = verify(archive=archive, scratch_database="tried_here", installation=provided())
    assert result["rehearsal"]["recorded"]
    assert snapshot(world.sandbox.mongo_uri) == before
    with pytest.raises(UsageError):
        verify(archive=archive, scratch_database="apinizerdb", installation=provided())
    assert snapshot(world.sandbox.mongo_uri) == before


def test_a_place_that_ends_with_the_pod(
    provided: Provide, world: World, monkeypatch: pytest.MonkeyPatch, backups: Path
) -> None:
    from flows.backup import backup
    from flows.upgrade import upgrade

    memory = Path("/dev/shm", uuid.uuid4().hex)  # noqa: S108
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")  # as in a pod
    before = world.written()
    for act in (
        lambda: upgrade(to=NEW, installation=provided(), backup_dir=str(memory)),
        lambda: backup(installation=provided(), backup_dir=str(memory)),
    ):
        with pytest.raises(BlockedError, match="would not outlive this worker") as raised:
            act()
        assert "--allow-ephemeral" in raised.value.next
        assert not memory.exists()
    assert world.written() == before
    try:
        result = backup(installation=provided(ephemeral_allowed=True), backup_dir=str(memory))
        assert Path(result["archive"]).parent == memory
    finally:
        for path in memory.iterdir():
            path.unlink()
        memory.rmdir()


def test_an_upgrade_lets_old_backups_go_at_its_end(provided: Provide, world: World, backups: Path) -> None:
    from flows.backup import backup
    from flows.upgrade import upgrade

    name = provided(keep=2)
    for _ in range(2):
        backup(installation=name, keep=5)
    old = archives(backups)
    assert len(old) == 2
    assert upgrade(to=NEW, installation=name)["complete"]
    kept = archives(backups)
    assert len(kept) == 2
    assert old[0] not in kept
    assert old[1] in kept


def test_a_restore_and_the_backup_of_before_it(provided: Provide, world: World, backups: Path) -> None:
    from flows.backup import backup
    from flows.restore import restore

    name = provided(leave_out=("apinizer_log",), keep=1)
    archive = backup(installation=name, leave_out=["audit_event"])["archive"]
    then = snapshot(world.sandbox.mongo_uri)
    with pytest.raises(BlockedError, match="The manager runs"):
        restore(archive=archive, installation=name)
    scaled_to_nothing(world)
    with opened(world.sandbox.mongo_uri) as database:
        database.policy.delete_many({})
        database.made_since.insert_one({})
    with pytest.raises(BlockedError) as raised:
        restore(archive=archive, installation=name, exact=True)
    assert "audit_event" in str(raised.value)  # left out on purpose: nothing may be dropped by that archive
    result = restore(archive=archive, installation=name)
    now = snapshot(world.sandbox.mongo_uri)
    assert {k: v for k, v in now.items() if k in then} == then
    assert "made_since" in now
    safety = Path(result["safety_backup"].partition(" on ")[0])
    manifest = json.loads(safety.with_name(f"{safety.name}.json").read_text())
    assert (manifest["left_out"], manifest["collections_asked"]) == ([], "all")  # whatever the settings leave out
    assert {"audit_event", "apinizer_log", "made_since"} <= {n["collection"] for n in manifest["namespaces"]}
    assert Path(archive).exists()


def test_a_restore_whose_manager_came_and_went(
    provided: Provide, world: World, monkeypatch: pytest.MonkeyPatch, backups: Path
) -> None:
    from flows.backup import backup
    from flows.restore import restore
    from tasks.database.restore import steps

    name = provided()
    archive = backup(installation=name)["archive"]
    scaled_to_nothing(world)
    with opened(world.sandbox.mongo_uri) as database:
        database.policy.delete_many({})
    before = snapshot(world.sandbox.mongo_uri)

    def came_and_went() -> None:
        world.change(world.path(MANAGER), {"spec": {"replicas": 1}})
        assert eventually(lambda: any(p["metadata"]["namespace"] == "apinizer" for p in world.pods()))
        scaled_to_nothing(world)

    fault = Once("proof", "every checksum right", came_and_went)  # of the backup of what is there now
    with listening(fault), pytest.raises(DriftError, match="A manager appeared") as raised:
        restore(archive=archive, installation=name)
    assert fault.acted
    assert raised.value.safe == NOTHING_CHANGED
    assert snapshot(world.sandbox.mongo_uri) == before

    # A later try that ends before it has changed anything does not say that nothing was changed.
    tries = iter((TemporaryError("Away.", safe="Half."), BlockedError("Another finding.")))

    def two_tries(*_: object, **__: object) -> None:
        raise next(tries)

    monkeypatch.setattr(steps, "put_back", two_tries)
    with pytest.raises(UpgradeError, match="Another finding") as second:
        restore(archive=archive, installation=name, safety_backup=False)
    assert not isinstance(second.value, BlockedError), "after a change it has failed; nothing was only refused"
    assert "run again to its end" in second.value.safe
    assert needed(backups) == {Path(archive).name: ["restore"]}
    monkeypatch.undo()
    restore(archive=archive, installation=name, safety_backup=False)
    assert needed(backups) == {}
