"""What a restore would do, decided before it does anything: pure, from what the archive and the database hold."""

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tasks.database.archive.format import Namespace
from tasks.database.manifest import Manifest
from tasks.database.merge_rule import MergeRule
from tasks.database.restore.names import PREFIX, is_own
from tasks.domain.errors import BlockedError, NotFoundError, UnprovenError, UpgradeError, UsageError

_NOT_IN_DATABASE_NAMES = set('/\\. "$*<>:|?\0')
_LONGEST_DATABASE, _LONGEST_NAMESPACE = 63, 255
_SERVERS_OWN = {"admin", "config", "local"}
_USERS = {"system.users", "$admin.system.users"}
_ROLES = {"system.roles", "$admin.system.roles"}


class RestoreRequest(BaseModel):
    """What is asked for.

    `database` is written; `source_database` is the archive's (empty: the same).  `include` and `exclude` are
    names or patterns (`*`, `?`, `[…]`) of the archive's collections; `rename` maps an archive's collection to the
    name it gets.  `exact` drops what is not in the archive, `merge` brings documents into collections that stay.
    `other_installation` lets an archive in that is not of this one.
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

    `refused` holds the first reason not to begin; `documents` and `bytes` are what would be loaded.
    """

    model_config = ConfigDict(frozen=True)

    archive: str
    database: str
    source_database: str
    actions: tuple[Action, ...] = ()
    sentences: tuple[str, ...] = ()
    refused: Refusal | None = None

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


def make_restore_plan(
    archived: Sequence[Archived],
    manifest: Manifest | None,
    present: Sequence[Present],
    request: RestoreRequest,
    safety: Safety | None = None,
    *,
    archive: str = "",
    found: Iterable[Refusal] = (),
    under_way: frozenset[str] = frozenset(),
) -> RestorePlan:
    """Decide what happens to every collection of the archive and of the database.

    `present` are the database's, without a restore's own.  `found` are reasons of the world not to begin (no
    primary, no room, another installation).  `under_way` are names that an interrupted restore of the same
    request has put in their place already: they are not somebody else's.
    """
    mine = [one for one in archived if one.namespace.db == request.source]
    now = {one.name: one for one in present}
    chosen, not_chosen = _select(mine, request)
    actions = [_action(one, now, request) for one in chosen]
    taken = {action.target.collection for action in actions}
    others = [one for name, one in sorted(now.items()) if name not in taken]
    then = {one.namespace.collection for one in mine}
    for one in others:
        extra = one.name not in then
        verb = Verb.DROP if request.exact and extra else Verb.LEAVE
        actions.append(
            Action(verb=verb, target=Namespace(request.database, one.name), kind=one.kind, kind_now=one.kind,
                   documents_now=one.documents)
        )  # fmt: skip
    world = list(found)
    refusals = [
        *_unfit_names(request),
        *_unfit_request(request),
        *_not_there(mine, archived, manifest, request, archive),
        *_unfit_selection(mine, chosen, request),
        *_unfit_targets(actions, now, request, under_way),
        *_unfit_merge(chosen, actions, request),
        *[one for one in world if not one.native_only],
        *_unfit_exact(actions, manifest, request, safety),
        *[one for one in world if one.native_only],
    ]
    extras = [one.name for one in others if one.name not in then]
    return RestorePlan(
        archive=archive,
        database=request.database,
        source_database=request.source,
        actions=tuple(actions),
        sentences=tuple(_sentences(archived, manifest, request, not_chosen, extras)),
        refused=next(iter(refusals), None),
    )


def _select(mine: Sequence[Archived], request: RestoreRequest) -> tuple[list[Archived], list[Archived]]:
    def wanted(name: str) -> bool:
        included = not request.include or _matches(name, request.include)
        return included and not _matches(name, request.exclude) and not is_own(name)

    chosen = [one for one in mine if wanted(one.namespace.collection)]
    return chosen, [one for one in mine if one not in chosen]


