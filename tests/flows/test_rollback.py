"""The way back: the database as it was byte for byte, the old images under their old names, and what is refused."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId

from deployments.sandbox.launch import Sandbox
from tasks.domain.errors import (
    BlockedError,
    DamagedArchiveError,
    DriftError,
    RolloutError,
    StoppedError,
    UpgradeError,
    UsageError,
)
from tasks.domain.journal import Journal, Owner, Try, run_id
from tasks.domain.version import Version
from tasks.record.feed import listening
from tests.cli.database import opened, snapshot
from tests.flows.conftest import Run
from tests.flows.test_failures import OTHERS, TOGETHER, Once, four_parts, no_secret
from tests.flows.test_resume import Dead
from tests.flows.world import (
    ALL,
    MANAGER,
    NEW,
    OLD,
    WORKERS,
    Watching,
    World,
    archives,
    eventually,
    journals,
    leftovers,
    lock_holder,
    lock_run,
    needed,
    tag_of,
)

BAD, NEXT = "2025.08.0", "2025.11.1"


@pytest.fixture
def back(run: Run, world: World) -> Callable[..., dict[str, Any]]:
    """Roll back on the sandbox, the backup named as an unattended run has to."""
    from flows.rollback import rollback

    def go(**parameters: Any) -> dict[str, Any]:
        made: dict[str, Any] = rollback(**{"installation": "tested", "backup": named(world), **parameters})
        return made

    return go


def named(world: World) -> str:
    """The backup of the last upgrade, by the beginning of its SHA-256."""
    made = [j["backup"] for j in journals(world) if j["kind"] == "upgrade" and j.get("backup")]
    return str(made[-1]["sha256"])[:12] if made else ""


def ended(world: World) -> list[tuple[str, str | None]]:
    return [(journal["kind"], journal.get("how")) for journal in journals(world)]


def replicas(world: World) -> dict[str, int]:
    return {key: d["spec"]["replicas"] for key, d in world.deployments().items()}


def settings(world: World) -> dict[str, Any]:
    """The database without what a manager that crashes again and again writes anew each time."""
    return {k: v for k, v in snapshot(world.sandbox.mongo_uri).items() if not k.startswith("introduced_")}


def test_back_from_a_manager_that_crashed_while_it_migrated(
    run: Run, back: Callable[..., dict[str, Any]], world: World, sandbox: Sandbox, backups: Path
) -> None:
    images, counts, before = world.images(), replicas(world), snapshot(sandbox.mongo_uri)
    with pytest.raises(RolloutError) as raised:
        run(BAD)
    assert "apinizer-upgrade rollback" in raised.value.next
    broken = snapshot(sandbox.mongo_uri)
    assert "introduced_2025_08_0" in broken
    assert broken["api_proxy"] != before["api_proxy"]
    untouched = {key: text for key, text in world.written().items() if key in OTHERS}
    with Watching(world) as watching:
        result = back()
    assert (world.images(), replicas(world)) == (images, counts)
    assert snapshot(sandbox.mongo_uri) == before
    assert world.settled()
    assert all(OLD in answer for answer in world.answered().values())
    assert {key: text for key, text in world.written().items() if key in OTHERS} == untouched
    managers = [d for key, d in watching.seen if key == MANAGER]
    stopped = next(n for n, d in enumerate(managers) if d["spec"]["replicas"] == 0)
    old = next(n for n, d in enumerate(managers) if tag_of(d) == OLD)
    assert stopped < old
    assert managers[old]["spec"]["replicas"] == 0  # the old image is set while nothing can start
    assert result["complete"]
    assert result["restored"]
    assert ended(world) == [("upgrade", "rolled back"), ("rollback", "complete")]
    safety = Path(result["safety_backup"].partition(" on ")[0])
    held = {n["collection"] for n in json.loads(safety.with_name(f"{safety.name}.json").read_text())["namespaces"]}
    assert "introduced_2025_08_0" in held
    assert needed(backups) == {}
    assert leftovers(backups) == []
    # It is an installation like any other again.
    assert run(NEW, order=TOGETHER)["complete"]
    assert world.at(NEW) == ALL


def test_back_across_both_renames_after_all_was_upgraded(
    run: Run, back: Callable[..., dict[str, Any]], world: World, sandbox: Sandbox
) -> None:
    images, counts, before = world.images(), replicas(world), snapshot(sandbox.mongo_uri)
    assert run(NEXT, order=TOGETHER)["complete"]
    assert "apimanager" in world.images()[MANAGER]
    assert "apiportal" in world.images()["portal/apinizer-portal"]
    result = back(stop_all=True)
    assert (world.images(), replicas(world)) == (images, counts)
    assert snapshot(sandbox.mongo_uri) == before
    assert all(OLD in answer for answer in world.answered().values())
    assert result["complete"]
    assert ended(world) == [("upgrade", "rolled back"), ("rollback", "complete")]
    with pytest.raises(BlockedError, match="rolled back"):
        back()


def test_a_manager_that_never_started_left_the_database_as_it_was(
    run: Run, back: Callable[..., dict[str, Any]], world: World, sandbox: Sandbox, backups: Path
) -> None:
    images, counts = world.images(), replicas(world)
    sandbox.lose_image(f"apinizercloud/manager:{NEW}")
    with pytest.raises(RolloutError):
        run(NEW)
    with opened(sandbox.mongo_uri) as database:
        database.policy.insert_one({"_id": "made after the backup"})
    before = snapshot(sandbox.mongo_uri)
    result = back(backup="")  # nothing is put back, so nothing has to be named
    assert snapshot(sandbox.mongo_uri) == before
    assert (world.images(), replicas(world)) == (images, counts)
    assert world.settled()
    assert (result["restored"], result["safety_backup"]) == (False, "")
    assert "never" in result["database"] or "No container" in result["database"]
    assert len(archives(backups)) == 1
    assert ended(world) == [("upgrade", "rolled back"), ("rollback", "complete")]


@pytest.fixture
def dead(run: Run, world: World, backups: Path) -> Dead:  # `run` makes the installation known
    assert run
    return Dead(world, backups)


@pytest.fixture
def unpulled(run: Run, world: World) -> World:
    """An upgrade whose manager's image could not be pulled; a document that is in no backup was written since."""
    world.sandbox.lose_image(f"apinizercloud/manager:{NEW}")
    with pytest.raises(RolloutError):
        run(NEW)
    with opened(world.sandbox.mongo_uri) as database:
        database.policy.insert_one({"_id": "made after the backup"})
    return world


