"""Documents of an archive merged into a collection by their `_id`, in batches that may be done again."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from bson import json_util
from pymongo.client_session import ClientSession
from pymongo.errors import OperationFailure

from tasks.database import writing
from tasks.database.archive.format import Namespace, split
from tasks.database.connection import Client
from tasks.database.element import Element, filter_of, id_of, key
from tasks.database.listing import batches
from tasks.database.merge_rule import MergeRule, Verdict, decide, structural_differences
from tasks.domain.errors import DriftError, UpgradeError

__all__ = ["MergeCounts", "MergeRule", "Refusal", "Verdict", "decide", "merge_collection", "preview_merge", "structural_differences"]  # fmt: skip

_BATCH_DOCUMENTS = 1000
_BATCH_BYTES = 16 * 1024 * 1024
_TOLD = 10
_DUPLICATE_KEY, _VALIDATION = 11000, 121


class Refusal(NamedTuple):
    """A document that the server would not take: its `_id` as extended JSON, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class MergeCounts:
    """What became of the archive's documents so far; `refusals` are the first ten of `refused`."""

    inserted: int = 0
    replaced: int = 0
    kept: int = 0
    same: int = 0
    undecided: int = 0
    refused: int = 0
    refusals: tuple[Refusal, ...] = field(default=())

    @property
    def documents(self) -> int:
        """All documents that were looked at."""
        return self.inserted + self.replaced + self.kept + self.same + self.undecided + self.refused

    def __add__(self, other: "MergeCounts") -> "MergeCounts":
        """Both together."""
        return MergeCounts(
            self.inserted + other.inserted,
            self.replaced + other.replaced,
            self.kept + other.kept,
            self.same + other.same,
            self.undecided + other.undecided,
            self.refused + other.refused,
            (*self.refusals, *other.refusals)[:_TOLD],
        )

    def __str__(self) -> str:
        parts = [f"{self.inserted:,} inserted", f"{self.replaced:,} replaced", f"{self.kept:,} kept as they are"]
        parts.append(f"{self.same:,} equal")
        if self.undecided:
            parts.append(f"{self.undecided:,} kept because the field does not tell which is newer")
        if self.refused:
            parts.append(f"{self.refused:,} refused by the server")
        return ", ".join(parts)

    def problem(self, namespace: Namespace) -> UpgradeError | None:
        """The error to end with, after everything else is done, when documents were refused; else None."""
        if not self.refused:
            return None
        lines = [f"{refusal.id}: {refusal.reason}" for refusal in self.refusals]
        if self.refused > len(lines):
            lines.append(f"and {self.refused - len(lines):,} more")
        return UpgradeError(
            f"{self.refused:,} of {self.documents:,} documents could not be merged into {namespace}.",
            observed="\n".join(lines),
            safe=f"The database's documents they collide with were left alone; of the others {replace(self, refused=0)}.",
            next="Remove or change the documents that hold the same key, then merge again: what is done is not done twice.",
        )


def merge_collection(
    client: Client,
    database: str,
    collection: str,
    documents: Iterable[bytes],
    rule: MergeRule,
    *,
    guard: Callable[[], None] = lambda: None,
    progress: Callable[[MergeCounts], None] = lambda _counts: None,
) -> MergeCounts:
    """Merge runs of whole documents into a collection, which is made where there is none.

    `guard` is asked before each batch (1,000 documents or 16 MiB) is written; what it raises ends the merge
    between two batches.  Doing it again is harmless: what was merged is then equal.  Documents that the server
    refuses (a unique index whose key another document holds, a validator) are counted and told, the others are
    merged: the caller raises `MergeCounts.problem` when it is through.

    Raises DriftError when documents vanish meanwhile, UnprovenError for a document that the server would change
    (`writing.verbatim`), and the driver's errors.
    """
    counts = MergeCounts()
    for chunk in _judged(client, database, collection, documents, rule):
        guard()
        refused = _write(client, Namespace(database, collection), chunk)
        counts += _counted(chunk, refused)
        progress(counts)
    return counts


def preview_merge(
    client: Client, database: str, collection: str, documents: Iterable[bytes], rule: MergeRule
) -> MergeCounts:
    """What `merge_collection` would do, without a write; what a unique index would refuse shows only then."""
    counts = MergeCounts()
    for chunk in _judged(client, database, collection, documents, rule):
        counts += _counted(chunk, {})
    return counts