def _matches(name: str, patterns: Iterable[str]) -> bool:
    # A name first: it may itself hold the characters of a pattern.
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def _action(one: Archived, now: dict[str, Present], request: RestoreRequest) -> Action:
    source = one.namespace.collection
    target = request.rename.get(source, source)
    there = now.get(target)
    verb = Verb.REPLACE if there else Verb.CREATE
    if there and request.merge:
        verb = Verb.LEAVE if one.kind == "view" else Verb.MERGE
    return Action(
        verb=verb,
        target=Namespace(request.database, target),
        source=one.namespace,
        number=one.number,
        kind=one.kind,
        documents=one.documents,
        bytes=one.bytes,
        kind_now=there.kind if there else "",
        documents_now=there.documents if there else 0,
    )


def _unfit_names(request: RestoreRequest) -> Iterable[Refusal]:
    name = request.database
    if not name or _NOT_IN_DATABASE_NAMES.intersection(name) or len(name.encode()) > _LONGEST_DATABASE:
        yield Refusal(
            kind="usage",
            happened=f"{name!r} is no name of a database.",
            observed='A name has 1 to 63 bytes and none of / \\ . " $ * < > : | ? and blank.',
            next="Name the Apinizer database, usually apinizerdb.",
        )
    if name in _SERVERS_OWN:
        yield Refusal(
            kind="usage",
            happened=f"The server's own database {name} is not restored by this software.",
            next="Use mongorestore for users and roles; name the Apinizer database here, usually apinizerdb.",
        )
    for old, new in request.rename.items():
        if problem := _unfit_collection(request.database, new):
            yield Refusal(
                kind="usage",
                happened=f"{old} cannot be restored as {new!r}.",
                observed=problem,
                next="Choose another name.",
            )


def _unfit_collection(database: str, name: str) -> str:
    if not name or "$" in name or "\0" in name or name.startswith((".", "system.")):
        return "A collection's name is not empty, has no $ and starts with neither a dot nor system."
    if name.startswith(PREFIX):
        return "This is how a restore calls its own collections."
    if len(f"{database}.{name}".encode()) > _LONGEST_NAMESPACE:
        return f"Database and collection together have more than {_LONGEST_NAMESPACE} bytes."
    return ""


def _unfit_request(request: RestoreRequest) -> Iterable[Refusal]:
    if request.exact and (request.include or request.exclude or request.rename or request.merge):
        yield Refusal(
            kind="usage",
            happened="An exact restore takes the whole archive as it is.",
            observed="Collections were selected, renamed or to be merged as well.",
            next="Leave out either exact or the selection.",
        )


def _not_there(
    mine: Sequence[Archived],
    archived: Sequence[Archived],
    manifest: Manifest | None,
    request: RestoreRequest,
    archive: str,
) -> Iterable[Refusal]:
    empty_then = manifest is not None and manifest.database == request.source and manifest.holds_all_of(request.source)
    if not mine and not empty_then:
        held = sorted({one.namespace.db for one in archived if one.namespace.db})
        yield Refusal(
            kind="missing",
            happened=f"The archive {archive} does not hold the database {request.source}.",
            observed=f"It holds {', '.join(held) or 'no database'}.",
            next="Name another archive, or the name that the database has in this one.",
        )


def _unfit_selection(
    mine: Sequence[Archived], chosen: Sequence[Archived], request: RestoreRequest
) -> Iterable[Refusal]:
    names = [one.namespace.collection for one in mine]
    idle_of = {
        "include": [pattern for pattern in request.include if not any(_matches(name, [pattern]) for name in names)],
        "exclude": [pattern for pattern in request.exclude if not any(_matches(name, [pattern]) for name in names)],
        "rename": [name for name in request.rename if name not in names],
    }
    for option, idle in idle_of.items():
        if idle and mine:
            yield Refusal(
                kind="usage",
                happened=f"The archive has no collection that {option} {', '.join(idle)} means.",
                observed=f"Its collections: {', '.join(sorted(names)) or 'none'}.",
                next="Check the spelling.",
            )
    chosen_names = {one.namespace.collection for one in chosen}
    if unused := sorted(set(request.rename).intersection(names) - chosen_names):
        yield Refusal(
            kind="usage",
            happened=f"To be renamed but not restored: {', '.join(unused)}.",
            next="Include it, or leave out its new name.",
        )
    if mine and not chosen:
        yield Refusal(kind="usage", happened="No collection of the archive is left to be restored.",
                      next="Check what is included and excluded.")  # fmt: skip


