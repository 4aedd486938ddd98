"""The second half of a restore: checked copies take the place of what is there, in seconds.

A plain collection takes its place by a rename that drops the old one in the same step.  What cannot be renamed
is copied into its place while its checked copy stays until that is whole: a time series, `system.js`, and, on a
server that loses a collection's options when it renames it, what has options that cannot be set later.  A view
is only a definition.  Every step first looks whether it is done, so a run that died is gone over again.
"""

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from pymongo.errors import OperationFailure

from tasks.database.archive.format import Namespace
from tasks.database.archive.metadata import CollectionMetadata
from tasks.database.fingerprint import Fingerprint
from tasks.database.holdings import Contents
from tasks.database.listing import batches
from tasks.database.restore.definition import expires, mendable, option_differences
from tasks.database.restore.dropping import drop_aside, drop_extra
from tasks.database.restore.load import Copy, insert
from tasks.database.restore.look import Survey, kind_of
from tasks.database.restore.merging import merge
from tasks.database.restore.names import aside_name, copy_name, extra_name, probe_name
from tasks.database.restore.plan import Action, Verb
from tasks.database.restore.state import Ready, State
from tasks.database.restore.teller import Teller
from tasks.database.restore.work import UNAUTHORIZED, Work, data_name, uuid_of
from tasks.domain.errors import UnprovenError

_SYSTEM_JS = "system.js"
_PROBE = {"capped": True, "size": 4096, "validator": {"probe": {"$exists": True}}}


def swap(work: Work, survey: Survey, state: State, held: Contents | None, teller: Teller) -> State:
    """Carry out the survey's plan, whose copies are ready: collections first, then views, then what is to go.

    `held` is what the backup of what is there now holds; without it nothing is dropped.
    """
    plan = survey.plan
    by_rename = _renames_keep_options(work, survey, state)
    work.own(*(action.target.collection for action in plan.actions if action.verb is not Verb.LEAVE))
    for action in plan.loads:
        if action.number not in state.done:
            work.stop_if_asked()
            state = _load_in(work, survey, action, state, by_rename=by_rename, teller=teller)
        if action.verb is Verb.MERGE:
            work.drop(copy_name(survey.run, action.number))
    for action in plan.actions:
        if action.kind == "view" and action.verb in {Verb.REPLACE, Verb.CREATE}:
            work.stop_if_asked()
            teller.say("rename", action.target.collection)
            _view(work, survey, action)
    return _drop(work, survey, state, held, teller)


def _load_in(work: Work, survey: Survey, action: Action, state: State, *, by_rename: bool, teller: Teller) -> State:
    """One collection from its copy, and the state that says so, with what is to be told of it."""
    note, problem = "", None
    merging = action.verb is Verb.MERGE
    teller.say("merge" if merging else "rename", action.target.collection)
    if not merging:
        note = _unlike_safety(work, survey, action)
        _place(work, survey, action, state, by_rename=by_rename, teller=teller)
    elif (rule := state.request.merge) is not None:  # Never None: the plan would not say merge.
        note, problem = merge(work, copy_name(survey.run, action.number), action.target.collection, rule)
    state = state.with_done(action.number, note, problem)
    work.keep(state)
    return state


def _unlike_safety(work: Work, survey: Survey, action: Action) -> str:
    """A sentence where what is about to be replaced is not what the backup of what was there holds of it."""
    name = action.target.collection
    if survey.safety is None or action.verb is not Verb.REPLACE or action.kind_now == "view":
        return ""
    collection, held = work.raw(data_name(name, action.kind_now)), survey.safety.holds.get(name)
    # Only where the server's own figure is another one is it worth to count.
    if work.patience(collection.estimated_document_count) == held:
        return ""
    found = work.patience(lambda: collection.count_documents({}))
    if found == held:
        return ""
    return (
        f"{name} held {found:,} documents when it was replaced, {held or 0:,} are in the backup {survey.safety.name}."
    )


def _drop(work: Work, survey: Survey, state: State, held: Contents | None, teller: Teller) -> State:
    """What an exact restore drops, and first what one that died had set aside for it."""
    for aside, name in state.extras.items():
        if work.info(aside) is not None and held is not None:
            drop_aside(work, Namespace(work.database, name), held, aside)
    for action in survey.plan.of(Verb.DROP):
        if held is None:
            break
        work.stop_if_asked()
        teller.say("drop", action.target.collection)
        aside = extra_name(survey.run, len(state.extras))
        state = state.model_copy(update={"extras": {**state.extras, aside: action.target.collection}})
        work.keep(state)
        drop_extra(work, action, held, aside)
    return state


def _place(work: Work, survey: Survey, action: Action, state: State, *, by_rename: bool, teller: Teller) -> None:
    target, copy = action.target.collection, copy_name(survey.run, action.number)
    definition = _definition(survey, action, state)
    ready = state.ready[str(action.number)]
    there = work.info(copy)
    if there is None:
        _see_that_it_is_there(work, action, ready)
        work.settle(target, definition)
        return
    _see_that_it_is_the_copy(work, action, ready, copy, uuid_of(there))
    if action.kind == "collection" and target != _SYSTEM_JS and (by_rename or mendable(definition.options)):
        now = work.info(target)
        # A server renames nothing over a view or a time series.
        if now is not None and kind_of(now) != "collection":
            work.drop(target)
        work.rename(copy, target)
        _see_that_it_is_there(work, action, ready, expiring=expires(definition))
    else:
        _make_in_place(work, survey, action, ready, definition, teller)
    work.settle(target, definition)


