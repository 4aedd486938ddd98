"""What an archive holds of its databases: definitions, and a fingerprint of each collection's documents."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tasks.database.archive.ahead import ahead
from tasks.database.archive.format import CollectionEntry, FormatError, Namespace, split
from tasks.database.archive.inlet import Inlet
from tasks.database.archive.metadata import CollectionMetadata, decode
from tasks.database.archive.reader import ArchiveReader, Documents, NamespaceEnd
from tasks.database.fingerprint import Fingerprint
from tasks.database.oplog import index_changes, with_indexes
from tasks.database.oplog_entry import Unfolder, Write
from tasks.domain.errors import DamagedArchiveError, StoppedError

_OPLOG = Namespace("", "oplog")
_SERVERS_OWN = frozenset({"", "admin", "config", "local"})


@dataclass(frozen=True, slots=True)
class Contents:
    """By the announced names.

    The archive's oplog changes indexes and documents afterwards: `definitions` are those of the end, `replayed`
    the collections whose documents are other ones then than the fingerprints say.
    """

    definitions: dict[Namespace, CollectionMetadata]
    fingerprints: dict[Namespace, Fingerprint]
    replayed: set[Namespace] = field(default_factory=set)

    @property
    def databases(self) -> list[str]:
        """The databases other than the server's own."""
        return sorted({namespace.db for namespace in self.definitions})


def read_contents(archive: Path, *, stop: Callable[[], bool] = lambda: False) -> Contents:
    """Read the archive whole.  Raises DamagedArchiveError, StoppedError and OSError."""
    try:
        return _read(archive, stop)
    except FormatError as problem:
        raise DamagedArchiveError(
            f"The archive {archive.name} is damaged.",
            observed=f"{problem}.",
            safe="Nothing was changed; do not rely on this backup.",
            next="Take another backup, or fetch this file again from where it was copied.",
        ) from None


def _read(archive: Path, stop: Callable[[], bool]) -> Contents:
    with archive.open("rb") as file, closing(ahead(Inlet(file).pieces())) as pieces:
        reader = ArchiveReader(pieces)
        entries = [entry for entry in reader.prelude().entries if entry.namespace.db not in _SERVERS_OWN]
        contents = Contents({entry.namespace: _definition(entry) for entry in entries}, {})
        announced = {data: entry.namespace for entry in entries for data in entry.data_namespaces}
        contents.fingerprints.update((entry.namespace, Fingerprint()) for entry in entries)
        unfolder = Unfolder()
        for block in reader.blocks():
            if stop():
                raise StoppedError("The rehearsal was stopped.", observed="The archive was being read.")
            if isinstance(block, NamespaceEnd):
                continue
            if block.namespace == _OPLOG:
                _replay(contents, unfolder, block)
            elif name := announced.get(block.namespace):
                contents.fingerprints[name].add(block.data, block.count)
    return contents


def _replay(contents: Contents, unfolder: Unfolder, block: Documents) -> None:
    """Take in what the oplog changes: which collections' documents, and their indexes."""
    for entry in split(block.data):
        for one in unfolder.feed(entry):
            if isinstance(one, Write):
                contents.replayed.add(one.namespace)
            elif one.namespace in contents.definitions and (changes := index_changes(one)):
                contents.definitions[one.namespace] = with_indexes(contents.definitions[one.namespace], changes)


def _definition(entry: CollectionEntry) -> CollectionMetadata:
    return decode(entry.metadata) if entry.metadata else CollectionMetadata(entry.namespace.collection, entry.type)


def documents_of(archive: Path, wanted: set[Namespace]) -> Iterator[Documents]:
    """The archive's runs of documents of some collections, in its order."""
    with archive.open("rb") as file, closing(ahead(Inlet(file).pieces())) as pieces:
        reader = ArchiveReader(pieces)
        reader.prelude()
        for block in reader.blocks():
            if isinstance(block, Documents) and block.namespace in wanted:
                yield block
