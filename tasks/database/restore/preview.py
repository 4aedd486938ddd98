"""What bringing collections of an archive into a database would do to them, told before it is done."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import bson

from tasks.database.archive.format import Namespace, split
from tasks.database.archive.metadata import EXACT, CollectionMetadata
from tasks.database.connection import Client
from tasks.database.element import elements
from tasks.database.holdings import documents_of
from tasks.database.listing import batches
from tasks.database.merge import MergeCounts, preview_merge
from tasks.database.merge_rule import MergeRule, structural_differences
from tasks.domain.errors import StoppedError

_STAYS, _COMES = "the database's stays", "it will be as in the archive"


class Merging(NamedTuple):
    """A collection to be merged into, where the archive has its documents, and its definition there."""

    target: Namespace
    data: Namespace
    definition: CollectionMetadata


def would_merge(
    client: Client,
    archive: Path,
    merging: list[Merging],
    rule: MergeRule,
    *,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[str]:
    """Sentences on each collection: how many documents would be inserted, replaced and kept, and what else differs.

    The archive is read once more for all of them; `stop` is asked at each run.  Raises what `documents_of` does.
    """
    counts = {one.data: MergeCounts() for one in merging}
    into = {one.data: one.target for one in merging}
    for run in documents_of(archive, into, stop=stop) if merging else ():
        target = into[run.namespace]
        counts[run.namespace] += preview_merge(client, target.db, target.collection, [run.data], rule)
    for one in merging:
        yield f"{one.target.collection}, {rule}: {counts[one.data]}."
        for line in structural_differences(one.definition, _present(client, one.target, one.definition)):
            yield f"{one.target.collection}: {line}"


def would_replace(
    client: Client, archive: Path, replacing: list[Merging], *, stop: Callable[[], bool] = lambda: False
) -> Iterator[str]:
    """Sentences on each collection that is replaced by itself: how its structure then differs from what it is now.

    What was written by another version has other options, indexes and fields; the others of the database do not change
    with it.  Fields are the documents' outermost.  The archive is read once more; `stop` is asked at each run.
    """
    then: dict[Namespace, set[str]] = {one.data: set() for one in replacing}
    for run in documents_of(archive, then, stop=stop) if replacing else ():
        for document in split(run.data):
            then[run.namespace].update(_fields(document))
    for one in replacing:
        name, now = one.target.collection, _fields_now(client, one.target, stop)
        for line in structural_differences(one.definition, _present(client, one.target, one.definition)):
            yield f"{name}: {line.replace(_STAYS, _COMES)}"
        if gained := sorted(then[one.data] - now):
            yield f"{name}: documents of the archive have fields that those of now have not: {', '.join(gained)}."
        if lost := sorted(now - then[one.data]):
            yield f"{name}: documents of now have fields that those of the archive have not: {', '.join(lost)}."


def _fields(document: bytes) -> Iterator[str]:
    return (name.decode(errors="replace") for name, _ in elements(document))


def _fields_now(client: Client, target: Namespace, stop: Callable[[], bool]) -> set[str]:
    found: set[str] = set()
    with client.start_session() as session:
        for batch in batches(client, session, target.db, {"find": target.collection}):
            for document in split(batch.documents):
                found.update(_fields(document))
            if stop():
                raise StoppedError("Comparing was stopped.", observed=f"{target.collection} was being read.")
    return found


def _present(client: Client, target: Namespace, archived: CollectionMetadata) -> CollectionMetadata:
    """The collection's definition as the database has it now."""

    def asked(command: dict[str, object]) -> list[dict[str, object]]:
        with client.start_session() as session:
            found = batches(client, session, target.db, command)
            return [bson.decode(raw, EXACT) for batch in found for raw in split(batch.documents)]

    infos = asked({"listCollections": 1, "filter": {"name": target.collection}, "cursor": {}})
    options = infos[0].get("options", {}) if infos else {}
    indexes = asked({"listIndexes": target.collection, "cursor": {}})
    return CollectionMetadata(
        archived.name, archived.type, "", dict(options) if isinstance(options, dict) else {}, tuple(indexes)
    )
