"""Which program reads the database: this software itself, or mongodump.

`auto` takes the native engine.  It reads, compresses and checks faster, it takes databases and left out
collections that mongodump has no options for, and its restore keeps every collection whole until the new one
is checked, while `mongorestore --drop` replaces in place.  `auto` takes mongodump where the native engine
cannot do the work and mongodump can: where the database answers only on its own machine, which is named for
SSH, and for a time series on a server that keeps it without the buckets that the archive format stores.  Then
the tool on the named machine comes first, where the published procedure runs it, and the tool here second.

`native` and `mongodump` are taken at their word, or refused with the reason.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tasks.database.scope import Scope
from tasks.database.server_version import VIEWLESS_TIME_SERIES, numbers
from tasks.domain.errors import BlockedError, UsageError

FIRST_WITH_CONFIG = (100, 3, 0)
"""The release of the MongoDB Database Tools whose `--config` takes password and URI from a file."""


class Engine(StrEnum):
    """What was asked for."""

    AUTO = "auto"
    NATIVE = "native"
    MONGODUMP = "mongodump"


class EngineFacts(BaseModel):
    """What is known before the choice.

    `ssh` is the machine named for SSH, empty for none.  `here` and `there` are the versions of the tool on this
    machine and on that one, empty where it is not installed.  `reachable` is whether the database answers here.
    `native_cannot` is a sentence on why the native engine cannot do the work, empty where it can.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ssh: str = ""
    here: str = ""
    there: str = ""
    reachable: bool = True
    native_cannot: str = ""

    @property
    def against_native(self) -> str:
        """Why the native engine, which works from here, cannot do it; empty where it can."""
        return self.native_cannot if self.reachable else "The database does not answer on this machine."

    @property
    def version(self) -> str:
        """The tool's version where it would run: on the database's machine first."""
        return self.there or (self.here if self.reachable else "")


class Choice(BaseModel):
    """The engine that does the work, where it runs, and why as a sentence."""

    model_config = ConfigDict(frozen=True)

    engine: Literal[Engine.NATIVE, Engine.MONGODUMP]
    where: Literal["local", "ssh"] = "local"
    reason: str


def choose(wish: Engine, facts: EngineFacts, scope: Scope | None = None) -> Choice:
    """The engine for a wish; `scope` is what a dump takes, None for a restore.

    Raises UsageError where mongodump is wished for and cannot do it, BlockedError where nothing can.
    """
    tool_cannot = _tool_cannot(facts, scope)
    if wish is Engine.NATIVE:
        if facts.against_native:
            raise BlockedError(
                "The native engine cannot do this.",
                observed=facts.against_native,
                next="Use --engine mongodump, or leave the choice to auto.",
            )
        return Choice(engine=Engine.NATIVE, reason="It was asked for.")
    if wish is Engine.MONGODUMP:
        if tool_cannot:
            raise UsageError("mongodump cannot do this.", observed=tool_cannot, next=_way_out(facts))
        return Choice(engine=Engine.MONGODUMP, where=_where(facts), reason="It was asked for.")
    if not facts.against_native:
        return Choice(engine=Engine.NATIVE, reason="The native engine can do it, and needs nothing installed.")
    if not tool_cannot:
        return Choice(engine=Engine.MONGODUMP, where=_where(facts), reason=facts.against_native)
    raise BlockedError(
        "Neither the native engine nor mongodump can do this.",
        observed=f"{facts.against_native}\n{tool_cannot}",
        next="Install the MongoDB Database Tools here, or on the database's machine and name it for SSH.",
    )


def native_limit(server_version: str, types: Iterable[str]) -> str:
    """Why the native engine cannot archive collections of these types from this server; empty where it can."""
    if "timeseries" in types and numbers(server_version) >= VIEWLESS_TIME_SERIES:
        return f"Server {server_version} keeps time series without the buckets that the archive format stores."
    return ""


def tool_limit(scope: Scope) -> str:
    """Why one mongodump cannot take `scope`; empty where it can.

    Source: mongo-tools, mongodump/mongodump.go, ValidateOptions: one `--db` at most, and `--excludeCollection`
    only with it.
    """
    if len(scope.databases) > 1:
        return f"mongodump takes one database or the whole server, not {', '.join(scope.databases)}."
    if scope.left_out and scope.whole_server:
        return "mongodump leaves collections out only of one database, not of the whole server."
    return ""


def _tool_cannot(facts: EngineFacts, scope: Scope | None) -> str:
    if scope is not None and (limit := tool_limit(scope)):
        return limit
    if not facts.version:
        if facts.here:
            return "It is installed here, where the database does not answer."
        return f"It is installed neither here nor on {facts.ssh}." if facts.ssh else "It is not installed here."
    if numbers(facts.version) < FIRST_WITH_CONFIG:
        place = f"on {facts.ssh}" if facts.there else "here"
        return f"Version {facts.version} {place} has no --config: its password would be in the process list."
    return ""


def _where(facts: EngineFacts) -> Literal["local", "ssh"]:
    return "ssh" if facts.there else "local"


def _way_out(facts: EngineFacts) -> str:
    if facts.version:
        return "Use --engine native, or install release 100.3 or newer of the MongoDB Database Tools."
    return "Install the MongoDB Database Tools, name the database's machine for SSH, or use --engine native."
