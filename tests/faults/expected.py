"""What must be true when a run that was disturbed has been gone on with; each problem is a sentence."""

import gzip
import json
import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.faults.story import JsonObject, Story
from tests.flows.world import ALL, MANAGER, archives, leftovers, needed

NEVER = "migrated_"
"""A field that a manager's migration puts into the database: no backup of before may hold it."""


def image_changes(writes: list[JsonObject]) -> Counter[str]:
    """How often the images of each Deployment were written, successfully, and to which."""
    found: Counter[str] = Counter()
    for one in writes:
        if one["method"] in {"PATCH", "PUT"} and "/deployments/" in one["path"] and one["status"] < 300:
            spec = ((one["body"] or {}).get("spec") or {}).get("template", {}).get("spec") or {}
            for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
                if "image" in container:
                    found[f"{key_of(one)} {container['image'].rpartition('/')[2]}"] += 1
    return found


def scalings(writes: list[JsonObject]) -> Counter[str]:
    """How often each Deployment was scaled, successfully, and to what."""
    found: Counter[str] = Counter()
    for one in writes:
        if one["method"] in {"PATCH", "PUT"} and "/deployments/" in one["path"] and one["status"] < 300:
            replicas = ((one["body"] or {}).get("spec") or {}).get("replicas")
            if replicas is not None:
                found[f"{key_of(one)} {replicas}"] += 1
    return found


def key_of(write: Mapping[str, Any]) -> str:
    parts = write["path"].split("/namespaces/")[1].split("/")
    return f"{parts[0]}/{parts[2]}"


def at_the_target(story: Story, version: str) -> list[str]:
    """Every Deployment at the version, settled, each pod answering it."""
    world = story.world
    found = [f"{key} is at {tag}" for key, tag in sorted(world.tags().items()) if tag != version and key in ALL]
    if not world.settled():
        found.append("not every rollout has settled")
    odd = {pod: answer for pod, answer in world.answered().items() if json.dumps(version) not in answer}
    return [*found, *(f"{pod} answers {answer}" for pod, answer in sorted(odd.items()))]


def each_image_once(story: Story, version: str, touched: frozenset[str] = ALL) -> list[str]:
    """The images of every Deployment that is to be touched were set to the version once, and nothing else was set."""
    changes = image_changes(story.writes())
    found = [f"{what} was set {count} times" for what, count in sorted(changes.items()) if count != 1]
    found += [f"{what} was set" for what in sorted(changes) if not what.endswith(f":{version}")]
    missing = touched - {what.partition(" ")[0] for what in changes}
    return [*found, *(f"{key} was never set" for key in sorted(missing))]


def scaled_down_and_up_once(story: Story) -> list[str]:
    """Of all Deployments only the manager was scaled: once to nothing, then once to each further count."""
    changes = scalings(story.writes())
    found = [f"{what} was scaled {count} times" for what, count in sorted(changes.items()) if count != 1]
    found += [f"{what} was scaled" for what in sorted(changes) if not what.startswith(f"{MANAGER} ")]
    return [*found, *([] if f"{MANAGER} 0" in changes else ["the manager was never scaled to 0"])]


def same_database(story: Story) -> list[str]:
    """The database is what was kept of it, byte for byte, and nothing more is there."""
    before, now = story.kept("database"), story.database()
    found = [f"collection {name} is gone" for name in sorted(before.keys() - now.keys())]
    found += [f"collection {name} was left" for name in sorted(now.keys() - before.keys())]
    return [
        *found,
        *(f"collection {name} is another" for name in sorted(before.keys() & now.keys()) if before[name] != now[name]),
    ]


def placed(story: Story) -> Counter[str]:
    """How often each collection was put in its place by a restore, as the processes heard from the database."""
    found: Counter[str] = Counter()
    for run in story.watched():
        for line in run.lines():
            if (
                line["kind"] == "answered"
                and line["what"].startswith("renameCollection")
                and "apinizer-restore" in line["what"].partition(" to ")[0]
            ):
                found[line["what"].partition(" to ")[2]] += 1
    return found


def each_collection_placed_once(story: Story) -> list[str]:
    return [f"{name} was put in place {count} times" for name, count in sorted(placed(story).items()) if count > 1]


def safety_backups(story: Story, most: int) -> list[str]:
    """The backup of before, and at least one and not more than `most` - 1 of the database that was replaced; nothing half."""
    made = archives(story.backups)
    migrated = [path for path in made if NEVER.encode() in whole(path)]
    found = [] if len(made) - len(migrated) == 1 else [f"{len(made) - len(migrated)} backups of before"]
    found += [] if 1 <= len(migrated) <= most - 1 else [f"{len(migrated)} safety backups instead of {most - 1}"]
    left = half_files(story)
    return [*found, *(f"{path.name} was left" for path in left)]


def backups_of_before(story: Story, most: int = 1) -> list[str]:
    """At least one backup and not more than `most`; none holds what a migration made; nothing half is left, none is pinned."""
    made = archives(story.backups)
    found = [] if 1 <= len(made) <= most else [f"{len(made)} backups instead of {most}"]
    found += [f"{path.name} holds a migrated database" for path in made if NEVER.encode() in whole(path)]
    left = half_files(story)
    found += [f"{path.name} was left" for path in left]
    return [*found, *(f"{name} is still needed by {runs}" for name, runs in needed(story.backups).items())]


def half_files(story: Story) -> list[Path]:
    """What is in the folder beside finished backups and what belongs to them.

    The hidden beginning of a manifest or of a journal's copy has no lock by which its death could be seen: it is swept an
    hour later, so here it may be there.
    """
    return [
        path
        for path in leftovers(story.backups)
        if not (
            path.name.endswith(".journal.json") or (path.name.startswith(".") and path.name.endswith(".json.partial"))
        )
    ]


def whole(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def journal_ended(story: Story, how: str, kind: str = "upgrade") -> list[str]:
    """The newest run of the kind ended so, and none is unfinished."""
    journals = story.journals()
    found = [f"run {one['id']} is unfinished" for one in journals if not one.get("ended")]
    of_kind = [one for one in journals if one["kind"] == kind]
    if not of_kind:
        return [*found, f"no {kind} is recorded"]
    return [
        *found,
        *([] if of_kind[0].get("how") == how else [f"the {kind} ended {of_kind[0].get('how')!r} instead of {how!r}"]),
    ]


def lock_is_free(story: Story) -> list[str]:
    """Nobody holds the lock, unless the last process was killed when all was done and nobody needed it since."""
    killed = story.watched()[-1].code == -signal.SIGKILL
    holder = story.holder()
    return [f"the lock is still held by {holder}"] if holder and not killed else []
