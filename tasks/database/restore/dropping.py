"""Collections that an exact restore drops: only what a proved backup holds as it is in the moment of the drop."""

from collections.abc import Callable
from pathlib import Path

from tasks.database.archive.format import Namespace
from tasks.database.holdings import Contents, read_contents
from tasks.database.restore.plan import Action
from tasks.database.restore.work import Work, data_name
from tasks.domain.errors import BlockedError

_NAMESPACE_EXISTS = 48


def what_it_holds(safety: Path | None, *, stop: Callable[[], bool] = lambda: False) -> Contents:
    """What the backup `safety` holds, the archive read whole.

    Raises BlockedError without one, DamagedArchiveError, StoppedError and OSError.
    """
    if safety is None:
        raise BlockedError(
            "An exact restore drops nothing that no backup holds.",
            observed="There is no backup of what is there now.",
            next="Take a backup of the database as it is now, and let it be proved.",
        )
    return read_contents(safety, stop=stop)


def require_held(work: Work, action: Action, held: Contents) -> None:
    """Raise BlockedError where the collection or view is not as the backup holds it."""
    _require_definition(work, action, held)
    if action.kind != "view":
        _require_content(work, action.target, data_name(action.target.collection, action.kind), held)


def drop_extra(work: Work, action: Action, held: Contents, aside: str) -> None:
    """Drop what `action` says, if `held` has it as it is now.  It goes to the name `aside` before it is compared.

    So nobody who knows its name writes to it between the comparison and the drop.  A view, a time series and
    `system.js` cannot be renamed: they are compared where they are.  Raises BlockedError where it differs; then it
    is back under its name.
    """
    name = action.target.collection
    if work.info(name) is None:
        return drop_aside(work, action.target, held, aside)
    if action.kind != "collection" or name == "system.js":
        require_held(work, action, held)
        return work.drop(name)
    _require_definition(work, action, held)
    work.rename(name, aside, over=False)
    return drop_aside(work, action.target, held, aside)


def drop_aside(work: Work, target: Namespace, held: Contents, aside: str) -> None:
    """Drop the collection `target` that was renamed to `aside`, if `held` has it so; nothing where it is gone."""
    if work.info(aside) is None:
        return
    try:
        _require_content(work, target, aside, held)
    except BlockedError as problem:
        raise _put_back(work, target.collection, aside, problem) from None
    work.drop(aside)


def _put_back(work: Work, name: str, aside: str, problem: BlockedError) -> BlockedError:
    if work.info(name) is None:
        work.rename(aside, name, over=False)
        return problem
    return BlockedError(
        problem.happened,
        observed=f"{problem.observed}\nA new {name} was made meanwhile; the former one is kept as {aside}.",
        next=problem.next,
    )


def _require_definition(work: Work, action: Action, held: Contents) -> None:
    definition = held.definitions.get(action.target)
    if definition is None:
        raise _not_held(action.target, "The backup does not hold it.")
    if odd := work.differences(action.target.collection, definition, work.info(action.target.collection)):
        raise _not_held(action.target, "\n".join(odd))


def _require_content(work: Work, target: Namespace, name: str, held: Contents) -> None:
    then = held.fingerprints.get(target)
    if then is None or target in held.replayed:
        raise _not_held(
            target, "It was written to while the backup was taken." if then else "The backup has none of it."
        )
    now = work.content(name)
    if now.value != then.value:
        raise _not_held(
            target, f"{now.documents:,} documents now, {then.documents:,} in the backup, and not the same ones."
        )


def _not_held(target: Namespace, observed: str) -> BlockedError:
    return BlockedError(
        f"An exact restore would drop {target.collection}, which the backup does not hold as it is now.",
        observed=observed,
        next="Find who writes to it and stop that; take a backup of the database as it is now; then restore again.",
    )
