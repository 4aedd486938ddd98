"""Documents of a checked copy brought into a collection that stays."""

from collections.abc import Iterator
from contextlib import closing

from tasks.database.archive.format import Namespace
from tasks.database.listing import batches
from tasks.database.merge import merge_collection
from tasks.database.merge_rule import MergeRule
from tasks.database.restore.work import Work


def merge(work: Work, copy: str, target: str, rule: MergeRule) -> None:
    """Merge the documents of `copy` into `target` and drop the copy; nothing where the copy is gone.

    What the server refuses is told in `work.problems`; the rest is merged.
    """
    if work.info(copy) is None:
        return
    work.own(target, data=True)
    counts = work.patience(
        lambda: merge_collection(work.client, work.database, target, _runs(work, copy), rule, guard=work.guard)
    )
    work.notes.append(f"{target}: {counts}.")
    if problem := counts.problem(Namespace(work.database, target)):
        work.problems.append(problem)
    work.drop(copy)


def _runs(work: Work, collection: str) -> Iterator[bytes]:
    with work.client.start_session() as session, closing(
        batches(work.client, session, work.database, {"find": collection})
    ) as source:  # fmt: skip
        for batch in source:
            work.stop_if_asked()
            yield batch.documents
