"""The first half of a restore: every collection as a checked copy beside what is there."""

from pathlib import Path

from pymongo.errors import OperationFailure

from tasks.database.archive.format import Namespace
from tasks.database.fingerprint import Fingerprint
from tasks.database.restore.definition import expires
from tasks.database.restore.load import Copy, load
from tasks.database.restore.look import Survey
from tasks.database.restore.names import aside_name, copy_name, is_extra, owner, probe_name, run_of
from tasks.database.restore.plan import Action
from tasks.database.restore.replay import replay
from tasks.database.restore.state import Ready, State
from tasks.database.restore.teller import Teller
from tasks.database.restore.work import UNAUTHORIZED, Work, data_name, uuid_of
from tasks.domain.errors import ForbiddenError, UnprovenError


def prepare(work: Work, archive: Path, survey: Survey, state: State, teller: Teller) -> State:
    """Make every copy that `state` calls neither ready nor done; afterwards it calls all so.

    Contents are compared before indexes are built: an index that removes what is past its time would do so at
    once.
    """
    if state.phase == "loading":
        _sweep(work, survey, state)
    missing = [
        action
        for action in survey.plan.loads
        if action.number not in state.done and not _kept(work, survey, state, action)
    ]
    _require_right_to_modify(work, survey, missing)
    copies = {survey.data(action): _made(work, survey, action) for action in missing}
    names = {survey.data(action): action.target.collection for action in missing}
    for action in survey.plan.loads:
        if action not in missing:
            teller.done, teller.documents = teller.done + 1, teller.documents + action.documents
            teller.bytes += action.bytes

    def told(namespace: Namespace, documents: int, size: int) -> None:
        teller.documents, teller.bytes = teller.documents + documents, teller.bytes + size
        teller.say("load", names[namespace])

    if copies:
        load(work, archive, survey.proof, copies, told)
    checked: dict[int, Ready] = {}
    for action in missing:
        work.stop_if_asked()
        teller.say("check", action.target.collection)
        copy = copies[survey.data(action)]
        if copy.resent and not copy.is_whole(work.content(copy.collection)):
            # Sent again where a document was archived twice: what it should amount to is known only without that.
            copy = _made(work, survey, action)
            load(work, archive, survey.proof, {survey.data(action): copy}, lambda *_: None)
        checked[action.number] = _check(work, copy, action)
    if missing:
        checked = replay(work, archive, survey, missing, checked, teller)
    for action in missing:
        work.stop_if_asked()
        teller.say("index", action.target.collection)
        name = copy_name(survey.run, action.number)
        definition = checked[action.number].defined(survey.definitions[action.number])
        work.build_indexes(name, definition)
        work.settle(name, definition)
        ready = checked[action.number].model_copy(update={"uuid": work.uuid(name)})
        state = state.with_ready(action.number, ready)
        work.keep(state)
        teller.done += 1
    return state


def _require_right_to_modify(work: Work, survey: Survey, actions: list[Action]) -> None:
    """What expires by an option of its collection gets that option last, by `collMod`, for which the role readWrite
    is not enough: raise ForbiddenError before hours of loading."""
    names = [a.target.collection for a in actions if "expireAfterSeconds" in survey.definitions[a.number].options]
    if not names:
        return
    probe = probe_name(survey.run)
    work.create(probe, {})
    try:
        work.command({"collMod": probe, "validationLevel": "strict"})
    except OperationFailure as problem:
        if problem.code != UNAUTHORIZED:
            raise
        raise ForbiddenError(
            "The database user may not change the options of collections (the action collMod).",
            observed=f"Needed for what expires by an option of its own: {', '.join(names)}.",
            next=f"Give the user the role dbAdmin on {work.database}, or exclude them.",
        ) from None
    finally:
        work.drop(probe)


def _sweep(work: Work, survey: Survey, state: State) -> None:
    """Drop what restores of other archives left, and copies of this one that nobody wants."""
    wanted = {copy_name(survey.run, action.number) for action in survey.plan.loads if state.is_ready(action.number)}
    for left in survey.given_up:
        _take_back(work, left)
    for name in survey.own:
        # The state goes last: without it the rest would be nobody's.
        if (owner(name) != survey.run or name not in wanted) and not name.endswith(".state") and not is_extra(name):
            work.drop(name)
    for name in survey.own:
        if owner(name) != survey.run and name.endswith(".state"):
            work.drop(name)


def _take_back(work: Work, left: State) -> None:
    """What a restore that is given up had set aside, but not replaced yet, gets its name again."""
    run = run_of(left.sha256)
    views = [a for a in left.plan.actions if a.kind == "view" and a.number >= 0] if left.plan else []
    aside = {**{aside_name(run, a.number): a.target.collection for a in views}, **left.extras}
    for old, name in aside.items():
        if work.info(old) is not None and work.info(name) is None:
            work.own(name)
            work.rename(old, name, over=False)
            work.notes.append(f"{name} had been set aside by the restore that was given up: it is back.")


def _kept(work: Work, survey: Survey, state: State, action: Action) -> bool:
    """Whether the copy of an earlier run can stay: it was checked then, and holds what it held."""
    ready = state.ready.get(str(action.number))
    if ready is None:
        return False
    name, definition = copy_name(survey.run, action.number), ready.defined(survey.definitions[action.number])
    info = work.info(name)
    if info is None or work.differences(name, definition, info):
        return False
    found = work.content(data_name(name, action.kind))
    if found.value == ready.fingerprint:
        return True
    return expires(definition) and ready.is_called(uuid_of(info)) and found.documents < ready.documents


def _made(work: Work, survey: Survey, action: Action) -> Copy:
    """An empty collection for the copy."""
    work.stop_if_asked()
    name, definition = copy_name(survey.run, action.number), survey.definitions[action.number]
    work.create(name, definition.options, with_expiry=False)
    return Copy(data_name(name, action.kind), definition)


def _check(work: Work, copy: Copy, action: Action) -> Ready:
    found = work.content(copy.collection)
    if copy.is_whole(found):
        return Ready(documents=found.documents, fingerprint=found.value)
    if copy.ordered and 0 < found.documents < copy.expected.documents:
        # A backup that ran while the collection was written may hold more than fits into it.
        work.notes.append(
            f"{action.target.collection} is capped: of {copy.expected.documents:,} documents of the archive the last "
            f"{found.documents:,} fit into it."
        )
        return Ready(documents=found.documents, fingerprint=found.value)
    raise UnprovenError(
        f"The copy of {action.target.collection} on the server is not what the archive holds.",
        observed=f"Archive: {_told(copy.expected)}. Server: {_told(found)}.",
        next="See in the server's log whether somebody else writes to the collections that a restore makes.",
    )


def _told(one: Fingerprint) -> str:
    return f"{one.documents:,} documents, {one.bytes:,} bytes, fingerprint {one.value}"
