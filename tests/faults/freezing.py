"""A run that stands still for longer than its lock lasts, and wakes when another has gone on in its place."""

import time
from collections.abc import Callable, Sequence

from tests.faults.choice import moment
from tests.faults.flow import RESTORE, ROLLBACK, UPGRADE, Flow, effects, story
from tests.faults.killing import in_mid_restore, in_restore
from tests.faults.results import Case, Outcome
from tests.faults.story import JsonObject, Run, Story, StoryError

LONG = 400.0


def freezing_cases(*, every: bool = False) -> list[Case]:
    """Frozen between two looks at the lock, and between such a look and the change that it allowed."""
    return [
        Case("frozen", f"{flow.name}: {line['task']}", moment(line), "SIGSTOP, SIGCONT", _freezing(flow, line))
        for flow, wanted in ((UPGRADE, _of_the_upgrade), (ROLLBACK, _of_the_restore))
        for line in wanted(flow.undisturbed())
    ]


def _of_the_upgrade(lines: Sequence[JsonObject]) -> list[JsonObject]:
    return [
        _first(lines, lambda line: line["task"].startswith("backup ") and line["kind"] == "midway"),
        _first(lines, lambda line: line["kind"] == "before" and line["what"] == "PATCH deployments/test/worker"),
        _first(lines, lambda line: line["task"] == "ready: worker test/worker" and line["kind"] == "midway"),
    ]


def _of_the_restore(lines: Sequence[JsonObject]) -> list[JsonObject]:
    restore = [line for line in lines if line["task"].startswith(RESTORE)]
    writes = [line for line in restore if line["kind"] == "before"]
    inserts = [line for line in writes if line["what"].startswith("insert apinizer-restore")]
    renames = [line for line in writes if line["what"].startswith("renameCollection")]
    drops = [line for line in writes if line["what"].startswith("drop ")]
    if not (inserts and renames and drops):
        raise StoryError("an undisturbed restore does not write as it was expected to")
    return [
        _first(restore, lambda line: line["kind"] == "midway"),
        inserts[len(inserts) // 2],
        renames[len(renames) // 2],
        drops[-1],
    ]


def _first(lines: Sequence[JsonObject], fits: Callable[[JsonObject], bool]) -> JsonObject:
    found = next((line for line in lines if fits(line)), None)
    if found is None:
        raise StoryError("an undisturbed run does not come to where it was to be frozen")
    return found


def _freezing(flow: Flow, line: JsonObject) -> Callable[[Outcome], None]:
    def act(outcome: Outcome) -> None:
        with story(large=flow.needs_size(line)) as told:
            flow.prepare(told)
            frozen = told.start(*flow.command_in(told), do="freeze", at=line["at"])
            frozen.wait_at(line["at"])
            _wait_until(frozen.frozen)
            if in_restore(line):
                outcome.problems += in_mid_restore(told)
            unfinished = told.unfinished(flow.kind)
            other = told.start("resume", unfinished, "--yes").finish(LONG)
            outcome.then, outcome.seconds, outcome.told = "resume", other.seconds, other.err
            if other.code != 0:
                outcome.problems.append(f"resume ended with {other.code}")
            if frozen.last() != line["at"]:
                raise StoryError(f"it was not frozen: {frozen.last()}")
            # Looked at when both have ended: half a backup is its writer's to remove, and nobody else's while that lives.
            outcome.problems += _woken(told, frozen, outcome) + flow.reached(told, backups=2)
            outcome.effects = effects(told)

    return act


def _woken(told: Story, frozen: Run, outcome: Outcome) -> list[str]:
    """What the first one changes when it is let go: nothing, and it says so."""
    before, database, count = told.world.written(), told.database(), len(told.writes())
    frozen.thaw()
    frozen.finish()
    found = [
        f"it wrote {one['method']} {one['path']}: {one['status']}"
        for one in told.writes()[count:]
        if one["status"] < 300
    ]
    found += ["a Deployment was changed"] if told.world.written() != before else []
    found += ["the database was changed"] if told.database() != database else []
    found += [] if frozen.code in {1, 3} and "Traceback" not in frozen.err else [f"it ended with {frozen.code}"]
    if found:
        outcome.told = frozen.err
    return found


def _wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise StoryError("it did not freeze")
        time.sleep(0.02)
