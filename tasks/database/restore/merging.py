"""Documents of a checked copy brought into a collection that stays."""

from tasks.database.restore.look import Survey
from tasks.database.restore.plan import Action, RestorePlan
from tasks.database.restore.teller import Teller
from tasks.database.restore.work import Work


def merge(work: Work, survey: Survey, plan: RestorePlan, action: Action, teller: Teller) -> None:
    """Merge the copy of `action` into its collection and drop the copy; nothing where the copy is gone."""
    raise NotImplementedError
