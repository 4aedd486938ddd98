"""Documents of a checked copy brought into a collection that stays."""

from collections.abc import Iterator
from contextlib import closing

from tasks.database.archive.format import Namespace
from tasks.database.listing import batches
from tasks.database.merge import merge_collection
from tasks.database.merge_rule import MergeRule
from tasks.database.restore.work import Work
from tasks.domain.errors import UnprovenError, UpgradeError


def merge(work: Work, copy: str, target: str, rule: MergeRule) -> tuple[str, UpgradeError | None]:
    """Merge the documents of `copy`, which stays, into `target`.

    Gives a sentence on what was done and, where the server refused documents, the error to end with when all else
    is done.  Raises UnprovenError where the copy is gone.
    """
    if work.info(copy) is None:
        raise UnprovenError(
            f"The checked copy of {target} is gone.",
            observed=f"There is no collection {copy} any more.",
            next="See who else writes to the database; then restore again.",
        )
    work.own(target, data=True)
    counts = work.patience(
        lambda: merge_collection(work.client, work.database, target, _runs(work, copy), rule, guard=work.guard)
    )
    return f"{target}: {counts}.", counts.problem(Namespace(work.database, target))


def all_of(problems: list[UpgradeError]) -> UpgradeError | None:
    """Several collections' problems as one error, None where there are none."""
    if len(problems) < 2:
        return problems[0] if problems else None
    return UpgradeError(
        f"Documents of {len(problems)} collections could not be merged.",
        observed="\n".join(f"{one.happened}\n{one.observed}" for one in problems),
        safe="\n".join(one.safe for one in problems),
        next=problems[0].next,
    )


def _runs(work: Work, collection: str) -> Iterator[bytes]:
    with work.client.start_session() as session, closing(
        batches(work.client, session, work.database, {"find": collection})
    ) as source:  # fmt: skip
        for batch in source:
            work.stop_if_asked()
            yield batch.documents
