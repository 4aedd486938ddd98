"""The run killed with -9 at every boundary, gone on with in a fresh process, and looked at."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deployments.sandbox.launch import Sandbox
from tests.faults import expected
from tests.faults.choice import chosen, moment
from tests.faults.results import Case, Outcome
from tests.faults.story import JsonObject, Story, StoryError, enlarge
from tests.flows.world import NEW, OLD, archives

SPEED = 10.0
MIGRATION_SECONDS = 20.0  # of the cluster: two seconds here
MORE_DOCUMENTS = 12_000
UPGRADE = ("upgrade", "--to", NEW, "--yes")


@contextmanager
def story(*, large: bool = False, slow: bool = False, speed: float = SPEED) -> Iterator[Story]:
    """A new sandbox at the old version; `large` has a database whose reading takes its time, `slow` a manager that migrates long."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder, Sandbox(version=OLD, speed=speed) as sandbox:
        if large:
            enlarge(sandbox.mongo_uri, MORE_DOCUMENTS)
        if slow:
            sandbox.faults(migration_seconds=MIGRATION_SECONDS)
        told = Story(sandbox, Path(folder))
        try:
            yield told
        finally:
            told.end()


def go_on(told: Story, outcome: Outcome, command: tuple[str, ...], version: str) -> None:
    """What an operator does who finds a run that died: `resume` where one is unfinished, else the command again."""
    unfinished = [one["id"] for one in told.journals() if one["ended"] is None]
    if unfinished:
        outcome.then, again = "resume", ("resume", unfinished[0], "--yes")
    elif expected.at_the_target(told, version):
        outcome.then, again = "again", command
    else:
        outcome.then, outcome.seconds = "nothing left", 0.0
        return
    run = told.run(*again)
    outcome.seconds, outcome.told = run.seconds, run.err
    if run.code != 0:
        outcome.problems.append(f"{' '.join(again)} ended with {run.code}")


def upgrade_cases(*, every: bool = False) -> list[Case]:
    """One case for each boundary that an undisturbed upgrade passes."""
    with story(large=True, slow=True) as told:
        run = told.run(*UPGRADE)
        if run.code != 0:
            raise StoryError(f"the undisturbed upgrade ended with {run.code}: {run.err}")
        lines = run.lines()
    return [
        Case("upgrade", line["task"], moment(line), "kill -9", _killing(line)) for line in chosen(lines, every=every)
    ]


def _killing(line: JsonObject) -> Callable[[Outcome], None]:
    def act(outcome: Outcome) -> None:
        midway = line["kind"] == "midway" and not line["task"].startswith("ready")
        with story(large=midway, slow=line["kind"] == "migrating") as told:
            told.run(*UPGRADE, do="kill", at=line["at"]).died_at(line["at"])
            if line["kind"] == "migrating":
                outcome.problems += in_mid_migration(told)
            begun = bool(expected.image_changes(told.writes()))
            go_on(told, outcome, UPGRADE, NEW)
            outcome.problems += [
                *expected.at_the_target(told, NEW),
                *expected.each_image_once(told, NEW),
                *expected.backups_of_before(told, most=1 if begun else 2),
                *expected.journal_ended(told, "complete"),
            ]
            outcome.effects = effects(told)

    return act


def in_mid_migration(told: Story) -> list[str]:
    """The manager has begun to change the database and has not ended."""
    import pymongo

    label = NEW.replace(".", "_")
    with pymongo.MongoClient[JsonObject](told.sandbox.mongo_uri) as client:
        database = client["apinizerdb"]
        begun = database.api_proxy.count_documents({f"migrated_{label}": True})
        over = f"introduced_{label}" in database.list_collection_names()
    return [] if begun and not over else ["the fault did not land in the middle of the migration"]


def effects(told: Story) -> str:
    """What was done in all, counted at the servers."""
    writes = told.writes()
    images, scales = expected.image_changes(writes), expected.scalings(writes)
    parts = [f"{sum(images.values())} images set", f"{len(archives(told.backups))} backups"]
    if scales:
        parts.append(f"{sum(scales.values())} scalings")
    return ", ".join(parts)
