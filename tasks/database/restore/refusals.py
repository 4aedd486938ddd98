"""Reasons not to begin a restore that follow from what is asked and what is there: pure."""

from collections import Counter
from collections.abc import Iterable, Sequence

from tasks.database.manifest import Manifest
from tasks.database.restore.names import PREFIX
from tasks.database.restore.request import Action, Archived, Present, Refusal, RestoreRequest, Safety, Verb
from tasks.database.restore.selection import matches

_NOT_IN_DATABASE_NAMES = set('/\\. "$*<>:|?\0')
_LONGEST_DATABASE, _LONGEST_NAMESPACE = 63, 255
_SERVERS_OWN = {"admin", "config", "local"}


def refusals(
    archived: Sequence[Archived],
    chosen: Sequence[Archived],
    actions: Sequence[Action],
    manifest: Manifest | None,
    present: dict[str, Present],
    request: RestoreRequest,
    safety: Safety | None,
    *,
    archive: str,
    world: Sequence[Refusal],
    under_way: frozenset[str],
) -> Iterable[Refusal]:
    """All reasons, the caller's mistakes first; what only this engine cannot do comes last."""
    mine = [one for one in archived if one.namespace.db == request.source]
    yield from _unfit_names(request)
    yield from _unfit_request(request)
    yield from _not_there(mine, archived, manifest, request, archive)
    yield from _unfit_selection(mine, chosen, request)
    yield from _unfit_targets(actions, present, request, under_way)
    yield from _unfit_merge(chosen, actions, request)
    yield from (one for one in world if not one.native_only)
    yield from _unfit_exact(actions, manifest, request, safety)
    yield from (one for one in world if one.native_only)


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
        "include": [pattern for pattern in request.include if not any(matches(name, [pattern]) for name in names)],
        "exclude": [pattern for pattern in request.exclude if not any(matches(name, [pattern]) for name in names)],
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
