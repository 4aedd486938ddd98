"""What merging an archive into a database would do, told before it is done."""

from collections.abc import Iterator
from pathlib import Path

import bson

from tasks.database.archive.format import Namespace, split
from tasks.database.archive.inlet import Inlet
from tasks.database.archive.metadata import EXACT, CollectionMetadata
from tasks.database.archive.reader import ArchiveReader, Documents
from tasks.database.connection import Client
from tasks.database.listing import batches
from tasks.database.merge import preview_merge
from tasks.database.merge_rule import MergeRule, structural_differences
from tasks.database.restore.plan import Action


def would_merge(
    client: Client, archive: Path, action: Action, data: Namespace, rule: MergeRule, definition: CollectionMetadata
) -> Iterator[str]:
    """Sentences on one collection: how many documents would be inserted, replaced and kept, and what else differs.

    `data` is where the archive has the documents, which are read once more for it.
    """
    target = action.target
    counts = preview_merge(client, target.db, target.collection, _documents(archive, data), rule)
    yield f"{target.collection}, {rule}: {counts}."
    for line in structural_differences(definition, _present(client, target, definition)):
        yield f"{target.collection}: {line}"


def _documents(archive: Path, namespace: Namespace) -> Iterator[bytes]:
    with archive.open("rb") as file:
        reader = ArchiveReader(Inlet(file).pieces())
        reader.prelude()
        for block in reader.blocks():
            if isinstance(block, Documents) and block.namespace == namespace:
                yield block.data


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