def _see_that_it_is_the_copy(work: Work, action: Action, ready: Ready, copy: str, uuid: str) -> None:
    """What stands under the copy's name is what was checked; nothing of the target was touched yet."""
    if ready.is_called(uuid):
        return
    found = work.content(data_name(copy, action.kind))
    if found.value != ready.fingerprint:
        raise UnprovenError(
            f"The copy of {action.target.collection} is not the one that was checked any more.",
            observed=f"{copy}: {ready.documents:,} documents were checked, {found.documents:,} are there.",
            next="See who else writes to the collections that a restore makes; then restore again.",
        )


def _see_that_it_is_there(work: Work, action: Action, ready: Ready, *, expiring: bool = False) -> None:
    """What stands in its place is the copy that was checked: the same collection, or one that holds the same.

    With `expiring` it may hold less, for the copy was looked at a moment ago.
    """
    target = action.target.collection
    if ready.is_called(work.uuid(target)):
        return
    found = work.content(data_name(target, action.kind))
    if found.value == ready.fingerprint or (expiring and 0 < found.documents < ready.documents):
        return
    raise UnprovenError(
        f"{target} is not what the archive holds, and its checked copy is gone.",
        observed=f"{ready.documents:,} documents were checked, {found.documents:,} are there.",
        next="See who else writes to the database; then restore again.",
    )


def _make_in_place(
    work: Work, survey: Survey, action: Action, ready: Ready, definition: CollectionMetadata, teller: Teller
) -> None:
    """Make the collection anew under its own name, from its copy, which goes last."""
    target, copy = action.target.collection, copy_name(survey.run, action.number)
    into = data_name(target, action.kind)
    work.own(target, into, data=True)

    def copied() -> Fingerprint:
        there = work.info(target)
        if target == _SYSTEM_JS and there is not None:
            work.guard()
            work.raw(target).delete_many({})
        else:
            work.create(target, definition.options, with_expiry=False)
        read = Fingerprint()
        find = {"find": data_name(copy, action.kind)}
        with work.client.start_session() as session, closing(
            batches(work.client, session, work.database, find)
        ) as source:  # fmt: skip
            for batch in source:
                work.stop_if_asked()
                read.add(batch.documents, batch.count)
                insert(work, Copy(into, definition), batch.documents)
                teller.say("rename", target)
        return read

    read = work.patience(copied)
    found = work.content(into)
    whole = read.value == ready.fingerprint or (expires(definition) and read.documents < ready.documents)
    if found.value != read.value or not whole:
        raise UnprovenError(
            f"{target} is not what its copy {copy} held when that was checked.",
            observed=f"{ready.documents:,} documents were checked, {read.documents:,} copied, {found.documents:,} are "
            "there.",
            next="See who else writes to the database; then restore again.",
        )
    work.build_indexes(target, definition)
    work.settle(target, definition)
    work.drop(copy)


def _view(work: Work, survey: Survey, action: Action) -> None:
    """Make or change a view; a collection in its place is dropped only when the view is there."""
    target, aside = action.target.collection, aside_name(survey.run, action.number)
    definition = survey.definitions[action.number]
    there = work.info(target)
    if there is not None and kind_of(there) == "collection":
        work.rename(target, aside)
        there = None
    if (
        there is None
        or kind_of(there) != "view"
        or (
            (odd := option_differences(definition.options, there["options"]))
            and not (set(odd) <= {"viewOn", "pipeline"} and _redefined(work, target, definition.options))
        )
    ):
        work.create(target, definition.options)
    work.settle(target, definition)
    if work.info(aside) is not None:
        work.drop(aside)


def _redefined(work: Work, view: str, options: Mapping[str, Any]) -> bool:
    """Give a view another definition in one step; False where the user may not, as with the role readWrite."""
    try:
        work.command({"collMod": view, "viewOn": options["viewOn"], "pipeline": options.get("pipeline", [])})
    except OperationFailure as problem:
        if problem.code != UNAUTHORIZED:
            raise
        return False
    return True


def _definition(survey: Survey, action: Action, state: State) -> CollectionMetadata:
    return state.ready[str(action.number)].defined(survey.definitions[action.number])


def _renames_keep_options(work: Work, survey: Survey, state: State) -> bool:
    """Whether a renamed collection keeps its options here, tried where it matters: not every server does so."""
    waiting = [action.number for action in survey.plan.loads if action.number not in state.done]
    if all(mendable(survey.definitions[number].options) for number in waiting):
        return True
    probe, renamed = probe_name(survey.run), f"{probe_name(survey.run)}.old"
    work.create(probe, _PROBE)
    work.rename(probe, renamed)
    kept: dict[str, Any] = (work.info(renamed) or {}).get("options", {})
    work.drop(renamed)
    return not option_differences(_PROBE, kept)