def test_resumed_before_the_manager_was_stopped_a_database_that_nobody_named_is_left_alone(
    unpulled: World, resume: Run, dead: Dead, backups: Path
) -> None:
    before, (upgrade,), now = snapshot(unpulled.sandbox.mongo_uri), dead.store.all(), datetime.now(UTC)
    owner = Owner(user="somebody", host="elsewhere", pid=1, tool="apinizer-upgrade")
    dead.store.create(
        Journal(
            id=run_id(now, "dead"),
            kind="rollback",
            of=upgrade.id,
            manager=upgrade.manager,
            current=upgrade.to,
            to=Version(OLD),
            request=upgrade.request,
            options={"stop_all": False, "without": "", "backup": ""},
            begun=now,
            tries=(Try(owner=owner, begun=now),),
            backup=upgrade.backup,
        )
    )
    result = resume()
    assert not result["restored"]
    assert snapshot(unpulled.sandbox.mongo_uri) == before
    assert len(archives(backups)) == 1
    assert unpulled.at(OLD) == ALL
    assert ended(unpulled) == [("upgrade", "rolled back"), ("rollback", "complete")]


def test_resumed_after_the_manager_was_stopped_the_backup_has_to_be_named(
    unpulled: World, back: Callable[..., dict[str, Any]], resume: Run
) -> None:

    def killed(*_: object, **__: object) -> None:
        raise BlockedError("A node is lost, and nobody knows what runs there.")

    before = snapshot(unpulled.sandbox.mongo_uri)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.cluster.scaling_steps.wait_no_pods", killed)
        with pytest.raises(UpgradeError, match="A node is lost") as blocked:
            back(backup="")
    assert blocked.value.exit_code == 1  # the manager was stopped by then
    assert replicas(unpulled)[MANAGER] == 0
    # How the manager was right before it was stopped nobody saw to the end: it is not proved that nothing ran.
    for again in (resume, lambda: back(backup="")):
        with pytest.raises(UsageError) as refused:
            again()
        told = four_parts(refused.value)
        assert f"apinizer-upgrade rollback {journals(unpulled)[-1]['id']} --backup {named(unpulled)}" in told
        assert snapshot(unpulled.sandbox.mongo_uri) == before
    assert back()["restored"]
    assert unpulled.at(OLD) == ALL
    with opened(unpulled.sandbox.mongo_uri) as database:
        assert database.policy.find_one({"_id": "made after the backup"}) is None


