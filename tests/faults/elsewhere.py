"""A holder killed on another machine, where nobody can see that it is dead: its lock is taken over in time, and not before."""

import time
from collections.abc import Callable, Sequence

from tests.faults.choice import moment
from tests.faults.flow import ROLLBACK, UPGRADE, Flow, effects, story
from tests.faults.results import Case, Outcome
from tests.faults.story import JsonObject, Run, Story, StoryError

LEASE_SECONDS = 30.0
RETRY_SECONDS = 5.0  # how long the taker may take to see that it is over, and to write
HELD = 3
LONG = 120.0


def elsewhere_cases(*, every: bool = False) -> list[Case]:
    """Killed while the manager migrates, between two components, and while the database is put back."""
    return [
        Case("killed elsewhere", f"{flow.name}: {line['task']}", moment(line), "kill -9", _killing(flow, line))
        for flow, wanted in ((UPGRADE, _in_upgrade), (ROLLBACK, _in_rollback))
        for line in flow.undisturbed()
        if wanted(line)
    ]


def _in_upgrade(line: JsonObject) -> bool:
    what, kind = str(line["what"]), str(line["kind"])
    return kind == "migrating" or (kind == "before" and what == "PATCH deployments/test/worker")


def _in_rollback(line: JsonObject) -> bool:
    return bool(line["kind"] == "before" and line["what"].startswith("renameCollection") and "policy" in line["what"])


def _killing(flow: Flow, line: JsonObject) -> Callable[[Outcome], None]:
    def act(outcome: Outcome) -> None:
        with story(slow=flow.needs_slowness(line)) as told:
            flow.prepare(told)
            run = told.start(
                *flow.command_in(told), do="kill", at=line["at"], env={"FAULTS_ELSEWHERE": "another machine"}
            )
            run.finish().died_at(line["at"])
            unfinished = told.unfinished(flow.kind)
            went = _until_taken(told, unfinished)
            outcome.then, outcome.seconds, outcome.told = "resume", went.seconds, went.err
            if went.code != 0:
                outcome.problems.append(f"resume ended with {went.code}")
            silent, watched = _times(told, went)
            outcome.problems += [
                *flow.reached(told),
                *([f"taken over after {silent:.1f} s"] if silent < LEASE_SECONDS else []),
                *([f"watched for {watched:.1f} s"] if watched > LEASE_SECONDS + RETRY_SECONDS else []),
            ]
            outcome.effects = f"silent for {silent:.1f} s, watched for {watched:.1f} s, {effects(told)}"

    return act


def _until_taken(told: Story, run: str) -> Run:
    """`resume` as long as it answers that the lock is held, as an operator types it again."""
    end = time.monotonic() + LONG
    while (went := told.run("resume", run, "--yes")).code == HELD and time.monotonic() < end:
        time.sleep(1)
    return went


def _times(told: Story, went: Run) -> tuple[float, float]:
    """Seconds between the dead holder's last renewal and the next holder's first write, and since that one began to watch."""
    writes = [one for one in told.writes() if "/leases" in one["path"] and one["status"] < 300]
    holders = [((one["body"] or {}).get("spec") or {}).get("holderIdentity") for one in writes]
    number = next((n for n in range(1, len(holders)) if holders[n] and holders[n] != holders[0]), 0)
    if not number:
        raise StoryError("the lock was never taken over")
    return writes[number]["begun"] - writes[number - 1]["begun"], writes[number]["ended"] - _first_look(went.lines())


def _first_look(lines: Sequence[JsonObject]) -> float:
    found = next((line for line in lines if line["kind"] == "says" and line["what"].startswith("lock ")), None)
    if found is None:
        raise StoryError("it never said that it waits for the lock")
    return float(found["time"])
