"""Is an archive of the installation whose database is to be overwritten?  Judged by identities that nobody invents twice.

An ObjectId or a UUID made at one site does not occur at another, so an archive whose random `_id`s are in the
database is of that database, and one of whose none is there is not.  Ids that a release brings along are the
same everywhere: they are told from the site's own by the process that made them (the five random bytes in the
middle of an ObjectId), and each such process has one vote.  A collection's own UUID, where the server kept it,
settles it at once.
"""

import re
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum

from tasks.database.archive.format import split
from tasks.database.bson_layout import BINARY, OBJECT_ID, TEXT
from tasks.database.connection import Client
from tasks.database.element import Element, filter_of, id_of, key
from tasks.database.listing import batches, identities
from tasks.database.logs import LOG_COLLECTIONS

_LEAST = 5
_KEPT = 64
_PER_RUN = 8
_RANDOM_UUIDS = (1, 4, 6, 7)
_UUID_TEXT = re.compile(rb"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_OBJECT_ID_TEXT = re.compile(rb"[0-9a-f]{24}")


class Kinship(StrEnum):
    """What the archive is to the database."""

    SAME = "same"
    OTHER = "other"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict and a sentence on what it rests on."""

    kinship: Kinship
    reason: str


@dataclass(frozen=True, slots=True)
class Sample:
    """Ids of one family (made by one process, or the UUIDs of one collection): asked for, and found."""

    family: str
    asked: int
    found: int


def judge(samples: Iterable[Sample], *, same_uuids: int = 0, documents_present: bool = True) -> Judgement:
    """The verdict on ids of the archive that were looked up in the database.

    `same_uuids` counts collections that have the archive's UUID; `documents_present` says whether the
    database's collections of these names hold anything.
    """
    samples = [sample for sample in samples if sample.asked]
    if same_uuids:
        return Judgement(Kinship.SAME, f"{same_uuids} collections have the UUID that the archive says.")
    if not documents_present:
        return Judgement(Kinship.UNKNOWN, "The database holds no documents to compare with.")
    asked, found = sum(sample.asked for sample in samples), sum(sample.found for sample in samples)
    if asked < _LEAST:
        return Judgement(Kinship.UNKNOWN, f"The archive holds only {asked} ids that are unique to a site.")
    if not found:
        return Judgement(Kinship.OTHER, f"None of {asked} ids that were looked up is in the database.")
    related = sum(2 * sample.found >= sample.asked for sample in samples)
    told = f"{found} of {asked} ids are in the database, those of {related} of {len(samples)} origins."
    if 2 * related > len(samples):
        return Judgement(Kinship.SAME, told)
    if 5 * related <= len(samples):
        return Judgement(Kinship.OTHER, told)
    return Judgement(Kinship.UNKNOWN, told)


def family_of(found: Element, collection: str) -> str:
    """Who made an id, empty for one that says nothing (numbers, texts, hashes)."""
    kind, value = found
    if kind == OBJECT_ID:
        return value[4:9].hex()
    if kind == TEXT and _OBJECT_ID_TEXT.fullmatch(value[4:-1]):
        return value[12:22].decode()
    if kind == TEXT and _UUID_TEXT.fullmatch(value[4:-1]):
        return f"uuid {collection}" if uuid.UUID(value[4:-1].decode()).version in _RANDOM_UUIDS else ""
    # Old Java drivers wrote UUIDs as subtype 3 in another order of bytes: the version cannot be read from it.
    if kind == BINARY and len(value) == 21 and value[4] in {3, 4}:
        return f"uuid {collection}"
    return ""


@dataclass(slots=True)
class IdSampler:
    """Ids spread over a collection's documents, at most 64 for each; feed it while an archive is read anyway."""

    ids: dict[str, list[Element]] = field(default_factory=dict)
    _strides: dict[str, int] = field(default_factory=dict)
    _seen: Counter[str] = field(default_factory=Counter)

    def add(self, collection: str, run: bytes) -> None:
        """Look at one run of whole documents of `collection`; logs and ids that say nothing are passed over."""
        if collection in LOG_COLLECTIONS or collection.startswith("system."):
            return
        self._seen[collection] += 1
        stride = self._strides.get(collection, 1)
        if self._seen[collection] % stride and stride > 1:
            return
        documents = split(run)
        kept = self.ids.setdefault(collection, [])
        for document in documents[:: max(1, len(documents) // _PER_RUN)]:
            found = id_of(document)
            if family_of(found, collection):
                kept.append(found)
        if len(kept) > _KEPT:
            self.ids[collection] = kept[::2]
            self._strides[collection] = 2 * stride


def look_up(client: Client, database: str, ids: Mapping[str, Sequence[Element]], uuids: Mapping[str, str]) -> Judgement:
    """Look the archive's ids up in `database` and judge.

    `uuids` are the archive's collection UUIDs (hexadecimal, empty where unknown) by collection.  Raises the
    driver's errors and ReplyError.
    """
    samples: dict[str, list[int]] = {}
    documents_present = False
    with client.start_session() as session:
        present = identities(client, session, database)
        same = sum(bool(uuids.get(name)) and uuids[name] == found[0] for name, found in present.items())
        for collection in sorted(ids.keys() & present.keys()):
            asked = list(ids[collection])
            if not asked or client[database][collection].find_one({}, {"_id": 1}) is None:
                continue
            documents_present = True
            find = {"find": collection, "filter": filter_of(asked), "projection": {"_id": 1}}
            with closing(batches(client, session, database, find)) as source:
                found = {key(id_of(raw)) for batch in source for raw in split(batch.documents)}
            for one in asked:
                counts = samples.setdefault(family_of(one, collection), [0, 0])
                counts[0] += 1
                counts[1] += key(one) in found
    return judge(
        [Sample(family, *counts) for family, counts in samples.items()],
        same_uuids=same,
        documents_present=documents_present,
    )