def _unfit_targets(
    actions: Sequence[Action], now: dict[str, Present], request: RestoreRequest, under_way: frozenset[str]
) -> Iterable[Refusal]:
    written = [action for action in actions if action.source]
    counts = Counter(action.target.collection for action in written)
    if twice := sorted(name for name, count in counts.items() if count > 1):
        yield Refusal(
            kind="usage",
            happened=f"Two collections would be restored as one: {', '.join(twice)}.",
            next="Give one of them another name, or exclude it.",
        )
    for old, new in sorted(request.rename.items()):
        if new in now and new not in under_way and old != new and request.merge is None:
            yield Refusal(
                kind="blocked",
                happened=f"{new} exists, and {old} restored under that name would replace it.",
                observed=f"It holds {now[new].documents:,} documents.",
                next="Choose a name that is free, or merge into it.",
            )


def _unfit_merge(chosen: Sequence[Archived], actions: Sequence[Action], request: RestoreRequest) -> Iterable[Refusal]:
    if request.merge is None:
        return
    capped = {one.number for one in chosen if one.capped}
    for action in actions:
        if action.verb is not Verb.MERGE:
            continue
        name = action.target.collection
        if action.kind != action.kind_now:
            yield Refusal(kind="blocked", happened=f"{name} cannot be merged: it is a {action.kind_now} now.",
                          observed=f"In the archive it is a {action.kind}.", next="Exclude it.")  # fmt: skip
        elif action.kind == "timeseries" or action.number in capped:
            yield Refusal(
                kind="blocked",
                happened=f"{name} cannot be merged: documents of a time series or a capped collection have no "
                "place of their own.",
                next="Exclude it, or restore it under another name.",
            )


def _unfit_exact(
    actions: Sequence[Action], manifest: Manifest | None, request: RestoreRequest, safety: Safety | None
) -> Iterable[Refusal]:
    dropped = {a.target.collection: a.documents_now for a in actions if a.verb is Verb.DROP}
    if not dropped:
        return
    names = ", ".join(dropped)
    happened = f"An exact restore would drop what is not in the archive: {names}."
    if manifest is None or not manifest.holds_all_of(request.source):
        left = ", ".join(manifest.left_out) if manifest else ""
        yield Refusal(
            kind="blocked",
            happened=happened,
            observed=f"They may have been left out on purpose: {left}." if left else
            "The archive has no manifest that says that nothing was left out on purpose.",
            next="Restore without exact, and drop by hand what is not wanted.",
        )  # fmt: skip
    elif safety is None or safety.problem:
        yield Refusal(
            kind="blocked",
            happened=happened,
            observed=f"The backup {safety.name} cannot be relied on: {safety.problem}." if safety else
            "There is no backup of what is there now.",
            next="Take a backup of the database as it is now, and let it be proved.",
            needs_safety=True,
        )  # fmt: skip
    else:
        missing = [
            f"{name}: {count:,} documents now, {safety.holds.get(name, 'none')} in the backup"
            for name, count in dropped.items()
            if safety.holds.get(name) != count
        ]
        if missing:
            yield Refusal(
                kind="blocked",
                happened=happened,
                observed=f"The backup {safety.name} does not hold them as they are now.\n" + "\n".join(missing),
                next="Take a backup of the database as it is now, and let it be proved.",
                needs_safety=True,
            )


def _sentences(
    archived: Sequence[Archived],
    manifest: Manifest | None,
    request: RestoreRequest,
    not_chosen: Sequence[Archived],
    extras: Sequence[str],
) -> Iterable[str]:
    names = {one.namespace.collection for one in archived}
    if extras and not request.exact:
        yield f"Not in the archive, left as they are: {', '.join(extras)}."
    if not_chosen:
        kept = ", ".join(one.namespace.collection for one in not_chosen)
        yield f"In the archive, not restored: {kept}."
    if manifest:
        ours = [name for name in manifest.left_out if name.startswith(f"{request.source}.")]
        if ours:
            yield f"Left out of the backup on purpose, so not restored: {', '.join(ours)}."
    if others := sorted({one.namespace.db for one in archived} - {request.source, "", "admin"}):
        yield f"Other databases of the archive are not touched: {', '.join(others)}."
    if names & (_USERS | _ROLES):
        yield "Users and roles of the archive are not restored; mongorestore can."
    if request.merge and any(one.kind == "view" for one in archived):
        yield "Views that exist are left as they are: they hold no documents to merge."
