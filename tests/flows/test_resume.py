"""Going on with a run: what was journalled and what is in the world decide, whoever began it and however it ended."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from blocks.installation import provide
from blocks.settings import ClusterSettings, DatabaseSettings, InstallationSettings
from deployments.sandbox.launch import Sandbox
from tasks.cluster.planning import Connections
from tasks.cluster.recorded_change import before_of, entry_of
from tasks.domain.errors import BlockedError, DriftError, RolloutError, UnprovenError, UpgradeError, UsageError
from tasks.domain.journal import BackupMade, Journal, Owner, Try, run_id
from tasks.domain.plan import PlanRequest
from tasks.domain.step import ImageChange, RolloutStep
from tasks.domain.version import Version
from tasks.record.feed import Event, State, listening
from tasks.record.journal_store import JournalStore, journal_store_for
from tasks.record.lease import Lease
from tests.flows.conftest import Run
from tests.flows.test_failures import Once, four_parts
from tests.flows.world import ALL, MANAGER, NEW, OLD, World, archives, journals, lock_holder, lock_run, needed

NEW_MANAGER = f"apinizercloud/manager:{NEW}"


class Dead:
    """The journals of runs that were killed at a chosen point, as they would have left them."""

    def __init__(self, world: World, backups: Path) -> None:
        self.world, self._backups = world, backups
        settings = InstallationSettings(clusters=(ClusterSettings(kubeconfig_path=str(world.sandbox.kubeconfig)),))
        self._connections = Connections.open(settings)

    @property
    def store(self) -> JournalStore:
        return journal_store_for(self._connections, self._connections.inventory())

    def run(
        self, *, backup: BackupMade | None = None, manager: bool = False, flow_run: str = "", on_failure: str = "stop"
    ) -> Journal:
        """A run to NEW; with its backup noted, with the manager's change begun."""
        inventory = self._connections.inventory()
        assert inventory.manager is not None
        now = datetime.now(UTC)
        owner = Owner(user="somebody", host="elsewhere", pid=1, tool="apinizer-upgrade", run=flow_run)
        journal = Journal(
            id=run_id(now, "dead"),
            kind="upgrade",
            manager=inventory.manager.key,
            current=Version(OLD),
            to=Version(NEW),
            request=PlanRequest(to=Version(NEW), together=True),
            options={"on_failure": on_failure},
            begun=now,
            tries=(Try(owner=owner, begun=now),),
            backup=backup,
        )
        if manager:
            journal = journal.begin(self.managers_change(now))
        self.store.create(journal)
        return journal

    def managers_change(self, at: datetime) -> Any:
        """The entry of the manager's change as it stands before the change is made."""
        facts = self._connections.inventory().manager
        assert facts is not None
        found = self.world.get(self.world.path(MANAGER))
        change = ImageChange(container=facts.main.name, old=facts.main.image, new=NEW_MANAGER)
        step = RolloutStep(
            key=facts.key,
            uid=facts.uid,
            resource_version=facts.resource_version,
            component=facts.component,
            changes=(change,),
            replicas=facts.replicas,
        )
        pods = [p for p in self.world.pods() if p["metadata"]["namespace"] == "apinizer"]
        return entry_of(step, before_of(found, pods, step), at)

    def backup(self, **but: Any) -> BackupMade:
        """A proved backup of the database as it is, as the journal names it."""
        from flows.backup import backup

        made = backup(installation="tested")
        names = ("host", "archive", "sha256", "documents", "version")
        facts = {"database": "apinizerdb", "hosts": ("h:1",), "made": datetime.now(UTC)}
        return BackupMade(**{name: made[name] for name in names} | facts | but)


@pytest.fixture
def dead(run: Run, world: World, backups: Path) -> Dead:  # `run` makes the installation known
    assert run
    return Dead(world, backups)


class Told:
    """What was told of a subject."""

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self.texts: list[str] = []

    def __call__(self, event: Event) -> None:
        if event.subject == self._subject:
            self.texts.append(event.text)


