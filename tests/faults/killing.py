"""The run killed with -9 at every boundary, gone on with in a fresh process, and looked at."""

import re
import time
from collections.abc import Callable

from tests.faults import expected
from tests.faults.choice import chosen, moment
from tests.faults.flow import RESTORE, WHOLE, Flow, effects, go_on, story
from tests.faults.results import Case, Outcome
from tests.faults.story import JsonObject, Story
from tests.flows.world import ALL, MANAGER, NEW

OTHERS = tuple(ALL - {MANAGER})
BEGUN_WITHIN = 20.0  # seconds from the manager's word to its first write, however busy the machine is


def killing_cases(flow: Flow, *, every: bool = False) -> list[Case]:
    """One case for each boundary that an undisturbed run passes."""
    return [
        Case(f"{flow.name} killed", line["task"], moment(line), "kill -9", killing(flow, line))
        for line in chosen(flow.undisturbed(), every=every)
    ]


def all_back_cases(*, every: bool = False) -> list[Case]:
    """The rollback of all components; but for `every`, only what the rollback of a manager alone does not have."""
    return [case for case in killing_cases(WHOLE, every=every) if every or case.step.endswith(OTHERS)]


def killing(flow: Flow, line: JsonObject) -> Callable[[Outcome], None]:
    """Kill it at the boundary that `line` is, go on, and look."""

    def act(outcome: Outcome) -> None:
        with story(large=flow.needs_size(line), slow=flow.needs_slowness(line)) as told:
            flow.prepare(told)
            told.run(*flow.command_in(told), do="kill", at=line["at"]).died_at(line["at"])
            if line["kind"] == "migrating":
                outcome.problems += in_mid_migration(told)
            if in_restore(line):
                outcome.problems += in_mid_restore(told)
            begun = bool(expected.image_changes(told.writes()))
            go_on(told, outcome, flow)
            # One that nobody knew of yet when the run was killed is made again.
            outcome.problems += flow.reached(told, backups=1 if begun else 2)
            outcome.effects = effects(told)

    return act


def in_restore(line: JsonObject) -> bool:
    """Whether the boundary lies where the restore said that it was half done."""
    return str(line["task"]).startswith(RESTORE) and line["kind"] == "midway"


def in_mid_restore(told: Story) -> list[str]:
    """Some of the backup is in the database again, and the database is neither what it was nor free of the restore's own."""
    import pymongo

    with pymongo.MongoClient[JsonObject](told.sandbox.mongo_uri) as client:
        database = client["apinizerdb"]
        own = [name for name in database.list_collection_names() if name.startswith("apinizer-restore.")]
        copied = sum(database[name].count_documents({}) for name in own if re.fullmatch(r".*\.\d{4,}", name))
    there = copied > 0 and told.database() != told.kept("database")
    return [] if there else ["the fault did not land in the middle of the restore"]


def in_mid_migration(told: Story) -> list[str]:
    """The manager has begun to change the database and has not ended.  It says so before it begins: that is waited for."""
    import pymongo

    label, end = NEW.replace(".", "_"), time.monotonic() + BEGUN_WITHIN
    with pymongo.MongoClient[JsonObject](told.sandbox.mongo_uri) as client:
        database, begun = client["apinizerdb"], 0
        over = False
        while not begun and time.monotonic() < end:
            begun = database.api_proxy.count_documents({f"migrated_{label}": True})
            over = f"introduced_{label}" in database.list_collection_names()
    return [] if begun and not over else ["the fault did not land in the middle of the migration"]
