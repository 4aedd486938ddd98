"""The second half of a restore: checked copies take the place of what is there, in seconds.

A plain collection takes its place by a rename that drops the old one in the same step.  What cannot be renamed
is copied into its place while its checked copy stays until that is whole: a time series, `system.js`, and, on a
server that loses a collection's options when it renames it, what has options that cannot be set later.  A view
is only a definition.  Every step first looks whether it is done, so a run that died is gone over again.
"""

from contextlib import closing
from typing import Any

from tasks.database.archive.metadata import CollectionMetadata
from tasks.database.fingerprint import Fingerprint, read_content
from tasks.database.listing import batches
from tasks.database.restore.definition import mendable, option_differences
from tasks.database.restore.load import Copy, insert
from tasks.database.restore.look import Survey, kind_of
from tasks.database.restore.merging import merge
from tasks.database.restore.names import aside_name, copy_name, probe_name
from tasks.database.restore.plan import Action, RestorePlan, Verb
from tasks.database.restore.resume import is_as_checked
from tasks.database.restore.state import State
from tasks.database.restore.teller import Teller
from tasks.database.restore.work import Work, data_name
from tasks.domain.errors import UnprovenError

_SYSTEM_JS = "system.js"
_PROBE = {"capped": True, "size": 4096, "validator": {"probe": {"$exists": True}}}


def swap(work: Work, survey: Survey, plan: RestorePlan, state: State, teller: Teller) -> State:
    """Carry out `plan`, whose copies are ready: collections first, then views, then what is to go."""
    by_rename = _renames_keep_options(work, survey, plan)
    work.own(*(action.target.collection for action in plan.actions if action.verb is not Verb.LEAVE))
    for action in plan.loads:
        if action.number in state.done:
            continue
        work.stop_if_asked()
        merging = action.verb is Verb.MERGE
        teller.say("merge" if merging else "rename", action.target.collection)
        if merging:
            # Nothing without a rule: the plan would not say merge.
            if (rule := state.request.merge) is not None:
                merge(work, copy_name(survey.run, action.number), action.target.collection, rule)
        else:
            _place(work, survey, action, state, by_rename=by_rename, teller=teller)
        state = state.with_done(action.number)
        work.keep(state)
    for action in plan.actions:
        if action.kind == "view" and action.verb in {Verb.REPLACE, Verb.CREATE}:
            work.stop_if_asked()
            teller.say("rename", action.target.collection)
            _view(work, survey, action)
    for action in plan.of(Verb.DROP):
        work.stop_if_asked()
        teller.say("drop", action.target.collection)
        work.drop(action.target.collection)
    return state


def _place(work: Work, survey: Survey, action: Action, state: State, *, by_rename: bool, teller: Teller) -> None:
    target, copy = action.target.collection, copy_name(survey.run, action.number)
    definition = _definition(survey, action, state)
    if work.info(copy) is None:
        _see_that_it_is_there(work, survey, action, state)
    elif action.kind == "collection" and target != _SYSTEM_JS and (by_rename or mendable(definition.options)):
        there = work.info(target)
        # A server renames nothing over a view or a time series.
        if there is not None and kind_of(there) != "collection":
            work.drop(target)
        if not work.rename(copy, target):
            _see_that_it_is_there(work, survey, action, state)
    else:
        _make_in_place(work, survey, action, definition, teller)
    work.settle(target, definition)


def _see_that_it_is_there(work: Work, survey: Survey, action: Action, state: State) -> None:
    """The rename was asked for by a run that died, or somebody dropped the copy: the content tells."""
    if not is_as_checked(work, survey, state, action):
        raise UnprovenError(
            f"{action.target.collection} is not what the archive holds, and its checked copy is gone.",
            observed=f"{state.ready[str(action.number)].documents:,} documents were checked.",
            next="See who else writes to the database; then restore again.",
        )


def _make_in_place(work: Work, survey: Survey, action: Action, definition: CollectionMetadata, teller: Teller) -> None:
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
                read.add(batch.documents, batch.count)
                insert(work, Copy(into, definition), batch.documents)
                teller.say("rename", target)
        return read

    read = work.patience(copied)
    found = work.patience(lambda: read_content(work.client, work.database, into))
    if found.value != read.value:
        raise UnprovenError(
            f"{target} is not what its copy {copy} holds.",
            observed=f"{read.documents:,} documents were copied, {found.documents:,} are there.",
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
    if there is None or kind_of(there) != "view":
        work.create(target, definition.options)
    elif odd := option_differences(definition.options, there["options"]):
        if set(odd) <= {"viewOn", "pipeline"}:
            options = definition.options
            work.command({"collMod": target, "viewOn": options["viewOn"], "pipeline": options.get("pipeline", [])})
        else:
            work.create(target, definition.options)
    work.settle(target, definition)
    if work.info(aside) is not None:
        work.drop(aside)


def _definition(survey: Survey, action: Action, state: State) -> CollectionMetadata:
    return state.ready[str(action.number)].defined(survey.definitions[action.number])


def _renames_keep_options(work: Work, survey: Survey, plan: RestorePlan) -> bool:
    """Whether a renamed collection keeps its options here, tried where it matters: not every server does so."""
    if all(mendable(survey.definitions[action.number].options) for action in plan.loads):
        return True
    probe, renamed = probe_name(survey.run), f"{probe_name(survey.run)}.old"
    work.create(probe, _PROBE)
    work.rename(probe, renamed)
    kept: dict[str, Any] = (work.info(renamed) or {}).get("options", {})
    work.drop(renamed)
    return not option_differences(_PROBE, kept)
