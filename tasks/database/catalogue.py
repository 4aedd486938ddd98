"""The backups of a directory: what each one's manifest says, and whether it may be relied on."""

from datetime import UTC, date, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tasks.database.manifest import Manifest, load
from tasks.database.naming import ARCHIVE, parse
from tasks.domain.errors import DamagedArchiveError, NotFoundError, UpgradeError, UsageError


class Backup(BaseModel):
    """One archive.  `size` is the file's, in bytes; `problem` is a sentence on why it cannot be relied on, or "".

    `proved` means that its proof is recorded and that the file still has the size that was proved; the bytes
    are not read here.  A backup may be neither proved nor have a problem: nobody has read it back yet.
    """

    model_config = ConfigDict(frozen=True)

    archive: Path
    version: str
    taken: datetime
    size: int
    manifest: Manifest | None
    proved: bool
    problem: str

    @property
    def sha256(self) -> str:
        """As the manifest has it, "" without one."""
        return self.manifest.sha256 if self.manifest else ""

    @property
    def needed(self) -> bool:
        """Whether a run that has not ended relies on it."""
        return self.manifest is not None and bool(self.manifest.needed_by)

    def stands_for(self, older: "Backup") -> bool:
        """Whether it is of the same server and holds whatever `older` was to hold."""
        return bool(self.manifest and older.manifest and self.manifest.stands_for(older.manifest))


def backups(directory: Path) -> list[Backup]:
    """The backups in `directory` by this project's naming, newest first; other files are passed over.

    Raises NotFoundError and UsageError for a directory that is none or may not be read.
    """
    try:
        paths = [path for path in directory.iterdir() if path.name.endswith(ARCHIVE)]
    except FileNotFoundError:
        raise NotFoundError(
            f"There is no directory {directory}.",
            observed="Backups are looked for there.",
            next="Name the one that has them with --backup-dir.",
        ) from None
    except OSError as problem:
        raise UsageError(
            f"The backups in {directory} cannot be listed.",
            observed=problem.strerror or type(problem).__name__,
            next="Name a directory that this user may read with --backup-dir.",
        ) from None
    found = [backup for path in paths if (backup := _backup(path))]
    return sorted(found, key=lambda backup: (backup.taken, backup.archive.name), reverse=True)


def _backup(path: Path) -> Backup | None:
    name = parse(path.name)
    try:
        state = path.stat()
        if name is None or not path.is_file():
            return None
    except OSError:
        return None  # Removed meanwhile, or a link to nowhere.
    manifest, problem = _manifest(path)
    if manifest and manifest.size != state.st_size:
        problem = f"The file has {state.st_size:,} bytes, its manifest says {manifest.size:,}."
    taken = manifest.ended if manifest else datetime.fromtimestamp(state.st_mtime, UTC)
    return Backup(
        archive=path,
        version=manifest.apinizer_version if manifest else name.version,
        taken=_aware(taken, name.day),
        size=state.st_size,
        manifest=manifest,
        proved=manifest is not None and not problem and _counts(manifest),
        problem=problem,
    )


def _manifest(path: Path) -> tuple[Manifest | None, str]:
    try:
        manifest = load(path)
    except UpgradeError as error:
        reason = "damaged, or of a newer version" if isinstance(error, DamagedArchiveError) else "not readable"
        return None, f"Its manifest is {reason}."
    except OSError as problem:
        return None, f"Its manifest cannot be read: {problem.strerror or type(problem).__name__}."
    return manifest, "" if manifest else "It has no manifest."


def _counts(manifest: Manifest) -> bool:
    """A proof counts only for the very file that the manifest is of."""
    return manifest.proof is not None and manifest.proof.sha256 == manifest.sha256


def _aware(taken: datetime, day: date) -> datetime:
    """With a zone; a manifest that was edited by hand may lack it."""
    if taken.tzinfo is not None:
        return taken
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
