"""The options of the commands on the database, and where its address comes from."""

import os
import re
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

import typer

from blocks.settings import InstallationSettings, installation_of
from deployments.cli import options as opt
from tasks.domain.errors import UsageError

URI_VARIABLE = "APINIZER_UPGRADE_URI"
SHORTEST = 8  # digits of a SHA-256
SCRATCH_VARIABLE = "APINIZER_UPGRADE_SCRATCH_URI"


class EngineChoice(StrEnum):
    """Who reads the database."""

    AUTO = "auto"
    NATIVE = "native"
    MONGODUMP = "mongodump"


Uri = Annotated[
    str | None,
    typer.Option(
        "--uri",
        metavar="URI",
        help="The database's address, or - for standard input; else --uri-file, $APINIZER_UPGRADE_URI, the configuration, the cluster's secret.",
    ),
]
UriFile = Annotated[
    Path | None, typer.Option("--uri-file", metavar="FILE", help="A file that holds the address alone.")
]
Database = Annotated[
    str, typer.Option("--database", metavar="NAME", help="The database's name, where it is not apinizerdb.")
]
Engine = Annotated[
    EngineChoice | None,
    typer.Option("--engine", envvar="APINIZER_UPGRADE_ENGINE", help="auto, native or mongodump (auto)."),
]
Ssh = Annotated[
    str,
    typer.Option("--ssh", metavar="DESTINATION", help="Run mongodump there, as ssh takes it, e.g. root@primary."),
]
WholeServer = Annotated[
    bool | None, typer.Option("--whole-server/--one-database", help="All databases, as the published command has it.")
]
LeaveOut = Annotated[
    list[str] | None,
    typer.Option("--leave-out", metavar="COLLECTION", help="Leave this collection out; may be repeated."),
]
Keep = Annotated[
    int | None,
    typer.Option("--keep", min=1, envvar="APINIZER_UPGRADE_KEEP", help="Keep so many backups, remove older ones."),
]
KeepDays = Annotated[
    int | None,
    typer.Option(
        "--keep-days", min=1, envvar="APINIZER_UPGRADE_KEEP_DAYS", help="Remove backups older than so many days."
    ),
]
ApinizerVersion = Annotated[
    str,
    typer.Option(
        "--apinizer-version", metavar="VERSION", help="The version in the backup's name; else the running manager's."
    ),
]
AllowEphemeral = Annotated[
    bool | None,
    typer.Option("--allow-ephemeral", help="Take a folder that ends with this container.", show_default=False),
]
NoGzip = Annotated[bool, typer.Option("--no-gzip", help="Write the archive without compression.")]
SourceDatabase = Annotated[
    str,
    typer.Option("--source-database", metavar="NAME", help="The database's name in the archive, where it is another."),
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        "--include", metavar="COLLECTION", help="Only this one; a name or a pattern such as env_*; may be repeated."
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="COLLECTION", help="Not this one; a name or a pattern; may be repeated."),
]
Rename = Annotated[
    list[str] | None,
    typer.Option("--rename", metavar="OLD=NEW", help="Restore it under another name; may be repeated."),
]
Exact = Annotated[bool, typer.Option("--exact", help="Drop collections that the archive does not hold.")]
Merge = Annotated[
    str,
    typer.Option(
        "--merge",
        metavar="RULE",
        help="Bring documents in by _id instead of replacing: ours keeps the database's, theirs takes the archive's, "
        "newest:FIELD the one with the greater value.",
    ),
]
OtherInstallation = Annotated[
    bool, typer.Option("--from-other-installation", help="Take an archive that is of another installation.")
]
GiveUp = Annotated[
    bool,
    typer.Option(
        "--give-up", help="Begin though another restore is half done: what it put in place already is replaced or left."
    ),
]
NoSafetyBackup = Annotated[
    bool, typer.Option("--no-safety-backup", help="Do not back up the database as it is now before it is replaced.")
]
NoCluster = Annotated[
    bool, typer.Option("--no-cluster", help="Do not ask the cluster whether a manager runs: see to it yourself.")
]
ScratchUri = Annotated[
    str,
    typer.Option(
        "--scratch-uri",
        metavar="URI",
        envvar=SCRATCH_VARIABLE,
        help="Restore it on trial on this second server, or - for standard input; compared there, and dropped again.",
    ),
]
ScratchDatabase = Annotated[
    str,
    typer.Option(
        "--scratch-database",
        metavar="NAME",
        help="Restore it on trial into this new database (apinizer_rehearsal); beside the Apinizer one without --scratch-uri.",
    ),
]
Archive = Annotated[Path, typer.Argument(metavar="ARCHIVE", help="The backup's .archive file.")]
ArchiveOrFrom = Annotated[
    Path | None, typer.Argument(metavar="ARCHIVE", help="The backup's .archive file; or name it with --from.")
]
From = Annotated[
    str,
    typer.Option(
        "--from", metavar="BACKUP", help="The backup by its file's name in the folder, or the beginning of its SHA-256."
    ),
]


