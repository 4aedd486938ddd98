"""The API server, or the database, away for half a minute at every step: the run completes, or stops safely and is gone on with."""

import time
from collections.abc import Callable, Iterable

from tests.faults.choice import moment, one_a_step
from tests.faults.flow import Flow, effects, go_on, story
from tests.faults.killing import in_mid_migration, in_mid_restore, in_restore
from tests.faults.results import Case, Outcome
from tests.faults.story import JsonObject, Story

SECONDS = 30.0
FAULTS = ("API server", "database")


def away_cases(flow: Flow, *, every: bool = False) -> list[Case]:
    """For each step of an undisturbed run one moment, for each of the two one case."""
    return [
        Case(f"{flow.name} away", line["task"], moment(line), f"{what} away {SECONDS:.0f} s", _away(flow, line, what))
        for line in one_a_step(flow.undisturbed(), every=every)
        for what in FAULTS
    ]


def _away(flow: Flow, line: JsonObject, what: str) -> Callable[[Outcome], None]:
    def act(outcome: Outcome) -> None:
        with story(large=flow.needs_size(line), slow=flow.needs_slowness(line)) as told:
            flow.prepare(told)
            run = told.start(*flow.command_in(told), do="hold", at=line["at"])
            run.wait_at(line["at"])
            if line["kind"] == "migrating":
                outcome.problems += in_mid_migration(told)
            if in_restore(line):
                outcome.problems += in_mid_restore(told)
            back = time.monotonic() + SECONDS
            if what == "database":
                told.sandbox.stop_database()
                run.go_on()
                time.sleep(SECONDS)
                told.sandbox.start_database()
            else:
                told.sandbox.api_down(SECONDS)
                run.go_on()
            run.finish()
            time.sleep(max(0.0, back - time.monotonic()) + 0.5)
            if run.code == 0:
                outcome.then, outcome.seconds = "completed", run.seconds
            else:
                outcome.problems += stopped_well(run.err)
                revive(told)
                go_on(told, outcome, flow)
                outcome.then = f"stopped, {outcome.then}"
            outcome.problems += flow.reached(told, backups=2)
            outcome.effects = effects(told)
            outcome.told = outcome.told or run.err

    return act


def stopped_well(said: str) -> Iterable[str]:
    """A run that could not go on says so in four parts, without a traceback."""
    parts = ("Observed: ", "Safe now: ", "Next: ")
    missing = [part for part in parts if part not in said]
    return [*(f"{part!r} was not said" for part in missing), *(["a traceback"] if "Traceback" in said else [])]


def revive(told: Story) -> None:
    """A pod that crashed for want of its database waits in a back-off that only grows: an operator deletes it."""
    for pod in told.world.pods():
        statuses = pod.get("status", {}).get("containerStatuses") or ()
        if any((one.get("state") or {}).get("waiting", {}).get("reason") == "CrashLoopBackOff" for one in statuses):
            told.world.delete_pod(pod)
