"""An upgrade that nothing hinders: what the world is afterwards, and in what order it came to be so."""

import itertools
import json
import os
from pathlib import Path

import pytest

from deployments.sandbox.launch import Sandbox
from tasks.domain.errors import NOTHING_CHANGED, HopelessError
from tasks.record.feed import listening
from tests.flows.conftest import Run
from tests.flows.test_failures import Once, four_parts
from tests.flows.world import (
    ALL,
    MANAGER,
    NEW,
    OLD,
    Watching,
    World,
    archives,
    journals,
    leftovers,
    lock_holder,
)


def test_everything_reaches_the_target_in_the_order_of_the_procedure(run: Run, world: World, backups: Path) -> None:
    with Watching(world) as watching:
        report = run(NEW)
    assert world.at(NEW) == ALL
    assert world.settled()
    assert set(world.answered().values()) == {next(iter(world.answered().values()))}
    assert all(NEW in answer for answer in world.answered().values())
    assert report["complete"]
    assert {row["deployment"] for row in report["rows"] if row["reached"]} == ALL
    manager_ready = watching.first_ready(MANAGER, NEW)
    touched = {key: watching.first_touched(key, NEW) for key in ALL}
    assert touched[MANAGER] == min(touched.values())
    assert all(touched[key] > manager_ready for key in ALL - {MANAGER})
    test_done = max(watching.first_ready(key, NEW) for key in ("test/worker", "test/cache"))
    prod_done = max(watching.first_ready(key, NEW) for key in ("prod/worker-prod", "prod/cache-prod"))
    assert min(touched["prod/worker-prod"], touched["prod/cache-prod"]) > test_done
    assert min(touched["portal/apinizer-portal"], touched["integration/apinizer-integration"]) > prod_done
    (archive,) = archives(backups)
    assert archive.stat().st_mode & 0o777 == 0o600
    assert f"--{OLD}--" in archive.name
    assert report["backup"].startswith(f"{archive} on {os.uname().nodename}")
    assert leftovers(backups) == []


def test_the_journal_tells_what_was_there_and_what_came(run: Run, world: World, backups: Path) -> None:
    images, generations = world.images(), world.generations()
    report = run(NEW, order="all components together")
    (journal,) = journals(world)
    assert (journal["id"], journal["kind"], journal["how"]) == (report["run"], "upgrade", "complete")
    assert (journal["current"], journal["to"]) == (OLD, NEW)
    assert journal["tries"][0]["owner"]["host"] == os.uname().nodename
    assert journal["tries"][0]["ended"]
    (archive,) = archives(backups)
    assert journal["backup"]["archive"] == str(archive)
    assert journal["backup"]["hosts"]
    entries = {e["subject"]: e for e in journal["entries"]}
    assert {e["kind"] for e in journal["entries"]} == {"set-image"}
    assert set(entries) == ALL
    for key, entry in entries.items():
        (container,) = entry["before"]["images"]
        assert entry["before"]["images"][container] == images[key]
        assert entry["before"]["generation"] == generations[key]
        assert entry["before"]["uid"] == world.deployments()[key]["metadata"]["uid"]
        assert entry["before"]["replicas"] == world.deployments()[key]["spec"]["replicas"]
        assert entry["before"]["ran"][container]
        space, _, name = key.partition("/")
        assert entry["undo"].startswith(f"kubectl -n {space} set image deployment/{name} {container}={images[key]}")
        assert entry["images"] == {container: world.images()[key]}
        assert entry["done"]
        assert entry["evidence"]["answered"] == NEW
    assert json.loads(archive.with_name(f"{archive.name}.journal.json").read_text()) == journal
    assert lock_holder(world) == ""
    cause = f"apinizer-upgrade: {OLD} to {NEW}, run {report['run']}"
    assert {key: causes(world, key)[-1] for key in ALL} == dict.fromkeys(ALL, cause)


def causes(world: World, key: str) -> list[str]:
    """The change-causes that `kubectl rollout history` shows, the oldest revision first."""
    uid = world.deployments()[key]["metadata"]["uid"]
    found = []
    for each in world.get("/apis/apps/v1/replicasets")["items"]:
        if any(owner["uid"] == uid for owner in each["metadata"].get("ownerReferences") or ()):
            notes = each["metadata"].get("annotations") or {}
            found.append((int(notes["deployment.kubernetes.io/revision"]), notes.get("kubernetes.io/change-cause", "")))
    return [cause for _, cause in sorted(found)]