@pytest.fixture
def failed(run: Run, world: World) -> World:
    """An upgrade whose manager crashed while it migrated."""
    with pytest.raises(RolloutError):
        run(BAD)
    return world


def _lose_backup(world: World, backups: Path) -> None:
    archives(backups)[0].unlink()


def _lose_manifest(world: World, backups: Path) -> None:
    archive = archives(backups)[0]
    archive.with_name(f"{archive.name}.json").unlink()


def _damage_backup(world: World, backups: Path) -> None:
    archive = archives(backups)[0]
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    archive.write_bytes(bytes(content))


def _replace_backup(world: World, backups: Path) -> None:
    """Another backup under the same name, a good one."""
    from flows.backup import backup

    made = Path(backup(installation="tested", backup_dir=str(backups.parent / "other"))["archive"])
    archive = archives(backups)[0]
    archive.write_bytes(made.read_bytes())
    archive.with_name(f"{archive.name}.json").write_bytes(made.with_name(f"{made.name}.json").read_bytes())


def _lose_old_image(world: World, backups: Path) -> None:
    world.sandbox.lose_image(f"apinizercloud/manager:{OLD}")


def _self_heal(world: World, backups: Path) -> None:
    body = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "grows"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "manager"},
            "minReplicas": 1,
            "maxReplicas": 3,
        },
    }
    path = "/apis/autoscaling/v2/namespaces/apinizer/horizontalpodautoscalers"
    assert world.ask("POST", path, body)[0] == 201


def _made_anew(world: World, backups: Path) -> None:
    found = world.get(world.path(MANAGER))
    meta = {k: v for k, v in found["metadata"].items() if k in ("name", "labels", "annotations")}
    assert world.ask("DELETE", world.path(MANAGER))[0] == 200
    path = world.path(MANAGER).rpartition("/")[0]
    made = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": found["spec"]}
    assert world.ask("POST", path, made)[0] == 201


def _no_folder(world: World, backups: Path) -> None:
    """Where the safety backup is to go there is a file."""
    (backups.parent / "elsewhere").write_text("")


def _third_image(world: World, backups: Path) -> None:
    world.set_image("test/worker", f"apinizercloud/worker:{NEXT}")


