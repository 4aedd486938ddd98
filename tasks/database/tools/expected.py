"""What an archive should amount to once it is in the database, and whether it does."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bson

from tasks.database.archive.format import Namespace, split
from tasks.database.archive.inlet import Inlet
from tasks.database.archive.reader import ArchiveReader, Documents
from tasks.database.fingerprint import Fingerprint, read_content
from tasks.database.restore.definition import expires
from tasks.database.restore.look import Survey
from tasks.database.restore.plan import Action
from tasks.database.restore.work import Work, data_name
from tasks.database.tools.taking import OPLOG
from tasks.domain.errors import UnprovenError


@dataclass(slots=True)
class Expected:
    """The fingerprint of each of the archive's namespaces, and which databases its oplog changes."""

    contents: dict[Namespace, Fingerprint] = field(default_factory=dict)
    oplog_of: set[str] = field(default_factory=set)


def expected(archive: Path, wanted: set[Namespace]) -> Expected:
    """Read the archive, which is proved, once more for the documents of `wanted`."""
    found = Expected({namespace: Fingerprint() for namespace in wanted})
    with archive.open("rb") as file:
        reader = ArchiveReader(Inlet(file).pieces())
        reader.prelude()
        for block in reader.blocks():
            if not isinstance(block, Documents):
                continue
            if block.namespace in wanted:
                found.contents[block.namespace].add(block.data, block.count)
            elif block.namespace == OPLOG:
                for raw in split(block.data):
                    found.oplog_of.update(_databases(bson.decode(raw)))
    return found


def check(work: Work, survey: Survey, actions: Iterable[Action], hoped: Expected) -> list[str]:
    """Hold what is in the database against the archive; sentences on what may rightly differ.

    Raises UnprovenError naming every collection that is not as the archive has it.
    """
    wrong, notes = [], []
    for action in actions:
        definition = survey.definitions[action.number]
        name = action.target.collection
        odd = work.differences(name, definition, work.info(name))
        if action.kind != "view" and not odd:
            found = read_content(work.client, work.database, data_name(name, action.kind), stop=work.stop)
            awaited = hoped.contents[survey.data(action)]
            if (found.documents, found.total) != (awaited.documents, awaited.total):
                line = f"{found.documents:,} documents, {awaited.documents:,} in the archive, or others."
                fleeting = definition.options.get("capped") or expires(definition)
                if fleeting and found.documents <= awaited.documents:
                    notes.append(f"{name}: {line} It is capped, or the server removes documents by age.")
                else:
                    odd = [line]
        wrong += [f"{name}: {line}" for line in odd]
    if wrong:
        raise UnprovenError(
            f"The database {work.database} is not as the archive has it.",
            observed="\n".join(wrong),
            next="Restore again with --engine native; see that nobody else writes to the database.",
        )
    return notes


def _databases(entry: dict[str, Any]) -> set[str]:
    """The databases that an entry of the oplog changes; a no-op changes none."""
    if entry.get("op") == "n":
        return set()
    inner = entry.get("o", {}).get("applyOps")
    if isinstance(inner, list):
        return {name for one in inner if isinstance(one, dict) for name in _databases(one)}
    return {str(entry.get("ns", "")).partition(".")[0]}
