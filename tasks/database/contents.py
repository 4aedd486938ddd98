"""What an archive holds, in the manifest's form, and where it differs from what a manifest says.  Pure."""

from tasks.database.archive.format import CollectionEntry, FormatError, Namespace
from tasks.database.archive.metadata import CollectionMetadata, decode
from tasks.database.archive.reader import NamespaceEnd, Prelude
from tasks.database.manifest import NamespaceRecord


def definitions(prelude: Prelude) -> list[CollectionMetadata]:
    """The definition of each announced collection; raises FormatError for metadata that is none."""
    return [_definition(entry) for entry in prelude.entries]


def _definition(entry: CollectionEntry) -> CollectionMetadata:
    # Users and roles of one database, and the oplog, have no metadata.
    if not entry.metadata:
        return CollectionMetadata(entry.namespace.collection)
    try:
        metadata = decode(entry.metadata)
    except FormatError as problem:
        raise FormatError(f"{entry.namespace}: {problem}") from problem
    if metadata.name not in {"", entry.namespace.collection}:
        raise FormatError(f"{entry.namespace}: the metadata is that of {metadata.name!r}")
    return metadata


def records(prelude: Prelude, ends: list[NamespaceEnd], definitions: list[CollectionMetadata]) -> list[NamespaceRecord]:
    """What the archive itself says, in the manifest's form."""
    by_namespace = {end.namespace: end for end in ends}
    return [
        _found(entry, next(by_namespace[n] for n in entry.data_namespaces if n in by_namespace), metadata)
        for entry, metadata in zip(prelude.entries, definitions, strict=True)
    ]


def _found(entry: CollectionEntry, end: NamespaceEnd, metadata: CollectionMetadata) -> NamespaceRecord:
    return NamespaceRecord(
        db=entry.namespace.db,
        collection=entry.namespace.collection,
        data=end.namespace.collection,
        type=entry.type,
        documents=end.documents,
        bytes=end.bytes,
        crc64=f"{end.crc:016x}",
        indexes=[str(index["name"]) for index in metadata.indexes],
    )


def record_differences(wanted: list[NamespaceRecord], found: list[NamespaceRecord]) -> list[str]:
    """A line for each namespace that is not in `found` as it is in `wanted`."""
    wanted_by = {Namespace(record.db, record.collection): record for record in wanted}
    found_by = {Namespace(record.db, record.collection): record for record in found}
    return [
        f"{namespace}: the manifest says {_told(wanted_by.get(namespace))}, "
        f"the archive holds {_told(found_by.get(namespace))}."
        for namespace in sorted(wanted_by.keys() | found_by.keys())
        if wanted_by.get(namespace) != found_by.get(namespace)
    ]


def _told(record: NamespaceRecord | None) -> str:
    if record is None:
        return "nothing"
    return (
        f"{record.documents} documents, {record.bytes} bytes, checksum {record.crc64}, "
        f"indexes {', '.join(record.indexes) or 'none'}"
    )
