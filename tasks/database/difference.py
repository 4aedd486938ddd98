"""What going back to a backup loses: collections that are new, gone or of another size since, and the time since.

Counts tell of documents that came and went; a document that was changed in its place is not among them, and
`sentences` says so.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from tasks.database.logs import LOG_COLLECTIONS
from tasks.database.manifest import Manifest
from tasks.database.restore.selection import restorable
from tasks.domain.errors import StoppedError
from tasks.domain.plan_text import table

if TYPE_CHECKING:
    from tasks.database.connection import Client

EXACTLY = 200_000
"""Documents up to which a collection is counted one by one; above it the server's own figure is taken, which may be off
after a crash of the server (its documentation of `count` and `collStats`)."""

MIGRATION = "mongock"
"""How the collections of the migration's own record begin (Mongock: mongockChangeLog, mongockLock)."""

HEADS = ("Collection", "Kind", "Since the backup", "Documents in the backup", "Documents now")


class Change(StrEnum):
    """What became of a collection since the backup."""

    NEW = "new"
    GONE = "gone"
    MORE = "more documents"
    FEWER = "fewer documents"
    OTHER = "of another kind"


class Held(NamedTuple):
    """A collection of one side: its kind (`collection`, `view`, `timeseries`) and count, exact or the server's figure.

    A view has no documents of its own: 0.
    """

    kind: str
    documents: int
    exact: bool = True


class CollectionDifference(BaseModel):
    """One collection that differs; counts are None where it is not there, or is a view.

    `log`: it only logs what happens, which other components go on to do while the manager is stopped.
    `exact` is False where the count now is the server's own figure.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: str
    change: Change
    then: int | None
    now: int | None
    log: bool = False
    exact: bool = True

    @property
    def lost(self) -> int:
        """Documents that going back takes away, as far as counts tell."""
        return max(0, (self.now or 0) - (self.then or 0))

    @property
    def back(self) -> int:
        """Documents that going back brings back, as far as counts tell."""
        return max(0, (self.then or 0) - (self.now or 0))


class Difference(BaseModel):
    """The collections that differ, by name; `same` is how many do not.

    `taken` is when the backup was begun, `seen` when the database was looked at.  `left_out` are collections that the
    backup was not to hold: of those nothing is known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    archive: str
    database: str
    taken: datetime
    seen: datetime
    collections: tuple[CollectionDifference, ...] = ()
    same: int = 0
    left_out: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """The time whose changes are lost."""
        return max(0.0, (self.seen - self.taken).total_seconds())

    @property
    def logs(self) -> tuple[CollectionDifference, ...]:
        return tuple(one for one in self.collections if one.log)

    @property
    def others(self) -> tuple[CollectionDifference, ...]:
        """Those that are no logs."""
        return tuple(one for one in self.collections if not one.log)

    @property
    def structural(self) -> bool:
        """Whether something differs that a migration makes: collections that came, went or changed their kind, its record."""
        made = {Change.NEW, Change.GONE, Change.OTHER}
        return any(one.change in made or one.name.startswith(MIGRATION) for one in self.others)

    def of(self, *changes: Change) -> tuple[CollectionDifference, ...]:
        """Those that are no logs and changed so."""
        return tuple(one for one in self.others if one.change in changes)

    def sentences(self) -> tuple[str, ...]:
        """For people, the most telling first."""
        told = [
            f"Everything written since {self.taken:%Y-%m-%d %H:%M:%S} UTC is lost: {duration(self.seconds)}.",
            *_named("Collections that are new and would be dropped", self.of(Change.NEW), "lost"),
            *_named("Collections with more documents than then", self.of(Change.MORE), "lost"),
            *_named("Collections with fewer documents than then", self.of(Change.FEWER), "back"),
            *_named("Collections that are gone and would be back", self.of(Change.GONE), "back"),
            *_named("Collections that are of another kind now", self.of(Change.OTHER), ""),
        ]
        if self.logs:
            lost = sum(one.lost for one in self.logs)
            told.append(f"Logs: {', '.join(one.name for one in self.logs)}, {lost:,} entries since.")
        if self.left_out:
            told.append(f"Not in the backup, on purpose: {', '.join(self.left_out)}; nothing of them comes back.")
        if not self.collections:
            told.append(f"No collection has another count of documents than then ({self.same} were compared).")
        told.append("Documents that were changed in their place are not counted here, and are lost as well.")
        return tuple(told)


