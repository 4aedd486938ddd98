"""Takes configs and layers out of the stream of `docker save`, without staging it.

Three forms of the archive, which need not be told apart:
- Docker up to 24: `<v1 ID>/json`, `<v1 ID>/layer.tar` (a link where the layer stands elsewhere), `<config>.json`;
- Docker from 25 on, and any with containerd's image store: an OCI layout, `blobs/sha256/<digest>`;
- podman, whose service speaks Docker's language: `<diffID>.tar`, `<config>.json`.
`manifest.json`, which names the layers, comes last and is not needed: of the first form the layers are recognised by
their directories' names (see v1_id), of the others the files' names are digests.  A layer that nothing recognises is
written to a temporary file and hashed before it is decided on.
"""

import hashlib
import re
import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from tasks.domain.errors import DamagedArchiveError, TemporaryError, UnprovenError, UpgradeError
from tasks.images.media import DOCKER_CONFIG, DOCKER_LAYER
from tasks.images.model import Blob, Image
from tasks.images.saved.tape import ArchiveError, CutShortError, Entry, Tape
from tasks.images.saved.v1_id import V1Ids

LARGEST_CONFIG = 4 << 20
_CHUNK = 1 << 20
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_CONFIG = re.compile(r"([0-9a-f]{64})\.json")
_V1_JSON = re.compile(r"([0-9a-f]{64})/json")
_V1_LAYER = re.compile(r"([0-9a-f]{64})/layer\.tar")
_NAMED_LAYER = re.compile(r"([0-9a-f]{64})\.tar")


def read_saved(
    chunks: Iterable[bytes], images: Sequence[Image], wanted: frozenset[str], where: str, spool: str | None = None
) -> Generator[Blob, None, None]:
    """Each config of `images` once and each layer of `wanted` (diffIDs) once, in the archive's order.

    Reading ends with the last of them, so the rest of the archive is not asked for.  `spool` is the folder for a layer
    that is not recognised (None: the system's).  Raise `DamagedArchiveError` (no archive), `TemporaryError` (cut short,
    with the engine's reason where it gave one) or `UnprovenError` (something wanted was not in it).
    """
    reading = _Reading(Tape(chunks), images, wanted, where, spool)
    with _told(where):
        yield from reading.blobs()
    if reading.missing:
        raise UnprovenError(
            f"{where} did not send everything that was asked for.",
            observed=f"Missing: {', '.join(sorted(reading.missing))}.",
            next="Start again: an image may have been replaced or removed there while it was read.",
        )


class _Reading:
    def __init__(
        self, tape: Tape, images: Sequence[Image], wanted: frozenset[str], where: str, spool: str | None
    ) -> None:
        self._tape = tape
        self._where = where
        self._spool = spool
        self._configs = {image.config for image in images}
        self._layers = set(wanted)
        self._forms = {diff_id: diff_id for image in images for diff_id in image.diff_ids}
        self._types: dict[str, str] = {}
        for layer in (layer for image in images for layer in image.layers if layer.blob):
            assert layer.blob is not None  # noqa: S101 -- as the generator has it; mypy does not carry it over.
            self._forms[layer.blob.digest] = layer.diff_id
            self._types[layer.blob.digest] = layer.blob.media_type
        self._v1_ids = V1Ids(image.diff_ids for image in images)
        self._descriptions: dict[str, bytes] = {}

    @property
    def missing(self) -> set[str]:
        return self._configs | self._layers

    def blobs(self) -> Iterator[Blob]:
        while self.missing:
            entry = self._tape.advance()
            if entry is None:
                return
            if entry.regular:
                yield from self._of(entry)

    def _of(self, entry: Entry) -> Iterator[Blob]:
        if found := _BLOB.fullmatch(entry.name) or _CONFIG.fullmatch(entry.name) or _NAMED_LAYER.fullmatch(entry.name):
            digest = f"sha256:{found[1]}"
            if digest in self._configs:
                yield self._config(digest)
            elif digest in self._forms:
                yield from self._layer(self._forms[digest], digest, entry.size)
        elif found := _V1_JSON.fullmatch(entry.name):
            self._descriptions[found[1]] = self._tape.content(LARGEST_CONFIG)
        elif found := _V1_LAYER.fullmatch(entry.name):
            diff_id = self._v1_ids.find(found[1], self._descriptions.pop(found[1], b""))
            if diff_id is not None:
                yield from self._layer(diff_id, diff_id, entry.size)
            elif self._layers:
                yield from self._unrecognised(entry.size)

    def _config(self, digest: str) -> Blob:
        self._configs.discard(digest)
        content = self._tape.content(LARGEST_CONFIG)
        return Blob("config", "", digest, len(content), DOCKER_CONFIG, iter((content,)))

    def _layer(self, diff_id: str, digest: str, size: int) -> Iterator[Blob]:
        if diff_id in self._layers:
            self._layers.discard(diff_id)
            media_type = self._types.get(digest, DOCKER_LAYER)
            yield Blob("layer", diff_id, digest, size, media_type, self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        """The current layer's bytes: whoever takes them is to hear of a fault in the same words."""
        with _told(self._where):
            yield from self._tape.chunks()

    def _unrecognised(self, size: int) -> Iterator[Blob]:
        with tempfile.TemporaryFile(dir=self._spool) as file:
            hashed = hashlib.sha256()
            for chunk in self._tape.chunks():
                hashed.update(chunk)
                file.write(chunk)
            digest = f"sha256:{hashed.hexdigest()}"
            file.seek(0)
            if digest in self._layers:
                self._layers.discard(digest)
                yield Blob("layer", digest, digest, size, DOCKER_LAYER, _chunks_of(file))


def _chunks_of(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Faults of the archive in words for people."""
    try:
        yield
    except CutShortError as error:
        raise _cut(error, where) from None
    except ArchiveError as error:
        raise DamagedArchiveError(
            f"What {where} sent is no archive of images.", observed=f"{error}.", next="Try again; look at its log."
        ) from None


def _cut(error: CutShortError, where: str) -> UpgradeError:
    said = re.search(rb'"error":"((?:[^"\\]|\\.)*)"', error.tail)
    reason = said[1].decode("utf-8", "replace") if said else ""
    return TemporaryError(
        f"{where} broke off while it sent the images.",
        observed=f"It said: {reason}." if reason else f"{error}.",
        next="Try again: only what is missing is sent. If it happens again, look at the engine's log and its free space.",
    )