def test_killed_before_its_first_change_it_stands_in_nobodys_way(
    run: Run, resume: Run, dead: Dead, world: World
) -> None:
    idle = dead.run()
    report = run(NEW, order="all components together")
    assert report["complete"]
    assert {j["id"]: j["how"] for j in journals(world)} == {idle.id: "nothing changed", report["run"]: "complete"}
    with pytest.raises(BlockedError, match="has ended: nothing changed"):
        resume(run=idle.id)


def test_killed_before_its_first_change_it_makes_its_backup_anew(
    resume: Run, dead: Dead, world: World, backups: Path
) -> None:
    stale = dead.backup()
    journal = dead.run(backup=stale)
    assert resume()["complete"]
    assert world.at(NEW) == ALL
    (after,) = journals(world)
    assert (after["id"], after["how"], len(after["tries"])) == (journal.id, "complete", 2)
    # The database went on until then: the backup that counts was made right before the manager.
    assert after["backup"]["archive"] != stale.archive
    assert len(archives(backups)) == 2
    assert needed(backups) == {}


def test_killed_right_before_the_managers_change_its_backup_stays_the_one(
    resume: Run, dead: Dead, world: World, backups: Path
) -> None:
    made = dead.backup()
    journal = dead.run(backup=made, manager=True)
    report = resume(run=journal.id[:-2])
    assert report["complete"]
    assert report["backup"] == f"{made.archive} on {made.host}"
    assert [str(path) for path in archives(backups)] == [made.archive]
    (after,) = journals(world)
    assert after["backup"]["sha256"] == made.sha256
    assert [e["subject"] for e in after["entries"]].count(MANAGER) == 1
    assert after["entries"][0]["evidence"]["answered"] == NEW
    assert world.at(NEW) == ALL


def test_killed_right_after_the_managers_change_it_is_not_made_again(
    resume: Run, dead: Dead, world: World, backups: Path, sandbox: Sandbox
) -> None:
    made = dead.backup()
    dead.run(backup=made, manager=True)
    world.set_image(MANAGER, NEW_MANAGER)
    before = world.generations()[MANAGER]
    assert resume()["complete"]
    assert world.generations()[MANAGER] == before
    assert [str(path) for path in archives(backups)] == [made.archive]
    (after,) = journals(world)
    assert [e["subject"] for e in after["entries"]].count(MANAGER) == 1
    assert all(e.get("done") for e in after["entries"])
    # The copy beside the backup follows.
    assert json.loads(Path(f"{made.archive}.journal.json").read_text())["how"] == "complete"


def test_from_another_pod_with_the_same_volume_the_backup_is_looked_at(
    run: Run, resume: Run, dead: Dead, world: World, sandbox: Sandbox, backups: Path, tmp_path: Path
) -> None:
    image = f"apinizercloud/manager:{NEW}"
    sandbox.lose_image(image, "node-a", "node-b")
    with pytest.raises(RolloutError):
        run(NEW, order="all components together")
    (archive,) = archives(backups)
    assert needed(backups) == {archive.name: ["upgrade"]}
    (journal,) = dead.store.all()
    assert journal.backup is not None
    store = dead.store
    store.all()
    store.save(journal.model_copy(update={"backup": journal.backup.model_copy(update={"host": "the-other-pod"})}))
    sandbox.faults(missing_images={})
    for node in ("node-a", "node-b"):
        sandbox.load_image(image, node)
    assert resume(backup_dir=str(tmp_path / "elsewhere"))["complete"]
    assert needed(backups) == {}
    assert json.loads(archive.with_name(f"{archive.name}.journal.json").read_text())["how"] == "complete"


def test_from_another_pod_a_backup_that_is_another_does_not_pass(resume: Run, dead: Dead, world: World) -> None:
    made = dead.backup(host="the-other-pod", sha256="0" * 64)
    dead.run(backup=made, manager=True)
    before = world.written()
    with pytest.raises(UnprovenError, match="not the one that was proved"):
        resume()
    assert world.written() == before