def named_archive(settings: InstallationSettings, archive: Path | None, name: str) -> Path:
    """The archive that is meant; raise `UsageError` where none is, or both are, or the name is of none or several."""
    from tasks.database.catalogue import backups
    from tasks.database.order import FOLDER

    if (archive is None) == (not name):
        raise UsageError(
            "Which backup is meant is not clear." if archive else "No backup is named.",
            observed="ARCHIVE and --from were both given." if archive else "Neither ARCHIVE nor --from was given.",
            next="Name the .archive file, or say --from with a name that apinizer-upgrade backups shows.",
        )
    if archive is not None:
        return archive
    if Path(name).is_file():
        return Path(name)
    folder = Path(settings.backup_dir or FOLDER)
    known = backups(folder)
    short = name.lower() if len(name) >= SHORTEST else "-"
    found = [b.archive for b in known if name == b.archive.name] or [
        b.archive for b in known if b.sha256.startswith(short)
    ]
    if len(set(found)) == 1:
        return found[0]
    raise UsageError(
        f"{name} means several backups." if found else f"There is no backup {name} in {folder}.",
        observed=", ".join(b.archive.name for b in known[:5]) or "There is none at all.",
        next="apinizer-upgrade backups lists them; another folder is named with --backup-dir.",
    )


def with_address(
    settings: InstallationSettings, uri: str | None, uri_file: Path | None, database: str
) -> InstallationSettings:
    """The settings with the database that the options name; raise `UsageError` where they contradict each other.

    A database in the address is taken as mongodump takes it: as the one that is meant.
    A password in the arguments is seen by everybody who lists the machine's processes; that is said once.
    """
    given = _given(uri, uri_file)
    changed = settings.database.model_dump(mode="python")
    if given:
        name = _database_in(given) or settings.database.name
        changed = {"uri": given, "secret": settings.database.secret, "name": name}
    if database:
        changed["name"] = database
    content: dict[str, object] = settings.model_dump(mode="python")
    return installation_of({**content, "database": changed}, source="given by options")


def names_server(uri: str | None, uri_file: Path | None) -> bool:
    """Whether an option or the environment names the database's server."""
    return bool(uri or uri_file or os.environ.get(URI_VARIABLE))


def with_scratch(settings: InstallationSettings, scratch_uri: str) -> InstallationSettings:
    """The settings with the second server that an option or its variable names."""
    if not scratch_uri:
        return settings
    content: dict[str, object] = settings.model_dump(mode="python")
    address = spoken(scratch_uri, "--scratch-uri", SCRATCH_VARIABLE)
    content["backup"] = {**settings.backup.model_dump(mode="python"), "second_server": address}
    return installation_of(content, source="given by options")


