"""A restore from its beginning to its end."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from bson.errors import BSONError
from pymongo.errors import PyMongoError

from tasks.database.archive.format import FormatError
from tasks.database.batch import ReplyError
from tasks.database.connection import Client, explain
from tasks.database.foreign_writes import ForeignWrites, watch_for_others
from tasks.database.holdings import Contents
from tasks.database.restore.dropping import require_held, what_it_holds
from tasks.database.restore.lock import Lock, hold, require_none_at_work
from tasks.database.restore.look import Survey, survey
from tasks.database.restore.merging import all_of
from tasks.database.restore.names import PREFIX, own_of, state_name
from tasks.database.restore.patience import PATIENCE, Patience, hosts_of
from tasks.database.restore.plan import RestorePlan, RestoreRequest, Verb
from tasks.database.restore.prepare import prepare
from tasks.database.restore.progress import RestoreEvidence, RestoreProgress
from tasks.database.restore.resume import carried_out, go_on
from tasks.database.restore.state import State, read_state
from tasks.database.restore.swap import swap
from tasks.database.restore.teller import Teller
from tasks.database.restore.work import Work
from tasks.domain.errors import NOTHING_CHANGED, BlockedError, UpgradeError

__all__ = ["RestoreEvidence", "RestoreProgress", "RestoreRequest", "restore"]

_NOT_REPLACED = (
    "No collection was replaced. What was loaded waits beside them, in collections called apinizer-restore.…: "
    "restoring again goes on from there."
)
_AFTER_HALF = (
    "This restore replaced no collection, but one that was given up had replaced some: start nothing on this database "
    "before this one is done. What was loaded waits in collections called apinizer-restore.…: restoring again goes on "
    "from there."
)
_HALF = (
    "Each collection is whole, either as it was or as it is in the archive, but one whose kind changes (a view, a "
    "time series) may be missing; every one that is not in its place yet "
    "waits checked in a collection called apinizer-restore.…: restoring the same archive again with the same "
    "options goes on from there. Start nothing on this database before that."
)
_ALL = "All collections are as the archive has them, but for what was written after that."


def restore(
    client: Client,
    archive: Path,
    request: RestoreRequest,
    *,
    guard: Callable[[], None] = lambda: None,
    safety: Path | None = None,
    progress: Callable[[RestoreProgress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    patience: float = PATIENCE,
    watch_others: bool = True,
) -> RestoreEvidence:
    """Put the database back as `archive` has it, or what `request` selects of it.

    The archive is proved; every collection is loaded under another name, compared with the archive by count and
    fingerprint, given its indexes and compared again; only when all are ready do they take the place of what is
    there.  Called again after whatever ended it, it goes on where it was.

    `guard` raises UpgradeError when the run may not go on; it is asked before every command that changes
    something, from several threads but by one at a time.  Only one restore works on a database at a time: another
    ends with BlockedError.  `safety` is the backup of what is there now, which an
    exact restore needs.  With `watch_others` a write of anybody else to the database ends it.  `stop` is asked at
    every run of 1 MiB and between collections.  `patience` is how many seconds the server may be away in one go.

    Raises the plan's refusal and what `prove` raises before anything is changed; UnprovenError when a copy is not
    what the archive holds; TemporaryError when the server stays away; StoppedError.
    """
    with _safe(client, NOTHING_CHANGED), ExitStack() as stack:
        require_none_at_work(client, request.database, stop=stop)
        found = survey(client, archive, request, safety, progress=_proving(archive, progress), stop=stop, now=now)
        if found.plan.refusal is not None:
            raise found.plan.refusal
        guard()
        lock = stack.enter_context(hold(client, request.database, archive.name, stop=stop))
        _require_as_found(client, request.database, found)
        others = stack.enter_context(watch_for_others(client, request.database, found.run)) if watch_others else None
        kept = stack.pop_all()
    with kept:
        work = Work(
            client, request.database, guard=_all(guard, lock, others), stop=stop, own=others.own if others else _nobody,
            patience=Patience(client, stop=stop, seconds=patience),
        )  # fmt: skip
        settle = others.settle if others else lambda: None
        try:
            plan = _restore(work, archive, request, found, safety, settle, Teller(found, progress))
        except UpgradeError as error:
            raise lock.lost_to() or error from None
        if others:
            with _safe(client, _ALL):
                others.settle()
            work.notes += others.evidence()
    if problem := all_of(work.problems):
        raise problem
    return _evidence(work, archive, found, plan)


def _restore(
    work: Work,
    archive: Path,
    request: RestoreRequest,
    found: Survey,
    safety: Path | None,
    settle: Callable[[], None],
    teller: Teller,
) -> RestorePlan:
    """Both halves, or what an earlier run left of them; gives the plan that was carried out."""
    left = found.state
    half = left is not None and left.phase == "swapping" and left.is_of(request)
    before = _AFTER_HALF if found.given_up or (left and left.after_half) else _NOT_REPLACED
    with _safe(work.client, _HALF if half else before):
        # What is to happen is decided by what is there now; of the earlier run only what it did counts.
        state = go_on(work, found, left, teller) if left and half else _begin(work, found, request, left)
        state = prepare(work, archive, found, state, teller)
        held = _held(work, found, state, safety)
        settle()
        plan = carried_out(found.plan, state)
        state = state.model_copy(update={"phase": "swapping", "plan": plan})
        work.keep(state)
    with _safe(work.client, _HALF):
        state = swap(work, found, state, held, teller)
        work.drop(state_name(found.run))
    work.notes += state.notes
    work.problems += state.told()
    return plan


def _held(work: Work, found: Survey, state: State, safety: Path | None) -> Contents | None:
    """What the backup of what is there now holds, where something is to be dropped, which is compared already here:
    now the restore can still end with nothing replaced."""
    dropped = found.plan.of(Verb.DROP)
    if not dropped and all(work.info(aside) is None for aside in state.extras):
        return None
    held = what_it_holds(safety, stop=work.stop)
    for action in dropped:
        work.stop_if_asked()
        require_held(work, action, held)
    return held


def _require_as_found(client: Client, database: str, found: Survey) -> None:
    """Raise BlockedError where another restore was at work between the look and the lock."""
    names = client[database].list_collection_names(filter={"name": {"$regex": f"^{re.escape(PREFIX)}"}})
    if sorted(own_of(names)) != sorted(found.own) or (
        found.state is not None and read_state(client, database, found.run) != found.state
    ):
        raise BlockedError(
            f"Another restore of {database} was at work while this one read its archive.",
            observed="What it left is not what was found at the beginning.",
            next="Restore again: what is to happen is then decided anew.",
        )


def _all(guard: Callable[[], None], lock: Lock, others: ForeignWrites | None) -> Callable[[], None]:
    def asked() -> None:
        guard()
        lock.check()
        if others is not None:
            others.check()

    return asked


def _nobody(*_collections: str, data: bool = False) -> None:
    """Nobody watches."""


def _begin(work: Work, found: Survey, request: RestoreRequest, left: State | None) -> State:
    """The state of a new run; copies that an earlier run of the same archive checked stay good."""
    state = State(
        sha256=found.proof.sha256,
        archive=found.plan.archive,
        request=request,
        ready=left.ready if left else {},
        after_half=bool(found.given_up) or (left is not None and left.after_half),
    )
    work.keep(state)
    return state


@contextmanager
def _safe(client: Client, safe: str) -> Iterator[None]:
    """Whatever goes wrong in it, foreseen or not, is told with what is safe then."""
    try:
        yield
    except PyMongoError as problem:
        raise explain(problem, hosts_of(client)).with_safe(safe) from None
    except UpgradeError as error:
        raise error.with_safe(safe) from None
    except Exception as problem:
        raise UpgradeError(
            "The restore failed in a way that was not foreseen.",
            observed=_named(problem),
            safe=safe,
            next="Restore again. If it fails again, keep this text and the log for whoever maintains this software.",
        ) from problem


def _named(problem: Exception) -> str:
    """What these say of themselves holds no secrets; of others only their kind is told."""
    known = isinstance(problem, OSError | ReplyError | FormatError | BSONError)
    return f"{type(problem).__name__}: {problem}." if known else f"{type(problem).__name__}."


def _proving(archive: Path, progress: Callable[[RestoreProgress], None]) -> Callable[[int, int], None]:
    return lambda done, total: progress(RestoreProgress("prove", archive.name, 0, 0, 0, done, total))


def _evidence(work: Work, archive: Path, found: Survey, plan: RestorePlan) -> RestoreEvidence:
    def names(verb: Verb) -> tuple[str, ...]:
        return tuple(action.target.collection for action in plan.of(verb))

    return RestoreEvidence(
        database=plan.database,
        archive=archive,
        sha256=found.proof.sha256,
        replaced=names(Verb.REPLACE),
        created=names(Verb.CREATE),
        dropped=names(Verb.DROP),
        merged=names(Verb.MERGE),
        left=names(Verb.LEAVE),
        documents=plan.documents,
        bytes=plan.bytes,
        notes=(*plan.sentences, *work.notes),
    )