def test_the_second_time_there_is_nothing_to_do(run: Run, world: World, backups: Path) -> None:
    run(NEW, order="all components together")
    before, kept = world.written(), archives(backups)
    report = run(NEW)
    assert report["complete"]
    assert world.written() == before
    assert archives(backups) == kept


def test_together_all_others_go_at_once_but_after_the_manager(run: Run, world: World) -> None:
    with Watching(world) as watching:
        run(NEW, order="all components together")
    manager_ready = watching.first_ready(MANAGER, NEW)
    others = ALL - {MANAGER}
    touched = [watching.first_touched(key, NEW) for key in others]
    assert min(touched) > manager_ready
    # At once: each is touched before the first of them is Ready... bar those whose turn the machine gave late.
    assert min(touched) < max(touched) < max(watching.first_ready(key, NEW) for key in others)
    assert world.at(NEW) == ALL


def test_one_at_a_time_no_two_are_under_way(run: Run, world: World) -> None:
    with Watching(world) as watching:
        run(NEW, order="all components together", parallel=1)
    spans = sorted((watching.first_touched(key, NEW), watching.first_ready(key, NEW)) for key in ALL)
    assert all(ready < following for (_, ready), (following, _) in itertools.pairwise(spans))


def test_the_operators_order_of_environments_is_kept(run: Run, world: World) -> None:
    with Watching(world) as watching:
        run(NEW, environments=["prod", "test"])
    prod_done = max(watching.first_ready(key, NEW) for key in ("prod/worker-prod", "prod/cache-prod"))
    assert min(watching.first_touched(key, NEW) for key in ("test/worker", "test/cache")) > prod_done


def test_across_both_renames(run: Run, world: World) -> None:
    run("2025.11.1", order="all components together")
    images = world.images()
    assert images[MANAGER] == "apinizercloud/apimanager:2025.11.1"
    assert images["portal/apinizer-portal"] == "apinizercloud/apiportal:2025.11.1"
    assert world.at("2025.11.1") == ALL


def test_a_half_done_upgrade_is_finished_without_another_backup(run: Run, world: World, backups: Path) -> None:
    # The manager is there already: as after a run that died, or after somebody's hand.
    world.set_image(MANAGER, f"apinizercloud/manager:{NEW}")
    report = run(NEW)
    assert report["complete"]
    assert world.at(NEW) == ALL
    assert world.settled()


def test_what_is_not_of_the_components_stays_as_it_is(run: Run, world: World) -> None:
    pod = {"containers": [{"name": "log-shipper", "image": "realcluster/pause:1"}]}
    world.change(
        world.path("test/worker"), {"spec": {"template": {"spec": pod}}}, "application/strategic-merge-patch+json"
    )
    run(NEW)
    containers = world.get(world.path("test/worker"))["spec"]["template"]["spec"]["containers"]
    assert {c["name"]: c["image"] for c in containers} == {
        "apinizer-worker": f"apinizercloud/worker:{NEW}",
        "log-shipper": "realcluster/pause:1",
    }
    assert "FATAL" not in json.dumps(world.answered())


def test_what_stops_the_automatic_way_back_does_not_hide_why(
    run: Run, world: World, sandbox: Sandbox, backups: Path
) -> None:
    sandbox.lose_image(f"apinizercloud/manager:{NEW}", "node-a", "node-b")
    unread = Once(
        "run",
        "will not become Ready",
        lambda: sandbox.fail_requests(403, path=r"/configmaps$", methods=("GET",)),
    )
    with listening(unread), pytest.raises(HopelessError, match="apinizer/manager will not become Ready") as raised:
        run(NEW, on_failure="rollback")
    sandbox.faults(answers=[])
    text = four_parts(raised.value)
    assert unread.acted
    assert "The rollback that followed stopped:" in raised.value.happened
    assert str(archives(backups)[0]) in raised.value.safe
    assert NOTHING_CHANGED not in text
    (journal,) = journals(world)
    assert f"apinizer-upgrade rollback {journal['id']}" in raised.value.next
    assert world.at(NEW) == {MANAGER}
