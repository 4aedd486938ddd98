"""Backups that a run relies on, marked in their manifests until that run has ended completely.

A run that died does not unmark them: going on, or the way back, needs them.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.database.catalogue import backups
from tasks.database.manifest import Need, load, manifest_path, save
from tasks.domain.errors import NOTHING_CHANGED, UpgradeError, UsageError
from tasks.domain.journal import Journal

Over = Callable[[Need], bool]


def pin(archive: Path, need: Need) -> bool:
    """Mark the backup; False where the same undertaking has done so before, or there is no manifest to write to.

    Without a manifest nothing removes an archive anyway.  Raises UsageError where the manifest cannot be written.
    """
    try:
        manifest = load(archive)
        if manifest is None or any(need.of_same(one) for one in manifest.needed_by):
            return False
        save(archive, manifest.model_copy(update={"needed_by": [*manifest.needed_by, need]}))
    except OSError as problem:
        raise UsageError(
            f"The backup {archive.name} could not be marked as one that is needed.",
            observed=f"{manifest_path(archive).name}: {problem.strerror or type(problem).__name__}.",
            next="Give this user the right to write there, or see that nobody removes the backup before the run has ended.",
        ) from None
    return True


def release(archives: Iterable[Path], over: Over) -> list[str]:
    """Take away the marks of undertakings that are `over`; sentences on what could not be written."""
    told = []
    for archive in dict.fromkeys(archives):
        try:
            manifest = load(archive)
            left = [need for need in manifest.needed_by if not over(need)] if manifest else []
            if manifest and left != manifest.needed_by:
                save(archive, manifest.model_copy(update={"needed_by": left}))
        except (OSError, UpgradeError) as problem:
            told.append(f"{archive.name} stays marked as needed: {type(problem).__name__}.")
    return told


def release_of_abandoned(journal: Journal) -> list[str]:
    """Take away the marks of an upgrade that was abandoned; sentences on what stays marked.

    Those of a restore stay: they go when a restore of that database was completed, or another one gives it up.
    """
    made = journal.backup
    if made is None or journal.kind != "upgrade":
        return []
    archive = Path(made.archive)
    if not archive.exists():
        there = f"{archive.name} on {made.host} is not seen from here, so it stays marked as needed there"
        return [f"{there}, until an upgrade that backs up into its folder was completed."]

    def over(need: Need) -> bool:
        return need.run == "upgrade" and need.is_of(made.database, made.hosts) and need.version == journal.to.text

    # A try that died before it had recorded its backup may have left another one.
    return release([archive, *archives_in(archive.parent)], over)


def archives_in(*directories: Path) -> list[Path]:
    """The backups of these directories; one that cannot be listed holds none."""
    found: list[Path] = []
    for directory in directories:
        try:
            found += [backup.archive for backup in backups(directory)]
        except UpgradeError:
            continue
    return found


@contextmanager
def needed_for_restore(
    need: Need,
    archive: Path,
    safety: Path | None,
    directory: Path,
    say: Callable[[str], None],
    *,
    give_up: bool = False,
) -> Iterator[None]:
    """While the context lasts, and after it unless the restore was completed or never began, both backups are marked.

    Once it is completed, so are the former tries of it, whose backups are in the folders of these two or `directory`;
    with `give_up` every restore of that database has ended with it.
    Raises UsageError where `safety` cannot be marked; an archive in a place that cannot be written to is told.
    """
    marked = [safety] if safety and pin(safety, need) else []
    try:
        marked += [archive] if pin(archive, need) else []
    except UpgradeError as error:
        say(f"{error.happened} {error.observed}")
    try:
        yield
    except UpgradeError as error:
        if error.safe == NOTHING_CHANGED:
            release(marked, need.of_same)
        raise

    def over(other: Need) -> bool:
        given_up = give_up and (other.run, other.database, other.hosts) == ("restore", need.database, need.hosts)
        return given_up or need.of_same(other)

    places = {path.parent for path in (archive, safety) if path} | {directory}
    for sentence in release([archive, *archives_in(*sorted(places))], over):
        say(sentence)
