"""What an archive holds of its databases: definitions, and a fingerprint of each collection's documents."""

from collections.abc import Callable, Container, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
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
    the collections whose documents are other ones then than the fingerprints say.  `sha256` is of the file as read.
    """

    definitions: dict[Namespace, CollectionMetadata]
    fingerprints: dict[Namespace, Fingerprint]
    replayed: set[Namespace] = field(default_factory=set)
    sha256: str = ""

    @property
    def databases(self) -> list[str]:
        """The databases other than the server's own."""
        return sorted({namespace.db for namespace in self.definitions})


@contextmanager
def _reading(archive: Path) -> Iterator[tuple[ArchiveReader, Inlet]]:
    """A reader of the archive, read ahead in a thread.  Raises DamagedArchiveError and OSError, also while it is used."""
    try:
        with archive.open("rb") as file:
            inlet = Inlet(file)
            with closing(ahead(inlet.pieces())) as pieces:
                yield ArchiveReader(pieces), inlet
    except FormatError as problem:
        raise DamagedArchiveError(
            f"The archive {archive.name} is damaged.",
            observed=f"{problem}.",
            safe="Nothing was changed; do not rely on this backup.",
            next="Take another backup, or fetch this file again from where it was copied.",
        ) from None


def documents_of(
    archive: Path, wanted: Container[Namespace], *, stop: Callable[[], bool] = lambda: False
) -> Iterator[Documents]:
    """The archive's runs of documents of some collections, in its order and in one pass.

    `stop` is asked at each run of 1 MiB.  Raises DamagedArchiveError, StoppedError and OSError.
    """
    with _reading(archive) as (reader, _):
        reader.prelude()
        for block in reader.blocks():
            _go_on(stop)
            if isinstance(block, Documents) and block.namespace in wanted:
                yield block


def _go_on(stop: Callable[[], bool]) -> None:
    if stop():
        raise StoppedError("Reading the archive was stopped.")


def read_contents(archive: Path, *, stop: Callable[[], bool] = lambda: False) -> Contents:
    """Read the archive whole.  Raises as `documents_of` does."""
    with _reading(archive) as (reader, inlet):
        entries = [entry for entry in reader.prelude().entries if entry.namespace.db not in _SERVERS_OWN]
        contents = Contents({entry.namespace: _definition(entry) for entry in entries}, {})
        announced = {data: entry.namespace for entry in entries for data in entry.data_namespaces}
        contents.fingerprints.update((entry.namespace, Fingerprint()) for entry in entries)
        unfolder = Unfolder()
        for block in reader.blocks():
            _go_on(stop)
            if isinstance(block, NamespaceEnd):
                continue
            if block.namespace == _OPLOG:
                _replay(contents, unfolder, block)
            elif name := announced.get(block.namespace):
                contents.fingerprints[name].add(block.data, block.count)
    return replace(contents, sha256=inlet.sha256)


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