@dataclass(frozen=True, slots=True, eq=False)
class _Item:
    id: Element
    document: bytes
    verdict: Verdict


def _judged(
    client: Client, database: str, collection: str, documents: Iterable[bytes], rule: MergeRule
) -> Iterator[list[_Item]]:
    with client.start_session() as session:
        for chunk in _chunks(documents):
            ids = [id_of(document) for document in chunk]
            incoming: dict[object, list[int]] = {}
            for place, found in enumerate(ids):
                incoming.setdefault(key(found), []).append(place)
            verdicts = [decide(None, document, rule) for document in chunk]
            # Judged as they come and not kept: a thousand of them may be 16 GiB.
            for existing in _present(client, session, database, collection, ids):
                for place in incoming.get(key(id_of(existing)), ()):
                    verdicts[place] = decide(existing, chunk[place], rule)
            yield [_Item(*one) for one in zip(ids, chunk, verdicts, strict=True)]


def _chunks(documents: Iterable[bytes]) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    size = 0
    for run in documents:
        for document in split(run):
            if chunk and (len(chunk) == _BATCH_DOCUMENTS or size + len(document) > _BATCH_BYTES):
                yield chunk
                chunk, size = [], 0
            chunk.append(document)
            size += len(document)
    if chunk:
        yield chunk


def _present(
    client: Client, session: ClientSession, database: str, collection: str, ids: list[Element]
) -> Iterator[bytes]:
    find: dict[str, Any] = {"find": collection, "filter": filter_of(ids), "batchSize": _BATCH_DOCUMENTS}
    with closing(batches(client, session, database, find)) as source:
        for batch in source:
            yield from split(batch.documents)


def _write(client: Client, target: Namespace, chunk: list[_Item]) -> dict[int, Refusal]:
    """What the server refused, by `id()` of the item."""
    fresh = [item for item in chunk if item.verdict is Verdict.INSERT]
    known = [item for item in chunk if item.verdict is Verdict.REPLACE]
    refused: dict[int, Refusal] = {}
    if fresh:
        refused |= _refusals(writing.insert(client, target, [item.document for item in fresh]), fresh)
    if known:
        written = writing.replace(client, target, [writing.Change(item.id, item.document) for item in known])
        not_taken = _refusals(written, known)
        _expect(written.matched, len(known) - len(not_taken), target)
        refused |= not_taken
    return refused


def _refusals(written: writing.Written, acting: list[_Item]) -> dict[int, Refusal]:
    """Raises OperationFailure where it is no refusal of single documents."""
    found = {}
    for error in written.errors:
        if error.get("code") not in {_DUPLICATE_KEY, _VALIDATION}:
            raise OperationFailure("", int(error.get("code", 0)), error)
        item = acting[int(error["index"])]
        found[id(item)] = Refusal(_told(item.id), _reason(error))
    return found


def _reason(error: dict[str, Any]) -> str:
    if error["code"] == _VALIDATION:
        return "the collection's validator refuses it"
    # The pattern only: the key's values may be what nobody should read in a log.
    pattern = error.get("keyPattern")
    if isinstance(pattern, dict) and pattern:
        return f"another document holds its key of the unique index on {', '.join(map(str, pattern))}"
    return "another document holds its key of a unique index"


def _told(found: Element) -> str:
    return json_util.dumps(found.decoded(), json_options=json_util.RELAXED_JSON_OPTIONS)


def _expect(matched: int, wanted: int, namespace: Namespace) -> None:
    if matched < wanted:
        raise DriftError(
            f"Documents of {namespace} vanished while they were merged.",
            observed=f"{wanted - matched} of {wanted} documents that were to be replaced are not there any more.",
            safe="What was merged so far stays; nothing else was touched.",
            next="Find out who removes documents, stop it, and merge again.",
        )


def _counted(chunk: list[_Item], refused: dict[int, Refusal]) -> MergeCounts:
    done = Counter(item.verdict for item in chunk if id(item) not in refused)
    return MergeCounts(
        done[Verdict.INSERT],
        done[Verdict.REPLACE],
        done[Verdict.KEEP],
        done[Verdict.SAME],
        done[Verdict.UNDECIDED],
        len(refused),
        tuple(refused.values()),
    )