@pytest.mark.parametrize("fault", ["gone", "another"])
def test_without_its_backup_the_manager_is_not_set(resume: Run, dead: Dead, world: World, fault: str) -> None:
    made = dead.backup(**{"sha256": "0" * 64} if fault == "another" else {})
    journal = dead.run(backup=made, manager=True)
    if fault == "gone":
        Path(made.archive).unlink()
    before = world.written()
    with pytest.raises(UpgradeError if fault == "gone" else UnprovenError) as raised:
        resume()
    assert raised.value.exit_code == 1  # a finding blocks only what has changed nothing
    assert made.archive in four_parts(raised.value)
    assert world.written() == before
    (after,) = journals(world)
    assert (after["id"], after.get("ended")) == (journal.id, None)
    assert lock_holder(world) == ""


def test_a_backup_on_another_machine_is_only_named(resume: Run, dead: Dead, world: World, backups: Path) -> None:
    made = dead.backup(host="the-other-machine")
    Path(made.archive).unlink()
    dead.run(backup=made, manager=True)
    told = Told("backup")
    with listening(told):
        report = resume()
    assert report["complete"]
    assert report["backup"] == f"{made.archive} on the-other-machine"
    assert any("the-other-machine" in text for text in told.texts)
    assert archives(backups) == []


def test_what_somebody_changed_since_is_named_and_left(resume: Run, dead: Dead, world: World) -> None:
    journal = dead.run(backup=dead.backup(), manager=True)
    world.set_image(MANAGER, "apinizercloud/manager:2025.04.4")
    before = world.generations()
    with pytest.raises(DriftError) as raised:
        resume()
    assert "apinizercloud/manager:2025.04.4" in four_parts(raised.value)
    assert f"runs abandon {journal.id}" in raised.value.next
    assert world.generations() == before
    world.set_image(MANAGER, f"apinizercloud/manager:{OLD}")
    assert resume()["complete"]


def test_what_is_not_there_to_go_on_with(run: Run, resume: Run, world: World) -> None:
    with pytest.raises(UsageError, match="no unfinished run"):
        resume()
    report = run(NEW, order="all components together")
    with pytest.raises(BlockedError, match="has ended"):
        resume(run=report["run"])
    with pytest.raises(UsageError):
        resume(run="20200101")
    assert len(journals(world)) == 1


def test_the_same_flow_run_goes_on_when_prefect_runs_it_again(
    prefect_server: object, run: Run, world: World, sandbox: Sandbox, backups: Path
) -> None:
    from flows.upgrade import upgrade

    assert prefect_server
    sandbox.faults(crashing=[f"worker:{NEW}"])
    failed: list[str] = []

    held_for = set[str]()

    def mended(event: Event) -> None:
        if failed and event.subject == MANAGER:
            held_for.add(lock_run(world))
        if event.subject == "run" and event.state is State.ENDED and event.text:
            failed.append(event.text)
            sandbox.faults(crashing=[])
            for pod in world.pods():
                if "worker" in pod["metadata"]["name"]:
                    world.delete_pod(pod)

    with listening(mended):
        again = upgrade.with_options(retries=1, retry_delay_seconds=0)
        report = again(to=NEW, installation="tested", order="all components together")
    assert len(failed) == 1
    assert report["complete"]
    assert world.at(NEW) == ALL
    (journal,) = journals(world)
    assert (journal["how"], len(journal["tries"])) == ("complete", 2)
    assert held_for == {journal["id"]} == {report["run"]}
    assert len({one["owner"]["run"] for one in journal["tries"]}) == 1
    assert len(archives(backups)) == 1


def test_what_was_to_follow_a_failed_manager_follows_in_the_try_that_sets_it(
    resume: Run, dead: Dead, world: World, sandbox: Sandbox
) -> None:
    dead.run(on_failure="rollback")
    sandbox.faults(crashing=[f"manager:{NEW}"])
    with pytest.raises(RolloutError) as raised:
        resume()
    assert "It was rolled back" in four_parts(raised.value)
    assert world.at(OLD) == ALL
    assert [(j["kind"], j["how"]) for j in journals(world)] == [("upgrade", "rolled back"), ("rollback", "complete")]


