"""How far a restore is, kept in the database that it restores: any later run can go on from it."""

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pymongo.collection import Collection
from pymongo.write_concern import WriteConcern

from tasks.database.archive.metadata import CollectionMetadata, decode
from tasks.database.connection import Client
from tasks.database.restore.names import PREFIX, owner, run_of, state_name
from tasks.database.restore.plan import RestorePlan, RestoreRequest
from tasks.domain.errors import BlockedError, UpgradeError

_ID = "restore"


class Ready(BaseModel):
    """A copy that was loaded and checked: its documents then, and their fingerprint.

    `definition` is its metadata as an archive has it, where the archive's oplog changed that; else empty.
    `uuid` is what the server calls the copy (hexadecimal, empty where it does not say): a MongoDB server keeps it
    when it renames a collection, and another collection never has it.
    """

    model_config = ConfigDict(frozen=True)

    documents: int
    fingerprint: str
    definition: str = ""
    uuid: str = ""

    def is_called(self, uuid: str) -> bool:
        """Whether the server calls the copy `uuid`, and does say what it calls it."""
        return bool(uuid) and uuid == self.uuid

    def defined(self, announced: CollectionMetadata) -> CollectionMetadata:
        """The definition that the collection is to have."""
        return decode(self.definition) if self.definition else announced


class State(BaseModel):
    """The restore of one archive.

    `loading`: nothing of the database was replaced; `ready` are the checked copies by their number.
    `swapping`: all copies were ready and `plan` is being carried out, `done` of it; only going on makes the
    database whole.  `notes` and `problems` are what to tell of what is done, `extras` what an exact restore set
    aside: the live name by the name that it has meanwhile.  `after_half`: a restore was given up for this one that
    had replaced some collections, so the database is half of each until this one is done.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    archive: str
    request: RestoreRequest
    phase: Literal["loading", "swapping"] = "loading"
    ready: dict[str, Ready] = {}
    plan: RestorePlan | None = None
    done: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[dict[str, str], ...] = ()
    extras: dict[str, str] = {}
    after_half: bool = False

    @property
    def half_done(self) -> bool:
        """Whether the database is half what it was and half what an archive holds."""
        return self.phase == "swapping" or self.after_half

    def is_of(self, request: RestoreRequest) -> bool:
        """Whether the same was asked for; what is let in or given up for it does not matter."""
        leave = {"other_installation": self.request.other_installation, "give_up": self.request.give_up}
        return self.request == request.model_copy(update=leave)

    def is_ready(self, number: int) -> bool:
        """Whether the copy of the archive's `number`th collection was checked."""
        return str(number) in self.ready

    def with_ready(self, number: int, ready: Ready) -> "State":
        """The state with one copy more."""
        return self.model_copy(update={"ready": {**self.ready, str(number): ready}})

    def without_ready(self, number: int) -> "State":
        """The state with one copy less."""
        return self.model_copy(update={"ready": {key: one for key, one in self.ready.items() if key != str(number)}})

    def with_done(self, number: int, note: str = "", problem: UpgradeError | None = None) -> "State":
        """The state with one collection more in its place, and what is to be told of it at the end."""
        return self.model_copy(
            update={
                "done": (*self.done, number),
                "notes": (*self.notes, note) if note else self.notes,
                "problems": (*self.problems, problem.as_json()) if problem else self.problems,
            }
        )

    def told(self) -> list[UpgradeError]:
        """What to end with when all is done."""
        return [UpgradeError(**one) for one in self.problems]


def read_state(client: Client, database: str, run: str) -> State | None:
    """The state that a run left, None where it left none; raises BlockedError for one that is not understood."""
    found = _collection(client, database, run).find_one({"_id": _ID})
    try:
        return State.model_validate_json(found["state"]) if found else None
    except (ValidationError, KeyError):
        raise BlockedError(
            f"A restore of another version of this software is unfinished in {database}.",
            observed=f"How far it is stands in the collection {state_name(run)}, in a form that is not known here.",
            next="Go on with the version that began it. To give it up, drop that collection.",
        ) from None


def require_none_half_done(client: Client, database: str) -> None:
    """Raise BlockedError where a restore was interrupted while it put collections in their place.

    Such a database is half the one, half the other: neither to be backed up as a version's nor to be migrated.
    """
    for run in runs_in(client[database].list_collection_names(filter={"name": {"$regex": f"^{re.escape(PREFIX)}"}})):
        left = read_state(client, database, run)
        if left is not None and left.half_done:
            raise BlockedError(
                f"A restore of {database} was interrupted while it put collections in their place.",
                observed=f"Archive {left.archive}, SHA-256 {left.sha256[:12]}…",
                next="Restore that archive again with the same options: it goes on where it was. "
                "To put another one back instead, such as the backup of before it, restore that with --give-up.",
            )


def write_state(client: Client, database: str, state: State) -> None:
    """Keep `state`, confirmed by a majority of the replica set."""
    # As text: names of collections may be what names of fields may not.
    document = {"_id": _ID, "state": state.model_dump_json()}
    _collection(client, database, run_of(state.sha256)).replace_one({"_id": _ID}, document, upsert=True)


def runs_in(names: list[str]) -> list[str]:
    """The runs that left collections among `names`."""
    return sorted({owner(name) for name in names} - {""})


def _collection(client: Client, database: str, run: str) -> Collection[dict[str, Any]]:
    return client[database].get_collection(state_name(run), write_concern=WriteConcern("majority"))
