"""Two runs that reach for the lock in the same moment: exactly one runs."""

import time
from collections.abc import Callable, Sequence

from tests.faults.away import stopped_well
from tests.faults.flow import UPGRADE, effects, story
from tests.faults.results import Case, Outcome
from tests.faults.story import PATIENCE, JsonObject, Story, StoryError

TIMES = 50
CLOSE = 0.010
TRIES = 12
LEAD = 0.3
TOGETHER = (*UPGRADE.command, "--together")


def racing_cases(*, every: bool = False) -> list[Case]:
    """The same race many times: chance is part of it."""
    lock = first_of_the_lock(UPGRADE.undisturbed())
    return [
        Case("two runs", f"race {number}", f"{CLOSE * 1000:.0f} ms apart at most", "another run", _race(lock))
        for number in range(1, TIMES + 1)
    ]


def first_of_the_lock(lines: Sequence[JsonObject]) -> str:
    """The boundary right before a run reaches for the lock."""
    found = next((line for line in lines if line["kind"] == "before" and "leases/" in line["what"]), None)
    if found is None:
        raise StoryError("an undisturbed run takes no lock")
    return str(found["at"])


def _race(lock: str) -> Callable[[Outcome], None]:
    def act(outcome: Outcome) -> None:
        for _ in range(TRIES):
            with story(speed=20) as told:
                if (apart := _once(told, lock, outcome)) <= CLOSE:
                    outcome.effects = f"{apart * 1000:.1f} ms apart, {effects(told)}"
                    return
        raise StoryError(f"the two were never within {CLOSE * 1000:.0f} ms of each other")

    return act


def _once(told: Story, lock: str, outcome: Outcome) -> float:
    """Both are held at the lock and let go in one moment; how far apart the server saw them, in seconds."""
    runs = [told.start(*TOGETHER, do="hold", at=lock) for _ in range(2)]
    for run in runs:
        run.wait_at(lock)
    moment = time.time() + LEAD
    for run in runs:
        run.go_on(moment)
    if (apart := _apart(told)) > CLOSE:
        return apart
    for run in runs:
        run.finish()
    codes = sorted(run.code or 0 for run in runs)
    if codes != [0, 3]:
        outcome.problems.append(f"they ended with {codes} instead of 0 and 3")
        outcome.told = "\n".join(run.err for run in runs)
        return apart
    loser = next(run for run in runs if run.code == 3)
    outcome.then, outcome.seconds = "one ran", max(run.seconds for run in runs)
    outcome.told = loser.err
    outcome.problems += [
        *stopped_well(loser.err),
        *([f"{line['what']} was written by the one that was refused" for line in _wrote(loser.lines())]),
        *UPGRADE.reached(told),
    ]
    return apart


def _apart(told: Story) -> float:
    """Seconds between the first two writes to the lock, as the server saw them; waits for both."""
    end = time.monotonic() + PATIENCE
    while len(asked := [one["begun"] for one in told.writes() if "/leases" in one["path"]]) < 2:
        if time.monotonic() > end:
            raise StoryError("the two did not both reach for the lock")
        time.sleep(0.1)
    return float(abs(asked[1] - asked[0]))


def _wrote(lines: Sequence[JsonObject]) -> list[JsonObject]:
    """What a process changed besides trying to take the lock."""
    return [line for line in lines if line["kind"] == "answered" and "leases/" not in line["what"]]
