"""The course of one rollback: its steps in their order, each begun when all before it have succeeded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect.futures import PrefectFuture

from flows.bringing import Bringing, bring, prove
from flows.passage import Passage
from tasks.cluster.scaling_steps import find_scalers, no_pods_left, replicas_watched, scale_down, scale_up
from tasks.cluster.steps import ask_versions, change_images, take_inventory, wait_until_ready
from tasks.database.judging_steps import judge_database, judge_so_far, manager_followed, see_manager
from tasks.database.order import BackupOrder
from tasks.database.putting_back_steps import (
    keep_safety,
    plan_way_back,
    put_back_before,
    show_difference,
    usable_safety,
)
from tasks.database.restore.steps import managers_watched, require_no_manager
from tasks.database.return_look import WayBack, require_none_scales_up, require_old_images
from tasks.database.return_record import Restored
from tasks.database.rollback_steps import (
    begin_rollback,
    end_rollback,
    find_way_back,
    set_old_image,
    write_rollback_report,
)
from tasks.database.steps import back_up, check_place, prove_backup, release_after_upgrade
from tasks.database.way_back import require_named
from tasks.domain.inventory import DeploymentFacts
from tasks.domain.order import lanes
from tasks.domain.rollback_report import rollback_report
from tasks.domain.step import RolloutStep
from tasks.record.run_record import RunRecord
from tasks.record.run_steps import take_lock

Future = PrefectFuture[Any]


@dataclass
class ReturnCourse:
    """One rollback; `passage` is told of every step, `record` holds its lock and journal."""

    installation: str
    passage: Passage
    record: RunRecord
    order: BackupOrder
    run: str
    backup: str
    without: tuple[str, ...]
    manager_made_anew: bool
    stop_all: bool
    manager_timeout: int
    timeout: int
    mark: str
    options: Mapping[str, str | int | bool]
    bringing: Bringing | None = None
    verified: dict[str, PrefectFuture[tuple[str, ...]]] = field(default_factory=dict)

    def go(self) -> dict[str, Any]:
        """All of it; what was done, as plain values."""
        step = self.passage.submit
        step(take_lock, self.installation, "rollback", "")
        find = (self.installation, self.run, self.order, self.without, self.manager_made_anew)
        way = self.passage.value(step(find_way_back, *find))
        way.require_agreed(self.mark)
        if way.under_way is not None:
            self.stop_all = bool(way.under_way.options.get("stop_all", self.stop_all))
        down = (way.manager, *(way.others if self.stop_all else ()))
        if way.touches_database:
            scalers = self.passage.value(step(find_scalers, self.installation, down))
            require_none_scales_up(scalers)
        restoring = self._look_at_database(way) if way.touches_database else None
        self._bring_images(way)
        named = self.backup if restoring is not None else ""
        step(begin_rollback, self.installation, way, {**self.options, "stop_all": self.stop_all}, named)
        restored = _found(way)
        if way.touches_database:
            restored = self._database(way, down, restoring)
        else:
            self._old_image(way)
        self._manager(way)
        self._others(way)
        return self._end(way, restored)

    def _look_at_database(self, way: WayBack) -> Future | None:
        """What is to become of the database, all proved; nothing is changed yet.  None where it may stay as it is."""
        step, value = self.passage.submit, self.passage.value
        judged = value(step(judge_so_far, self.installation, way))
        if judged.unchanged and not self.backup:
            return None
        if way.upgrade.backup is not None:
            require_named(way.upgrade.backup, self.backup, way.under_way.id if way.under_way else way.upgrade.id)
        restoring = step(plan_way_back, self.installation, way, self.order)
        step(show_difference, self.installation, way)
        self.passage.value(step(check_place, self.order))
        return restoring

    def _bring_images(self, way: WayBack) -> None:
        """Every image of the old version is on its nodes, or in the registry, before the database is touched."""
        plan = way.plan.plan
        if not plan.steps:
            return
        after = self.passage.last
        self.bringing = bring(self.installation, way.inventory, plan, after=after, keep=self.passage.keep)
        prove(self.installation, way.inventory, plan, self.bringing, after=after, keep=self.passage.keep)
        if self.bringing.findings is not None:
            findings = self.passage.value(self.bringing.findings)
            require_old_images(self.bringing.demand.result(), findings)

    def _database(self, way: WayBack, down: Sequence[DeploymentFacts], restoring: Future | None) -> Restored:
        """The manager stopped, no pod of it left; the database put back, or left alone where that is proved.

        The old image is set while all of that is watched: before it the new manager may be started by anybody.
        """
        with replicas_watched(self.installation), managers_watched(self.installation):
            restored = self._put_back(way, down, restoring)
            self._old_image(way)
            return restored

    def _put_back(self, way: WayBack, down: Sequence[DeploymentFacts], restoring: Future | None) -> Restored:
        step, value, name = self.passage.submit, self.passage.value, self.installation
        with manager_followed(name, way):
            step(see_manager, name)
            for deployment in down:
                step(scale_down, name, deployment)
            step(no_pods_left, name, down, self.timeout)
            judged = value(step(judge_database, name, way, restoring is not None))
        if judged.unchanged or restoring is None:
            return Restored(restored=False, why=judged.why)
        step(require_no_manager, name)
        safety = self._safety(way)
        return value(step(put_back_before, name, way, restoring, self.order, safety))

    def _old_image(self, way: WayBack) -> None:
        """The manager's old image under its old name, where its database was seen to only while nothing could start."""
        manager = way.plan.plan.manager
        if manager is not None:
            setting = set_old_image if way.plan.database else change_images
            self.passage.value(self.passage.submit(setting, self.installation, manager, self._cause(way)))

    def _safety(self, way: WayBack) -> str:
        """The path of the backup of what is there now, proved."""
        step, value, name = self.passage.submit, self.passage.value, self.installation
        former = usable_safety(name, way, self.order)
        if former is not None and value(step(prove_backup, str(former.archive))).sha256 == former.sha256:
            return former.archive
        version = str(way.plan.plan.current or way.upgrade.to)
        archive = value(step(back_up, name, way.upgrade.manager, self.order, version))
        step(keep_safety, name, way, value(step(prove_backup, archive)), version)
        return archive

    def _manager(self, way: WayBack) -> None:
        """One pod of the old image, Ready, then its replicas; every pod asked."""
        manager = way.plan.plan.manager
        if manager is None:
            return
        step, name = self.passage.submit, self.installation
        step(scale_up, name, manager, way.plan.of(manager.key).replicas, self.manager_timeout)
        self._ask(way, manager, self.passage.last)

    def _others(self, way: WayBack) -> None:
        """What is there is asked, or started again; then the stages, as the upgrade has them."""
        plan, gate = way.plan.plan, self.passage.last
        for step in plan.there:
            ready = [self._up(way, step, gate)] if self.stop_all and not step.is_manager else gate
            gate = [self._ask(way, step, ready)]
        previous: list[Future] = []
        for stage in plan.stages:
            ahead, previous = previous, []
            for lane in lanes(stage.steps, plan.parallel):
                before = [*gate, *ahead]
                for step in lane:
                    before = [*gate, *ahead, self._roll(way, step, before)]
                    previous.append(before[-1])
        self.passage.finish()

    def _roll(self, way: WayBack, step: RolloutStep, after: Sequence[Future]) -> Future:
        changed = change_images.submit(self.installation, step, self._cause(way), wait_for=after, return_state=False)
        self.passage.keep(changed)
        if way.plan.of(step.key).replicas != way.plan.of(step.key).now or self.stop_all:
            ready = self._up(way, step, [changed])
        else:
            ready = wait_until_ready.submit(self.installation, step, changed, self.timeout, return_state=False)
            self.passage.keep(ready)
        return self._ask(way, step, [ready])

    def _up(self, way: WayBack, step: RolloutStep, after: Sequence[Future]) -> Future:
        replicas = way.plan.of(step.key).replicas
        return self.passage.keep(
            scale_up.submit(self.installation, step, replicas, self.timeout, wait_for=after, return_state=False)
        )

    def _ask(self, way: WayBack, step: RolloutStep, after: Sequence[Future]) -> Future:
        """Every pod answers the version that it is to have; one whose tag names none is only Ready."""
        expected = way.plan.expected(step)
        if expected is None:
            return after[-1]
        digests = self.bringing.digests() if self.bringing else {}
        asked = ask_versions.submit(self.installation, step, str(expected), digests, wait_for=after, return_state=False)
        self.verified[str(step.key)] = asked
        return self.passage.keep(asked)

    def _end(self, way: WayBack, restored: Restored | None) -> dict[str, Any]:
        """The last look, the report, both journals ended."""
        step, value, name = self.passage.submit, self.passage.value, self.installation
        after = value(step(take_inventory, name))
        answered = {key: future.result() for key, future in self.verified.items()}
        notes = self.bringing.notes() if self.bringing else ()
        report = rollback_report(way.plan, way.inventory, after, answered, way.archive, notes)
        written = value(step(write_rollback_report, name, way, report, restored))
        # Before the journal is closed: a rollback that dies in between goes on, and does it again.
        folders = [Path(self.order.directory), *([Path(way.archive).parent] if way.archive else [])]
        for folder in dict.fromkeys(str(each.resolve()) for each in folders):
            release_after_upgrade(name, way.upgrade.manager, folder, way.upgrade.backup)
        step(end_rollback, name, way, f"to {way.plan.to}")
        self.passage.finish()
        return written

    def _cause(self, way: WayBack) -> str:
        """For kubectl rollout history."""
        return f"apinizer-upgrade: rollback of {way.upgrade.id}, {way.upgrade.to} to {way.plan.to}"


def _found(way: WayBack) -> Restored | None:
    """What a try before this one did with the database; None where the upgrade had not come to the manager."""
    done = way.restored
    if done is None:
        return None
    unchanged = done.evidence.get("unchanged")
    return Restored(restored=False, why=str(unchanged)) if unchanged else Restored(restored=True, why=done.will)