@pytest.mark.parametrize(
    ("spoil", "kind", "text"),
    [
        (None, UsageError, "--backup"),
        (_lose_backup, BlockedError, "is gone"),
        (_lose_manifest, BlockedError, "without its manifest"),
        (_damage_backup, DamagedArchiveError, "no way back with this backup"),
        (_replace_backup, BlockedError, "is not the backup of before"),
        (_lose_old_image, BlockedError, "nowhere to be had"),
        (_made_anew, BlockedError, "made anew"),
        (_third_image, BlockedError, "test/worker"),
        (_no_folder, UsageError, "elsewhere is no directory"),
    ],
    ids=["not named", "gone", "no manifest", "damaged", "another", "no images", "another manager", "newer worker", "no place"],
)  # fmt: skip
def test_what_is_refused_before_anything_is_touched(
    failed: World,
    back: Callable[..., dict[str, Any]],
    backups: Path,
    spoil: Callable[[World, Path], None] | None,
    kind: type[Exception],
    text: str,
) -> None:
    backup = named(failed) if spoil else ""
    if spoil is not None:
        spoil(failed, backups)
    before, content = failed.written(), settings(failed)
    elsewhere = backups.parent / "elsewhere"
    with pytest.raises(kind) as raised:
        back(backup=backup, **({"backup_dir": str(elsewhere)} if elsewhere.exists() else {}))
    told = four_parts(raised.value)  # type: ignore[arg-type]
    assert text in told
    assert "This try changed nothing." in raised.value.safe  # type: ignore[attr-defined]
    if kind is DamagedArchiveError:
        assert "apinizer-upgrade rollback" not in told
    assert MANAGER in raised.value.safe  # type: ignore[attr-defined]
    no_secret(failed, told)
    assert failed.written() == before
    assert settings(failed) == content
    assert [how for kind, how in ended(failed) if kind == "rollback"] == []


def test_back_to_a_manager_that_was_made_anew_whose_database_has_another_address(
    failed: World, back: Callable[..., dict[str, Any]], backups: Path
) -> None:
    """The same installation, deployed again: what the database holds says so, once a person says it of the manager."""
    _made_anew(failed, backups)
    failed.set_database_url(failed.database_url().replace("127.0.0.1", "localhost"))
    assert "localhost" in failed.database_url()
    result = back(manager_made_anew=True)
    assert result["restored"]
    assert failed.at(OLD) == ALL
    assert not [name for name in settings_names(failed) if "introduced" in name]
    assert ended(failed) == [("upgrade", "rolled back"), ("rollback", "complete")]


def _refused(back: Callable[..., dict[str, Any]], world: World, kind: type[UpgradeError], **asked: Any) -> str:
    """The four parts of a refusal; nothing was touched by it."""
    written, content, runs = world.written(), snapshot(world.sandbox.mongo_uri), ended(world)
    with pytest.raises(kind) as raised:
        back(**asked)
    assert (world.written(), snapshot(world.sandbox.mongo_uri), ended(world)) == (written, content, runs)
    assert lock_holder(world) == ""
    assert raised.value.safe == "Nothing was changed."
    assert raised.value.next
    return four_parts(raised.value)


def _rewrite(world: World, run: str, **changes: Any) -> None:
    """Change what a run's journal says."""
    path = f"/api/v1/namespaces/apinizer/configmaps/apinizer-upgrade-{run}"
    journal = json.loads(world.get(path)["data"]["journal.json"]) | changes
    world.change(path, {"data": {"journal.json": json.dumps(journal)}})


def test_what_is_refused_of_an_installation_that_serves(
    run: Run, back: Callable[..., dict[str, Any]], world: World
) -> None:
    first, second = run(NEW, order=TOGETHER)["run"], run(NEXT, order=TOGETHER)["run"]
    told = _refused(back, world, BlockedError, run=first)
    assert "its backup is older than that one" in told
    assert f"apinizer-upgrade rollback {second}" in told
    assert "another than the one that was shown" in _refused(back, world, DriftError, run=second, mark="agreed to")
    made = journals(world)[-1]["backup"]
    _rewrite(world, second, backup=None)
    told = _refused(back, world, BlockedError, run=second)
    assert "recorded no backup" in told
    assert f"apinizer-upgrade runs show {second}" in told
    _rewrite(world, second, backup=made)
    with opened(world.sandbox.mongo_uri) as database:
        for name in database.list_collection_names():
            held = [{**document, "_id": ObjectId()} for document in database[name].find()]
            database.drop_collection(name)
            if held:
                database[name].insert_many(held)
    assert "of another installation" in _refused(back, world, BlockedError, run=second)


