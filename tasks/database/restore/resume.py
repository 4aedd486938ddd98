"""Going on with a restore that ended while it put collections in place."""

from tasks.database.restore.look import Survey
from tasks.database.restore.names import copy_name
from tasks.database.restore.plan import Action, RestorePlan, Verb
from tasks.database.restore.state import State
from tasks.database.restore.teller import Teller
from tasks.database.restore.work import Work, data_name


def go_on(work: Work, survey: Survey, state: State, teller: Teller) -> State:
    """The state to go on from: `done` is what is in its place and holds what the archive does.

    What somebody changed since it was put in its place is neither done nor ready any more: it is loaded anew.  So is
    what expired meanwhile, for that cannot be told from a change.
    """
    verbs = {action.number: action.verb for action in state.plan.loads} if state.plan else {}
    done: list[int] = []
    for action in survey.plan.loads:
        number = action.number
        if verbs.get(number) is Verb.MERGE:
            # It is the database's own: what was merged is not compared.
            done += [number] if number in state.done else []
        elif _is_placed(work, survey, state, action):
            teller.say("check", action.target.collection)
            if _is_as_restored(work, survey, state, action):
                done.append(number)
            else:
                work.notes.append(f"{action.target.collection} was changed after it was put in its place: loaded anew.")
                state = state.without_ready(number)
    state = state.model_copy(update={"done": tuple(done)})
    work.keep(state)
    return state


def _is_as_restored(work: Work, survey: Survey, state: State, action: Action) -> bool:
    """Whether the collection holds what its copy held when that was checked, and is defined so."""
    ready, target = state.ready[str(action.number)], action.target.collection
    if work.content(data_name(target, action.kind)).value != ready.fingerprint:
        return False
    definition = ready.defined(survey.definitions[action.number])
    if action.number in state.done:
        return not work.differences(target, definition, work.info(target))
    # It was renamed, and perhaps no more than that.
    work.own(target)
    work.settle(target, definition)
    return True


def carried_out(plan: RestorePlan, state: State) -> RestorePlan:
    """`plan` as it is to be told: what an earlier run did is called what it was then."""
    if state.plan is None:
        return plan
    before = {action.number: action.verb for action in state.plan.loads if action.number in state.done}
    actions = [a.model_copy(update={"verb": before.get(a.number, a.verb)}) for a in plan.actions]
    there = {action.target for action in plan.actions}
    dropped = [action for action in state.plan.of(Verb.DROP) if action.target not in there]
    return plan.model_copy(update={"actions": (*actions, *dropped)})


def _is_placed(work: Work, survey: Survey, state: State, action: Action) -> bool:
    if not state.is_ready(action.number):
        return False
    return action.number in state.done or work.info(copy_name(survey.run, action.number)) is None
