"""What a backup is asked to be: from the installation's settings and what one run says otherwise.  Pure."""

from typing import Any, Literal, Self

from blocks.settings import InstallationSettings
from tasks.database.scope import Scope
from tasks.domain.inventory import Facts

FOLDER = "backups"
"""Where backups go that nobody gave a place, below the folder that the run works in."""


class BackupOrder(Facts):
    """`directory` is on the machine of the run; `keep` backups and those of `keep_days` days stay, all if None."""

    directory: str = FOLDER
    engine: Literal["auto", "native", "mongodump"] = "auto"
    ssh: str = ""
    whole_server: bool = False
    leave_out: tuple[str, ...] = ()
    gzip: bool = True
    ephemeral_allowed: bool = False
    keep: int | None = None
    keep_days: int | None = None

    @classmethod
    def of(cls, settings: InstallationSettings, **said: Any) -> Self:
        """As the settings have it, but for what this run says: a field that is None or "" says nothing."""
        base = {name: getattr(settings.backup, name) for name in cls.model_fields if hasattr(settings.backup, name)}
        given = {name: value for name, value in said.items() if value is not None and value != ""}
        return cls(**{"directory": settings.backup_dir or FOLDER, **base, **given})

    def scope(self, database: str) -> Scope:
        """What it takes; `database` is the installation's own."""
        return Scope(databases=() if self.whole_server else (database,), left_out=self.leave_out)
