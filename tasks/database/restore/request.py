"""What is asked of a restore, what it finds and what it plans, as data."""

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tasks.database.archive.format import Namespace
from tasks.database.manifest import Manifest
from tasks.database.merge_rule import MergeRule
from tasks.domain.errors import BlockedError, NotFoundError, UnprovenError, UpgradeError, UsageError


class RestoreRequest(BaseModel):
    """What is asked for.

    `database` is written; `source_database` is the archive's (empty: the same).  `include` and `exclude` are
    names or patterns (`*`, `?`, `[…]`) of the archive's collections; `rename` maps an archive's collection to the
    name it gets.  `exact` drops what is not in the archive, `merge` brings documents into collections that stay.
    `other_installation` lets an archive in that is not of this one.  `give_up` begins though another restore was
    interrupted while it put collections in their place.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    database: str
    source_database: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    rename: dict[str, str] = {}
    exact: bool = False
    merge: MergeRule | None = None
    other_installation: bool = False
    give_up: bool = False

    @property
    def source(self) -> str:
        """The archive's database."""
        return self.source_database or self.database


class Verb(StrEnum):
    """What happens to a collection of the database."""

    REPLACE = "replace"
    CREATE = "create"
    MERGE = "merge"
    DROP = "drop"
    LEAVE = "leave"


class Archived(BaseModel):
    """A collection, view or time series of the archive; `number` is its place in the archive's announcement."""

    model_config = ConfigDict(frozen=True)

    number: int
    namespace: Namespace
    kind: str = "collection"
    documents: int = 0
    bytes: int = 0
    capped: bool = False


class Present(BaseModel):
    """A collection, view or time series that the database holds now."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: str = "collection"
    documents: int = 0


class Action(BaseModel):
    """What is done with one collection.

    `source` and `number` are its place in the archive (None and -1: it is not there), `documents` and `bytes`
    what the archive holds of it, `kind_now` and `documents_now` what the database does (empty and 0: nothing).
    """

    model_config = ConfigDict(frozen=True)

    verb: Verb
    target: Namespace
    source: Namespace | None = None
    number: int = -1
    kind: str = "collection"
    documents: int = 0
    bytes: int = 0
    kind_now: str = ""
    documents_now: int = 0


class Refusal(BaseModel):
    """Why a restore is not begun, in the parts of an error.

    `needs_safety`: a proved backup of what is there now is all that is missing.  `native_only`: another engine
    may well do it.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["usage", "blocked", "missing", "unproven"]
    happened: str
    observed: str = ""
    next: str = ""
    needs_safety: bool = False
    native_only: bool = False

    def error(self) -> UpgradeError:
        """The error to raise; nothing was changed."""
        kinds: dict[str, type[UpgradeError]] = {
            "usage": UsageError, "blocked": BlockedError, "missing": NotFoundError, "unproven": UnprovenError
        }  # fmt: skip
        return kinds[self.kind](self.happened, observed=self.observed, next=self.next)


class RestorePlan(BaseModel):
    """What a restore would do, and sentences on what it would leave alone.

    `refused` holds the first reason not to begin, `native_only` the first that another engine may take away,
    whatever comes before it; `documents` and `bytes` are what would be loaded; `version` is the Apinizer's whose data
    the archive holds, "" where nothing says it.
    """

    model_config = ConfigDict(frozen=True)

    archive: str
    version: str = ""
    database: str
    source_database: str
    actions: tuple[Action, ...] = ()
    sentences: tuple[str, ...] = ()
    refused: Refusal | None = None
    native_only: Refusal | None = None

    @property
    def refusal(self) -> UpgradeError | None:
        """The error that the restore would end with before it changes anything, None where it would begin."""
        return self.refused.error() if self.refused else None

    @property
    def loads(self) -> tuple[Action, ...]:
        """The actions that need the archive's documents, in the archive's order."""
        wanted = {Verb.REPLACE, Verb.CREATE, Verb.MERGE}
        return tuple(action for action in self.actions if action.verb in wanted and action.kind != "view")

    @property
    def documents(self) -> int:
        """Documents to be loaded."""
        return sum(action.documents for action in self.loads)

    @property
    def bytes(self) -> int:
        """Bytes of documents to be loaded."""
        return sum(action.bytes for action in self.loads)

    def of(self, verb: Verb) -> tuple[Action, ...]:
        """The actions of one kind."""
        return tuple(action for action in self.actions if action.verb is verb)


class Safety(BaseModel):
    """The backup that was taken of what is there now; `problem` says why it cannot be relied on."""

    model_config = ConfigDict(frozen=True)

    name: str
    problem: str = ""
    holds: dict[str, int] = {}

    @classmethod
    def of(cls, manifest: Manifest | None, database: str, name: str, sha256: str) -> "Safety":
        """Judge a manifest and the SHA-256 that the archive beside it has on the disk now."""
        if manifest is None:
            return cls(name=name, problem="it has no manifest")
        if manifest.proof is None:
            return cls(name=name, problem="it was not proved")
        if not manifest.sha256 == manifest.proof.sha256 == sha256:
            return cls(name=name, problem="its file is not the one that was proved")
        return cls(
            name=name, holds={one.collection: one.documents for one in manifest.namespaces if one.db == database}
        )