def test_nothing_to_go_back_from(run: Run, back: Callable[..., dict[str, Any]], world: World) -> None:
    before = world.written()
    with pytest.raises(UsageError, match="no upgrade to go back from") as raised:
        back()
    four_parts(raised.value)
    assert world.written() == before


# Every boundary is gone through by the fault suite.
PLACES = [
    pytest.param(MANAGER, "scaled to 0", id="stopped"),
    pytest.param("proof", "every checksum right", id="nothing begun"),
    pytest.param("restore", "putting in place", id="in the middle of the restore"),
    pytest.param(MANAGER, "image set", id="old image set"),
]


def ending_of(run: Callable[..., dict[str, Any]]) -> StoppedError | None:
    """The error of a run that was told to stop; None where that came too late for it to matter."""
    try:
        run()
    except StoppedError as stopped:
        return stopped
    return None


@pytest.mark.parametrize(("subject", "text"), PLACES)
def test_interrupted_it_tells_where_and_goes_on(
    failed: World, back: Callable[..., dict[str, Any]], backups: Path, subject: str, text: str
) -> None:
    from tasks.record import stopping

    seen = list[str]()
    act = Once(subject, text, stopping.ask)
    with listening(act), listening(lambda event: seen.append(f"{event.subject}: {event.text}")):
        stopped = ending_of(back)
    assert act.acted, seen
    if ended(failed)[-1][0] == "upgrade":
        assert stopped is not None
        assert stopped.safe.startswith("This try changed nothing.")
    elif stopped is not None:
        assert "Nothing was changed" not in stopped.safe
        assert f"apinizer-upgrade resume {journals(failed)[-1]['id']}" in stopped.next
        assert ended(failed)[-1] == ("rollback", None)
    if stopped is not None:
        back()
    assert failed.at(OLD) == ALL
    assert failed.settled()
    with opened(failed.sandbox.mongo_uri) as database:
        assert not [name for name in database.list_collection_names() if "introduced" in name or "restore" in name]
    assert ended(failed) == [("upgrade", "rolled back"), ("rollback", "complete")]
    assert needed(backups) == {}


def test_a_manager_that_somebody_starts_meanwhile(
    failed: World, back: Callable[..., dict[str, Any]], backups: Path
) -> None:
    start = Once("restore", "from", lambda: failed.change(failed.path(MANAGER), {"spec": {"replicas": 1}}))
    with listening(start), pytest.raises(DriftError) as raised:
        back()
    assert start.acted
    assert "apinizer-upgrade resume" in four_parts(raised.value)
    assert ended(failed)[-1] == ("rollback", None)
    back()  # with a safety backup of its own: the manager has written since the first one
    assert len(archives(backups)) == 3
    assert failed.at(OLD) == ALL
    with opened(failed.sandbox.mongo_uri) as database:
        assert not [name for name in database.list_collection_names() if "introduced" in name]


def test_with_all_stopped_a_worker_that_somebody_starts_in_mid_restore_ends_it(
    failed: World, back: Callable[..., dict[str, Any]]
) -> None:
    worker, put = WORKERS[0], list[str]()
    start = Once("restore", "from", lambda: failed.change(failed.path(worker), {"spec": {"replicas": 1}}))
    with (
        listening(start),
        listening(lambda event: put.append(event.text) if "collection checked" in event.text else None),
        pytest.raises(DriftError) as raised,
    ):
        back(stop_all=True)
    assert start.acted
    assert worker.partition("/")[2] in raised.value.observed
    assert "Start nothing on it" in raised.value.safe
    assert "left as found" not in raised.value.safe, "that is said of a Deployment, and not of the database"
    assert not put, "nothing was put in place after it"
    assert back(stop_all=True)["restored"]
    assert failed.at(OLD) == ALL


