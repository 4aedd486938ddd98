"""What is disturbed: the upgrade and the rollback, how each begins, how it is gone on with, and what must be true at the end."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deployments.sandbox.launch import Sandbox
from tests.faults import expected
from tests.faults.results import Outcome
from tests.faults.story import JsonObject, Story, StoryError, enlarge
from tests.flows.world import ALL, MANAGER, NEW, OLD, archives

SPEED = 10.0
MIGRATION_SECONDS = 80.0  # of the cluster: eight seconds here
BOOT_SECONDS = 15.0  # so that a rollout is seen half done, however busy the machine is
MORE_DOCUMENTS = 12_000
SERVER: dict[str, str] = {}
"""Names one Prefect server for all; empty: each process starts its own, as the command does by itself."""
RESTORE = "restore apinizerdb"
CRASHING = "2025.08.0"  # its manager migrates half-way, then crashes
RENAMED = "2025.11.1"  # the manager and the portal have other names there


@contextmanager
def story(*, large: bool = False, slow: bool = False, speed: float = SPEED) -> Iterator[Story]:
    """A new sandbox at the old version; `large` has a database whose reading takes its time, `slow` managers that migrate long and pods that boot long."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder, Sandbox(version=OLD, speed=speed) as sandbox:
        if large:
            enlarge(sandbox.mongo_uri, MORE_DOCUMENTS)
        if slow:
            sandbox.faults(migration_seconds=MIGRATION_SECONDS, boot_seconds=BOOT_SECONDS)
        told = Story(sandbox, Path(folder), SERVER)
        try:
            yield told
        finally:
            told.end()


@dataclass
class Flow:
    """An undisturbed run is made once; what it passed are the moments at which others are disturbed."""

    name: str
    kind: str
    version: str
    command: tuple[str, ...]
    _lines: list[JsonObject] = field(default_factory=list, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def prepare(self, told: Story) -> None:
        """Bring the story to where the run begins."""
        told.begin_here()

    def command_in(self, told: Story) -> tuple[str, ...]:  # noqa: ARG002 - another flow asks it
        """What is typed there, where nobody sits at a terminal."""
        return self.command

    def undisturbed(self) -> list[JsonObject]:
        """The boundaries of a run that nothing disturbs."""
        with self._lock, story(large=True, slow=True) as told:
            if not self._lines:
                self.prepare(told)
                run = told.run(*self.command_in(told))
                if run.code != 0:
                    raise StoryError(f"the undisturbed {self.name} ended with {run.code}: {run.err}")
                if problems := self.reached(told):
                    raise StoryError(f"the undisturbed {self.name}: {'; '.join(problems)}")
                self._lines = run.lines()
        return self._lines

    def reached(self, told: Story, backups: int = 1) -> list[str]:
        """What is not as it must be at the end; at most `backups` may have been made."""
        return [
            *expected.at_the_target(told, self.version),
            *expected.each_image_once(told, self.version),
            *expected.backups_of_before(told, backups),
            *expected.journal_ended(told, "complete", self.kind),
            *expected.lock_is_free(told),
        ]

    def needs_size(self, line: JsonObject) -> bool:
        return str(line["task"]).startswith(RESTORE) or (
            line["kind"] == "midway" and not line["task"].startswith("ready")
        )

    def needs_slowness(self, line: JsonObject) -> bool:
        kind, step = str(line["kind"]), str(line["task"])
        return kind == "migrating" or (kind == "midway" and step.startswith(("ready", "scale up")))


@dataclass
class Return(Flow):
    """The rollback of the upgrade `to` some version; the database must be what it was, byte for byte.

    `touched` are the Deployments that the upgrade changed, and `ended` its exit code: with 1 where its manager crashes.
    """

    to: str = CRASHING
    touched: frozenset[str] = frozenset({MANAGER})
    ended: int = 1

    def prepare(self, told: Story) -> None:
        told.keep("database", told.database())
        told.sandbox.set_speed(30)
        run = told.run("upgrade", "--to", self.to, "--together", "--yes")
        if run.code != self.ended:
            raise StoryError(f"the upgrade that is to be rolled back ended with {run.code}: {run.err}")
        told.sandbox.set_speed(SPEED)
        told.begin_here()

    def command_in(self, told: Story) -> tuple[str, ...]:
        upgrade = next(one for one in told.journals() if one["kind"] == "upgrade")
        return (*self.command, "--backup", str(upgrade["backup"]["sha256"])[:16])

    def reached(self, told: Story, backups: int = 1) -> list[str]:
        return [
            *expected.at_the_target(told, self.version),
            *expected.each_image_once(told, self.version, self.touched),
            *expected.scaled_down_and_up_once(told),
            *expected.same_database(told),
            *expected.each_collection_placed_once(told),
            *expected.safety_backups(told, 1 + backups),
            *expected.journal_ended(told, "complete", self.kind),
            *expected.journal_ended(told, "rolled back", "upgrade"),
            *expected.lock_is_free(told),
        ]


UPGRADE = Flow("upgrade", "upgrade", NEW, ("upgrade", "--to", NEW, "--yes"))
ROLLBACK = Return("rollback", "rollback", OLD, ("rollback", "--yes"))
WHOLE = Return("rollback of all", "rollback", OLD, ("rollback", "--yes"), to=RENAMED, touched=ALL, ended=0)
"""Across both renames, after every component was upgraded."""


def go_on(told: Story, outcome: Outcome, flow: Flow) -> None:
    """What an operator does who finds a run that ended: `resume` where it is unfinished, else the command again."""
    here = [one for one in told.journals() if one["kind"] == flow.kind]
    unfinished = [one["id"] for one in here if not one.get("ended")]
    again: tuple[str, ...]
    if unfinished:
        outcome.then, again = "resume", ("resume", unfinished[0], "--yes")
    elif not (here and here[0].get("how") == "complete"):
        outcome.then, again = "again", flow.command_in(told)
    else:
        outcome.then, outcome.seconds = "nothing left", 0.0
        return
    run = told.run(*again)
    outcome.seconds, outcome.told = run.seconds, run.err
    if run.code != 0:
        outcome.problems.append(f"{' '.join(again)} ended with {run.code}")


def effects(told: Story) -> str:
    """What was done in all, counted at the servers."""
    writes = told.writes()
    images, scales = expected.image_changes(writes), expected.scalings(writes)
    parts = [f"{sum(images.values())} images set"]
    if scales:
        parts.append(f"scaled {', '.join(what.partition(' ')[2] for what in scales.elements())}")
    if placed := expected.placed(told):
        parts.append(f"{sum(placed.values())} collections put back")
    return ", ".join([*parts, f"{len(archives(told.backups))} backups"])