def _given(uri: str | None, uri_file: Path | None) -> str:
    if uri is not None and not uri.strip():
        # An unset variable of a shell: another database than the one that was meant would be taken.
        raise UsageError("--uri is empty.", next="Give the address, or leave the option out.")
    if uri and uri_file:
        raise UsageError("--uri and --uri-file both name the database.", next="Give one of the two.")
    if uri:
        return spoken(uri, "--uri", URI_VARIABLE)
    if uri_file:
        return _required(_read(uri_file), f"{uri_file} is empty.")
    return os.environ.get(URI_VARIABLE, "")


def spoken(uri: str, option: str, variable: str) -> str:
    """An address as an option gives it: - is standard input; a password in sight is told."""
    if uri == "-":
        return _required(sys.stdin.readline().strip(), "Standard input held no address.")
    if _has_password(uri) and os.environ.get(variable) != uri:
        print(
            f"Note: a password in {option} is seen by whoever lists the processes of this machine; "
            f"{option} - or ${variable} keep it out of sight.",
            file=sys.stderr,
        )
    return uri


def _database_in(uri: str) -> str:
    """The database in an address's path, "" where there is none but the one for the login."""
    found = re.match(r"mongodb(?:\+srv)?://[^/?]*/([^?]*)", uri)
    name = unquote(found[1]) if found else ""
    return "" if name == "admin" else name


def _has_password(uri: str) -> bool:
    try:
        return bool(urlsplit(uri).password)
    except ValueError:
        return "@" in uri


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(
            f"The file {path} cannot be read.",
            observed=str(reason),
            next="It holds the database's address alone, e.g. mongodb://USER:PASSWORD@HOST:25080/?authSource=admin.",
        ) from None


def _required(text: str, otherwise: str) -> str:
    if not text:
        raise UsageError(
            "The database's address is missing.",
            observed=otherwise,
            next="Write it as mongodb://USER:PASSWORD@HOST:25080/?authSource=admin.",
        )
    return text


def with_backup(
    settings: InstallationSettings, engine: EngineChoice | None, ssh: str, **said: object
) -> InstallationSettings:
    """The settings with what the options say of the backup; raise `UsageError` where they contradict each other."""
    spoken_of = {"engine": engine.value if engine else None, "ssh": ssh or None, **said}
    given = {name: value for name, value in spoken_of.items() if value is not None}
    content: dict[str, object] = settings.model_dump(mode="python")
    content["backup"] = {**settings.backup.model_dump(mode="python"), **given}
    return installation_of(content, source="given by options")


@dataclass(frozen=True, slots=True)
class Making:
    """How a backup is made and where it goes; what is empty stays as the configuration has it."""

    backup_dir: opt.BackupDir = ""
    engine: Engine = None
    ssh: Ssh = ""
    allow_ephemeral: AllowEphemeral = None

    def on(self, settings: InstallationSettings, **more: object) -> InstallationSettings:
        """The settings with that, and with `more` of `backup` in the configuration; its folder is `settings`' to say."""
        return with_backup(settings, self.engine, self.ssh, ephemeral_allowed=self.allow_ephemeral, **more)


@dataclass(frozen=True, slots=True)
class Keeping(Making):
    """The same, and which older ones stay."""

    keep: Keep = None
    keep_days: KeepDays = None

    def on(self, settings: InstallationSettings, **more: object) -> InstallationSettings:
        """The settings with that, and with `more` of `backup` in the configuration."""
        return Making.on(self, settings, keep=self.keep, keep_days=self.keep_days, **more)


def renames(texts: list[str] | None) -> dict[str, str]:
    """The new name by the old one; raise `UsageError` for what is no OLD=NEW."""
    found: dict[str, str] = {}
    for text in texts or ():
        old, equals, new = text.partition("=")
        if not (old and equals and new) or old in found:
            raise UsageError(
                f"--rename {text} is not understood.",
                observed="It names a collection twice." if old in found else "It is not of the form OLD=NEW.",
                next="Write it as OLD=NEW, e.g. --rename policy=policy_of_may.",
            )
        found[old] = new
    return found