def test_a_manager_that_somebody_starts_between_two_tries(
    failed: World, back: Callable[..., dict[str, Any]], resume: Run, backups: Path
) -> None:
    """Its database was put back, its old image not yet set: the new version migrates again."""
    from tasks.record import stopping

    act = Once("restore", "every collection checked", stopping.ask)
    with listening(act), pytest.raises(StoppedError):
        back()
    assert act.acted
    assert (failed.at(BAD), replicas(failed)[MANAGER]) == ({MANAGER}, 0)
    failed.change(failed.path(MANAGER), {"spec": {"replicas": 1}})
    assert eventually(lambda: any("introduced" in name for name in settings_names(failed)))
    result = resume()
    assert result["restored"]
    assert not [name for name in settings_names(failed) if "introduced" in name]
    assert failed.at(OLD) == ALL
    assert replicas(failed)[MANAGER] == 1
    assert len(archives(backups)) == 3  # what it made of the database since is in a backup too
    named = [result["safety_backup"], *result["later_safety_backups"]]
    assert [where.partition(" on ")[0] for where in named] == [str(path) for path in archives(backups)[1:]]
    assert ended(failed) == [("upgrade", "rolled back"), ("rollback", "complete")]


def test_a_manager_that_somebody_starts_as_soon_as_the_database_is_back(
    failed: World, back: Callable[..., dict[str, Any]]
) -> None:
    """Whoever notices first, the watch or the setting of the image: what is said is what holds of the database."""
    text, up = "every collection checked", {"spec": {"replicas": 1}}
    start = Once("restore", text, lambda: failed.change(failed.path(MANAGER), up))
    with listening(start), pytest.raises(DriftError) as raised:
        back()
    assert start.acted
    assert "Start nothing on it" in raised.value.safe
    assert "left as found" not in raised.value.safe
    assert back()["restored"]
    assert failed.at(OLD) == ALL
    assert not [name for name in settings_names(failed) if "introduced" in name]


def test_going_on_leaves_out_what_it_was_told_to(
    failed: World, back: Callable[..., dict[str, Any]], resume: Run, backups: Path
) -> None:
    from tasks.record import stopping

    _third_image(failed, backups)
    act = Once(MANAGER, "image set", stopping.ask)
    with listening(act), pytest.raises(StoppedError):
        back(without=["test/worker"])
    assert act.acted
    held_for = set[str]()
    with listening(lambda event: held_for.add(lock_run(failed)) if event.subject == MANAGER else None):
        assert resume()["complete"]
    assert held_for == {journals(failed)[-1]["id"]}
    assert failed.at(OLD) == ALL - {"test/worker"}
    assert failed.at(NEXT) == {"test/worker"}
    assert journals(failed)[-1]["options"]["without"] == "test/worker"


def test_a_manager_that_somebody_starts_right_before_its_old_image_is_set(
    failed: World, back: Callable[..., dict[str, Any]], resume: Run
) -> None:
    start = Once(MANAGER, f"manager:{OLD}", lambda: failed.change(failed.path(MANAGER), {"spec": {"replicas": 1}}))
    with listening(start), pytest.raises(DriftError) as raised:
        back()
    assert start.acted
    told = four_parts(raised.value)
    assert "apinizer-upgrade resume" in told
    assert "Start nothing on it" in raised.value.safe
    assert "is as it was" not in raised.value.safe
    assert failed.at(BAD) == {MANAGER}
    assert eventually(lambda: any("introduced" in name for name in settings_names(failed)))
    assert resume()["restored"]
    assert not [name for name in settings_names(failed) if "introduced" in name]
    assert failed.at(OLD) == ALL


