"""The oplog of an archive, applied to the copies: they become one point in time."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from tasks.database.archive.format import Namespace
from tasks.database.holdings import documents_of
from tasks.database.oplog import OplogOutcome, apply_oplog
from tasks.database.restore.look import Survey
from tasks.database.restore.names import copy_name
from tasks.database.restore.plan import Action
from tasks.database.restore.state import Ready
from tasks.database.restore.teller import Teller
from tasks.database.restore.work import Work, data_name

OPLOG = Namespace("", "oplog")


def replay(
    work: Work, archive: Path, survey: Survey, actions: list[Action], checked: Mapping[int, Ready], teller: Teller
) -> dict[int, Ready]:
    """Apply the archive's oplog, where it has one, to the copies of `actions`, which have no indexes yet.

    Gives `checked` as it is then: what was held against the archive before now has the content of a later moment.
    """
    record = next(
        (one for one in survey.proof.namespaces if (one.db, one.collection) == (OPLOG.db, OPLOG.collection)), None
    )
    if record is None or not record.documents:
        return dict(checked)
    copies = {
        survey.data(action): Namespace(work.database, data_name(copy_name(survey.run, action.number), action.kind))
        for action in actions
    }
    teller.say("oplog", f"{record.documents:,} entries")
    outcome = work.patience(lambda: apply_oplog(work.client, _entries(work, archive), copies, guard=work.guard))
    work.notes.append(
        f"The archive's oplog was applied: {outcome.inserted:,} documents inserted, {outcome.updated:,} updated, "
        f"{outcome.deleted:,} deleted."
    )
    announced = {Namespace(one.db, one.data) for one in survey.proof.namespaces}
    made = sorted(n.collection for n in outcome.elsewhere if n.db == survey.plan.source_database and n not in announced)
    if made:
        work.notes.append(f"Made while the backup ran, so not in it and not restored: {', '.join(made)}.")
    return {action.number: _after(work, survey, action, checked[action.number], outcome) for action in actions}


def _after(work: Work, survey: Survey, action: Action, ready: Ready, outcome: OplogOutcome) -> Ready:
    announced = survey.definitions[action.number]
    amended = outcome.amended(survey.data(action), announced)
    copy = data_name(copy_name(survey.run, action.number), action.kind)
    found = work.content(copy)
    definition = "" if amended == announced else amended.encode()
    return ready.model_copy(update={"documents": found.documents, "fingerprint": found.value, "definition": definition})


def _entries(work: Work, archive: Path) -> Iterator[bytes]:
    for run in documents_of(archive, {OPLOG}, stop=work.stop):
        yield run.data