def read_difference(
    client: "Client",
    manifest: Manifest,
    *,
    database: str,
    now: datetime,
    stop: Callable[[], bool] = lambda: False,
) -> Difference:
    """Hold `database` as it is now against the manifest of a backup of it.  Reads only.

    `stop` is asked at each collection.  Raises StoppedError and the driver's errors.
    """
    from tasks.database.restore.look import kind_of, listed

    data = {one.collection: one.data for one in manifest.namespaces if one.db == manifest.database}
    found: dict[str, Held] = {}
    for info in listed(client, database):
        if restorable(str(info["name"])):
            if stop():
                raise StoppedError("Comparing was stopped.", observed=f"{database}.{info['name']} was to be counted.")
            name, kind = str(info["name"]), kind_of(info)
            place = data.get(name) or (f"system.buckets.{name}" if kind == "timeseries" else name)
            found[name] = _count(client, database, place, kind)
    return compare(manifest, found, database=database, now=now)


def compare(manifest: Manifest, found: Mapping[str, Held], *, database: str, now: datetime) -> Difference:
    """The difference of the manifest's collections of its own database and those that were `found` in `database`.  Pure."""
    mine = [one for one in manifest.namespaces if one.db == manifest.database and restorable(one.collection)]
    then = {one.collection: Held(one.type or "collection", one.documents) for one in mine}
    left_out = {
        name.removeprefix(f"{manifest.database}.")
        for name in manifest.left_out
        if name.startswith(f"{manifest.database}.")
    }
    names = sorted((then.keys() | found.keys()) - left_out)
    differing = [one for name in names if (one := _difference(name, then.get(name), found.get(name)))]
    return Difference(
        archive=manifest.archive,
        database=database,
        taken=manifest.started,
        seen=now,
        collections=tuple(differing),
        same=len(names) - len(differing),
        left_out=tuple(sorted(left_out)),
    )


def _difference(name: str, then: Held | None, now: Held | None) -> CollectionDifference | None:
    if then is None and now is None:
        return None
    if then is None:
        change = Change.NEW
    elif now is None:
        change = Change.GONE
    elif then.kind != now.kind:
        change = Change.OTHER
    elif then.documents == now.documents:
        return None
    else:
        change = Change.MORE if now.documents > then.documents else Change.FEWER
    here = now or then
    return CollectionDifference(
        name=name,
        kind=here.kind if here else "",
        change=change,
        then=None if then is None or then.kind == "view" else then.documents,
        now=None if now is None or now.kind == "view" else now.documents,
        log=name in LOG_COLLECTIONS,
        exact=now is None or now.exact,
    )


def _count(client: "Client", database: str, place: str, kind: str) -> Held:
    """Documents as an archive counts them, at the `place` where they are: a time series by its buckets, a view by none."""
    if kind == "view":
        return Held(kind, 0)
    of: Any = client[database][place]
    estimated = int(of.estimated_document_count())
    if estimated > EXACTLY:
        return Held(kind, estimated, exact=False)
    return Held(kind, int(of.count_documents({})))


def _named(what: str, found: Iterable[CollectionDifference], side: str) -> list[str]:
    """`what`, the names, and how many documents are `lost` or `back`."""
    some = list(found)
    if not some:
        return []
    names = ", ".join(f"{one.name} ({_of(one, side)})" if side else one.name for one in some)
    return [f"{what}: {names}."]


def _of(one: CollectionDifference, side: str) -> str:
    if one.kind == "view":
        return "a view"
    return f"{'' if one.exact else 'about '}{one.lost if side == 'lost' else one.back:,}"


def duration(seconds: float) -> str:
    """A time for people: `3 days 4 h`, `2 h 5 min`, `40 s`."""
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} day{'s' if days > 1 else ''} {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def difference_rows(found: Difference) -> list[tuple[str, str, str, str, str]]:
    """One row a collection that differs, under `HEADS`; logs last."""
    return [
        (one.name, "log" if one.log else one.kind, one.change.value, _cell(one.then), _cell(one.now, exact=one.exact))
        for one in (*found.others, *found.logs)
    ]


def _cell(count: int | None, *, exact: bool = True) -> str:
    return "-" if count is None else f"{'' if exact else 'about '}{count:,}"


def difference_markdown(found: Difference) -> str:
    """What going back loses, for the artifacts of a run."""
    head = f"# What going back to {found.archive} loses"
    sentences = "\n".join(f"- {sentence}" for sentence in found.sentences())
    rows = [table(HEADS, difference_rows(found))] if found.collections else []
    return "\n\n".join([head, sentences, *rows])