def settings_names(world: World) -> list[str]:
    with opened(world.sandbox.mongo_uri) as database:
        return list(database.list_collection_names())


def test_a_worker_alone_goes_only_where_the_database_is(run: Run, world: World, sandbox: Sandbox) -> None:
    from flows.undo import undo

    assert run(NEW, order=TOGETHER)["complete"]
    world.set_image("test/worker", f"apinizercloud/worker:{NEXT}")  # it needs a database that is not there yet
    before = world.written()
    for to, part in ((OLD, f"the database is at {NEW}"), (NEXT, "has to be the first")):
        with pytest.raises(BlockedError) as raised:
            undo("test/worker", to, "tested")
        assert part in four_parts(raised.value)
    with pytest.raises(BlockedError, match="cannot go back alone"):
        undo(MANAGER, OLD, "tested")
    assert {k: v for k, v in world.written().items() if k != "test/worker"} == {
        k: v for k, v in before.items() if k != "test/worker"
    }
    from tasks.record import stopping

    held_for = set[str]()
    again = undo.with_options(retries=1, retry_delay_seconds=0)
    act = Once("test/worker", "image set", stopping.ask)
    with listening(act), listening(lambda _: held_for.add(lock_run(world)) if act.acted else None):
        result = again("test/worker", NEW, "tested", repositories={"worker": "worker"})
    made = journals(world)[-1]
    assert (len(made["tries"]), made["id"]) == (2, result["run"])
    assert made["id"] in held_for
    assert made["request"]["repositories"] == {"worker": "worker"}
    with pytest.raises(BlockedError, match="has ended"):
        undo("test/worker", NEW, "tested", run=made["id"])
    assert world.images()["test/worker"] == f"apinizercloud/worker:{NEW}"
    assert set(result["answered"]) == {NEW}
    assert world.at(NEW) == ALL
    assert ended(world) == [("upgrade", "complete"), ("rollback", "complete")]


def test_told_to_an_upgrade_goes_back_by_itself_only_from_a_manager_that_failed_for_good(
    run: Run, world: World, sandbox: Sandbox
) -> None:
    images, before = world.images(), snapshot(sandbox.mongo_uri)
    sandbox.faults(hanging=[f"manager:{NEW}"])
    with pytest.raises(RolloutError, match="did not become Ready within") as slow:
        run(NEW, on_failure="rollback", manager_timeout=3)
    assert "apinizer-upgrade rollback" in slow.value.next  # a deadline is a person's to decide about
    assert ended(world) == [("upgrade", None)]
    assert world.at(NEW) == {MANAGER}
    from flows.rollback import rollback

    sandbox.faults(hanging=[])
    rollback(run=journals(world)[0]["id"], installation="tested", backup=named(world))
    assert world.images() == images
    with pytest.raises(RolloutError) as raised:
        run(BAD, on_failure="rollback")
    assert "It was rolled back" in four_parts(raised.value)
    assert "FATAL" in raised.value.observed
    assert world.images() == images
    assert snapshot(sandbox.mongo_uri) == before
    assert ended(world) == [("upgrade", "rolled back"), ("rollback", "complete")] * 2


def test_a_manager_that_only_lacked_its_database_for_a_while_is_not_undone_by_itself(
    run: Run, resume: Run, world: World, sandbox: Sandbox
) -> None:
    away = Once(MANAGER, "image set", sandbox.stop_database)
    back = Once(MANAGER, "watched once more", sandbox.start_database)
    with listening(away), listening(back), pytest.raises(RolloutError) as raised:
        run(NEW, on_failure="rollback")
    assert away.acted
    assert back.acted
    assert "It was not rolled back by itself" in raised.value.observed
    assert "apinizer-upgrade resume" in raised.value.next
    assert ended(world) == [("upgrade", None)], "no rollback was begun"
    resume()
    assert world.at(NEW) == ALL
