"""Going on with a restore that ended while it put collections in place."""

from tasks.database.fingerprint import read_content
from tasks.database.restore.definition import expires
from tasks.database.restore.look import Survey
from tasks.database.restore.names import copy_name
from tasks.database.restore.plan import Action, Verb
from tasks.database.restore.state import State
from tasks.database.restore.teller import Teller
from tasks.database.restore.work import Work, data_name


def go_on(work: Work, survey: Survey, state: State, teller: Teller) -> State:
    """The state to go on from: as it was left, or, where somebody changed what was in its place already, loading.

    Then what was in its place is loaded once more; copies that wait stay good.
    """
    if state.plan is None:
        return state.model_copy(update={"phase": "loading", "done": ()})
    placed = [action for action in state.plan.loads if _is_placed(work, survey, state, action)]
    for action in placed:
        teller.say("check", action.target.collection)
        if not is_as_checked(work, survey, state, action):
            work.notes.append(f"{action.target.collection} was changed after it was put in its place: loaded anew.")
            gone = {str(one.number) for one in placed}
            ready = {number: one for number, one in state.ready.items() if number not in gone}
            return state.model_copy(update={"phase": "loading", "plan": None, "done": (), "ready": ready})
    return state


def is_as_checked(work: Work, survey: Survey, state: State, action: Action) -> bool:
    """Whether the collection holds what its copy held when that was checked, or less where documents expire."""
    ready = state.ready[str(action.number)]
    target = action.target.collection
    found = work.patience(
        lambda: read_content(work.client, work.database, data_name(target, action.kind), stop=work.stop)
    )
    definition = ready.defined(survey.definitions[action.number])
    return found.value == ready.fingerprint or (expires(definition) and found.documents < ready.documents)


def _is_placed(work: Work, survey: Survey, state: State, action: Action) -> bool:
    """A merged collection is not among them: it is the database's own."""
    if action.verb is Verb.MERGE or not state.is_ready(action.number):
        return False
    return action.number in state.done or work.info(copy_name(survey.run, action.number)) is None
