"""What a restore would do, decided before it does anything: pure, from what the archive and the database hold."""

from collections.abc import Iterable, Sequence

from tasks.database.archive.format import Namespace
from tasks.database.manifest import Manifest
from tasks.database.restore.refusals import refusals
from tasks.database.restore.request import (
    Action,
    Archived,
    Present,
    Refusal,
    RestorePlan,
    RestoreRequest,
    Safety,
    Verb,
)
from tasks.database.restore.selection import matches, restorable

__all__ = [
    "Action", "Archived", "Present", "Refusal", "RestorePlan", "RestoreRequest", "Safety", "Verb", "make_restore_plan"
]  # fmt: skip

_USERS = {"system.users", "$admin.system.users"}
_ROLES = {"system.roles", "$admin.system.roles"}


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
    chosen, not_chosen = select(mine, request)
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
    reasons = list(refusals(
        archived, chosen, actions, manifest, now, request, safety, archive=archive, world=list(found), under_way=under_way
    ))  # fmt: skip
    extras = [one.name for one in others if one.name not in then]
    native_only = next((one for one in reasons if one.native_only), None)
    another = [f"{native_only.happened} {native_only.observed} {native_only.next}"] if native_only else []
    return RestorePlan(
        archive=archive,
        version=manifest.apinizer_version if manifest else "",
        database=request.database,
        source_database=request.source,
        actions=tuple(actions),
        sentences=(*_sentences(archived, manifest, request, not_chosen, extras), *another),
        refused=next(iter(reasons), None),
        native_only=native_only,
    )


def select(mine: Sequence[Archived], request: RestoreRequest) -> tuple[list[Archived], list[Archived]]:
    """What of the archive's database is to be restored, and what is not."""

    def wanted(name: str) -> bool:
        included = not request.include or matches(name, request.include)
        return included and not matches(name, request.exclude) and restorable(name)

    chosen = [one for one in mine if wanted(one.namespace.collection)]
    return chosen, [one for one in mine if one not in chosen]


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
