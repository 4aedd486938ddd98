"""Which server answers: is it the primary, and is it still the one that answered before?"""

from dataclasses import dataclass

from pymongo.errors import OperationFailure

from tasks.database.connection import Client
from tasks.database.manifest import SourceRecord
from tasks.database.server_version import numbers
from tasks.domain.errors import TemporaryError, UsageError


@dataclass(frozen=True, slots=True)
class Primary:
    """A server that says that it is the primary.

    `process` changes with every start of a server, `election` with every new primary; both are empty where
    the server does not tell them (before 4.4, outside a replica set).
    """

    server_version: str
    hosts: tuple[str, ...]
    set_name: str
    process: str
    election: str
    router: bool
    """Whether it is a mongos, which has no oplog."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version to compare with: `(7, 0, 12)`."""
        return numbers(self.server_version)


def primary(client: Client) -> Primary:
    """Ask the server that is reached now.  Raises UsageError where it is not the primary."""
    hello = client.admin.command("hello")
    if not hello.get("isWritablePrimary", hello.get("ismaster", False)):
        raise UsageError(
            "The database server that was reached is not the primary.",
            observed=f"Replica set {hello.get('setName') or 'unnamed'}.",
            next="Name the primary, or the whole replica set without directConnection.",
        )
    topology = hello.get("topologyVersion") or {}
    return Primary(
        server_version=str(client.admin.command("buildInfo")["version"]),
        hosts=tuple(map(str, hello.get("hosts") or ())) or _address(client),
        set_name=str(hello.get("setName", "")),
        process=str(topology.get("processId", "")),
        election=str(hello.get("electionId", "")),
        router=hello.get("msg") == "isdbgrid",
    )


def still(client: Client, before: Primary) -> None:
    """Raises TemporaryError where another server is the primary now, or the same one was started anew."""
    try:
        now = primary(client)
    except UsageError:
        now = None
    if now is None or (now.process, now.election, now.set_name) != (before.process, before.election, before.set_name):
        raise TemporaryError(
            "The database's primary changed during the backup.",
            observed="It is not the primary any more."
            if now is None
            else "Another server answers, or it was restarted.",
            safe="Nothing was changed; the unfinished file was removed.",
            next="Try again when the replica set has settled.",
        )


def source(client: Client, seen: Primary) -> SourceRecord:
    """Where a backup is from, for its manifest; the set's id is empty where this user may not ask for it."""
    set_id = ""
    if seen.set_name:
        try:
            config = client.admin.command("replSetGetConfig")["config"]
            set_id = str(config.get("settings", {}).get("replicaSetId", ""))
        except (OperationFailure, KeyError):
            set_id = ""
    return SourceRecord(hosts=list(seen.hosts), set_name=seen.set_name, set_id=set_id)


def _address(client: Client) -> tuple[str, ...]:
    found = client.address
    return (f"{found[0]}:{found[1]}",) if found else ()
