"""What a journal is made of: a change with its undo and its evidence, a backup, who tried and how that ended.  Pure."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from tasks.domain.inventory import DeploymentKey, Facts

CHANGING = frozenset({"set-image", "scale", "restore"})
"""The kinds after whose beginning the installation may be another than before."""

Kind = Literal["images", "set-image", "scale", "restore"]


class Ended(StrEnum):
    """How a run came to its end; one that has not is unfinished, and no other may begin."""

    COMPLETE = "complete"
    NOTHING_CHANGED = "nothing changed"
    ROLLED_BACK = "rolled back"
    ABANDONED = "abandoned"


class Before(Facts):
    """A Deployment as it was: images by container (init containers are named in `init`), and what else an undo needs.

    `ran` are the image IDs that the kubelets reported, by container, of the pods that ran then.
    """

    uid: str
    generation: int
    replicas: int
    strategy: str = ""
    images: Mapping[str, str] = Field(default_factory=dict)
    init: tuple[str, ...] = ()
    ran: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)


class Entry(Facts):
    """One change.  `subject` is what is changed ("apinizer/manager", a database); `key` where that is a Deployment.

    `will` and `undo` are for people: a sentence, and a command.  `images` are the ones to be, by container, `replicas`
    the count to be.  `done` is None while its outcome is not known; `evidence` is what was seen after it.  One that is
    `unmade` was refused by the server, so that it surely was not made: it counts for nothing.
    """

    kind: Kind
    subject: str
    key: DeploymentKey | None = None
    component: str = ""
    will: str
    undo: str
    before: Before | None = None
    images: Mapping[str, str] = Field(default_factory=dict)
    replicas: int | None = None
    begun: datetime
    done: datetime | None = None
    evidence: Mapping[str, str | int] = Field(default_factory=dict)
    unmade: bool = False

    @property
    def changes(self) -> bool:
        """Whether the installation may be another than before because of it."""
        return self.kind in CHANGING and not self.unmade


class BackupMade(Facts):
    """A proved backup: where it is and what it is, and whose database (`hosts` are host:port, sorted)."""

    host: str
    archive: str
    sha256: str
    documents: int
    database: str
    hosts: tuple[str, ...]
    version: str
    made: datetime


class Owner(Facts):
    """Who runs it: the account and process on a host; `run` is Prefect's id of the flow run."""

    user: str
    host: str
    pid: int
    tool: str
    run: str = ""

    def __str__(self) -> str:
        return f"{self.user} on {self.host}, process {self.pid}"


class Try(Facts):
    """One process that worked on the run: who, since when, and the four parts of the error that ended it."""

    owner: Owner
    begun: datetime
    ended: datetime | None = None
    error: Mapping[str, str] = Field(default_factory=dict)