def test_another_flow_run_does_not_take_it_for_its_own(run: Run, dead: Dead, world: World) -> None:
    journal = dead.run(manager=True, flow_run="0199e2a5-0000-7000-8000-000000000000")
    with pytest.raises(BlockedError, match="is unfinished") as raised:
        run(NEW)
    # "Nothing was changed" would be the try's own view only.
    assert raised.value.safe == f"This try changed nothing. Changed by the run {journal.id} before: {MANAGER}."
    assert raised.value.next.count(f"apinizer-upgrade resume {journal.id}") == 1
    assert world.at(OLD) == ALL


def test_two_that_go_on_at_once_the_second_is_told_of_the_first(dead: Dead, resume: Run, world: World) -> None:
    journal = dead.run(manager=True)
    owner = journal.tries[0].owner.model_copy(update={"user": "the first"})
    with (
        Lease(dead.store.api, "apinizer", owner=owner, run=journal.id, doing="going on with it"),
        pytest.raises(BlockedError, match="at work") as raised,
    ):
        resume()
    told = four_parts(raised.value)
    assert "the first" in told
    assert "going on with it" in told
    assert world.at(OLD) == ALL


def test_a_restore_is_refused_while_a_run_is_unfinished(dead: Dead, world: World) -> None:
    from flows.restore import restore

    made = dead.backup()
    # Of two managers it would hold the lock of none.
    found = world.get(world.path(MANAGER))
    meta = {"name": "second", "labels": found["metadata"].get("labels") or {}}
    second = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": found["spec"] | {"replicas": 0}}
    assert world.ask("POST", world.path(MANAGER).rpartition("/")[0], second)[0] == 201
    cluster = ClusterSettings(kubeconfig_path=str(world.sandbox.kubeconfig))
    named = DatabaseSettings(uri=SecretStr(world.database_url()), name="apinizerdb")
    provide("named", InstallationSettings(clusters=(cluster,), database=named))
    with pytest.raises(BlockedError, match="There are 2 managers") as several:
        restore(archive=made.archive, installation="named")
    assert "--namespace" in four_parts(several.value)
    assert world.ask("DELETE", f"{world.path(MANAGER).rpartition('/')[0]}/second")[0] == 200
    journal = dead.run(backup=made, manager=True)
    with pytest.raises(BlockedError, match="is unfinished") as raised:
        restore(archive=made.archive, installation="tested")
    assert f"apinizer-upgrade rollback {journal.id}" in four_parts(raised.value)
    assert lock_holder(world) == ""


def test_a_deployment_that_was_deleted_in_mid_run(run: Run, resume: Run, world: World) -> None:
    def delete() -> None:
        # One that the run has changed, and one that it has not come to.
        for gone in ("test/worker", "prod/cache-prod"):
            status, answer = world.ask("DELETE", world.path(gone))
            assert status == 200, answer

    with listening(Once("test/worker", "image set", delete)), pytest.raises((DriftError, RolloutError)) as raised:
        run(NEW)
    assert "test/worker" in four_parts(raised.value)
    assert "prod/worker-prod" in world.at(OLD)
    with pytest.raises(DriftError) as still:
        resume()
    assert "test/worker is gone" in four_parts(still.value)
    assert "prod/cache-prod, which the run was to change, is gone" in still.value.observed
    assert "ended" not in journals(world)[0]


def test_what_the_server_refused_was_not_made(run: Run, world: World, tmp_path: Path) -> None:
    """A refusal is an answer: nothing was changed, so nothing is unfinished."""
    from tests.flows.test_failures import RULES_TO_LOOK, RULES_TO_RECORD, use_restricted

    use_restricted(world, tmp_path, [*RULES_TO_LOOK, *RULES_TO_RECORD])
    with pytest.raises(Exception, match="patch"):
        run(NEW)
    (journal,) = journals(world)
    assert journal["how"] == "nothing changed"
    assert [e.get("unmade") for e in journal["entries"]] == [True]
    assert Path(journal["backup"]["archive"]).exists()
