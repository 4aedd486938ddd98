"""Writes a bundle: what a source has of some images, in one file, without what the site holds already."""

import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Final

from tasks.domain.errors import BlockedError, StoppedError, UnprovenError, UpgradeError
from tasks.images.bundle.form import FOR_DOCKER, MARK_MEMBER, RECORD, Compression, bundle_name
from tasks.images.bundle.held import Base
from tasks.images.bundle.outlet import Outlet
from tasks.images.bundle.record import BaseRecord, BlobRecord, BundledImage, BundleFacts, BundleRecord
from tasks.images.bundle.slot import BUNDLE, Slot, explain_folder, require_folder
from tasks.images.layout import (
    INDEX_NAME,
    LAYOUT_NAME,
    OCI_LAYOUT,
    REF_NAME,
    Assembled,
    as_bytes,
    assemble,
    blob_path,
    index_of,
)
from tasks.images.media import PLAIN_LAYERS
from tasks.images.model import Blob, Descriptor, Image, Layer, Source
from tasks.images.saved.writer import familiar

Progress = Callable[[int, int], None]

# Programs come to 0.3 under zstd, Java archives to more; this asks for about what a release takes.
_ZSTD_RATIO: Final = 0.5


def compression_for(images: Sequence[Image]) -> Compression:
    """`none` where all layers are compressed already, as a registry keeps them: zstd would make them no smaller."""
    packed = [one.blob is not None and one.blob.media_type not in PLAIN_LAYERS for i in images for one in i.layers]
    return "none" if packed and all(packed) else "zstd"


def write_bundle(
    source: Source,
    images: Sequence[Image],
    path: Path,
    *,
    version: str,
    made_at: datetime,
    held: Base | None = None,
    compress: Compression | None = None,
    replace: bool = False,
    progress: Progress = lambda _done, _total: None,
    stop: Callable[[], bool] = lambda: False,
) -> BundleFacts:
    """Write `images` of `source` to `path`, a file or a folder in which the bundle gets its usual name.

    `held` are layers to leave out.  `progress` is told the bytes of layers read and their total, 0 where the source
    cannot tell.  The file appears whole or not at all.

    Raise `UsageError` (the name is taken, the folder cannot be written), `BlockedError` (no room; nothing to bundle),
    `StoppedError`, `UnprovenError` (bytes that are not what their digest says), and what the source raises.
    """
    chosen = compress or compression_for(images)
    work = _Work(source, _distinct(images), held, progress, stop)
    try:
        require_folder(path)
        if path.is_dir():
            path /= bundle_name(version, since=held.since if held else "", compress=chosen)
        BUNDLE.require_room(path.parent, round(work.expected * (1 if chosen == "none" else _ZSTD_RATIO)))
    except OSError as problem:
        raise explain_folder(problem, path.parent) from None
    slot = Slot.claim(path, replace=replace)
    outlet = Outlet(slot.file, chosen, slot.watch)
    try:
        record = work.write(outlet, version, made_at)
        sha256 = outlet.finish()
        slot.publish(replace=replace)
    except OSError as problem:
        raise BUNDLE.full(problem, path.parent) from None
    finally:
        outlet.close()
        slot.discard()
    return _facts(record, path, outlet.size, sha256, chosen)


@dataclass(slots=True)
class _Work:
    """One writing: what is to come, and by diffID or digest what came."""

    source: Source
    images: tuple[Image, ...]
    held: Base | None
    progress: Progress
    stop: Callable[[], bool]
    layers: dict[str, Layer] = field(init=False)
    absent: frozenset[str] = field(init=False)
    came: dict[str, Descriptor] = field(default_factory=dict)
    left_out: dict[str, Descriptor] = field(default_factory=dict)
    configs: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, BlobRecord] = field(default_factory=dict)
    done: int = 0
    total: int | None = field(init=False)
    expected: int = field(init=False)

    def __post_init__(self) -> None:
        self.layers = {layer.diff_id: layer for image in self.images for layer in image.layers}
        held = self.held
        self.absent = frozenset(diff_id for diff_id, layer in self.layers.items() if held and held.has(layer))
        for diff_id in self.absent:
            if form := self.layers[diff_id].blob:
                self.left_out[diff_id] = form
        # The bytes of layers to read, None where a size is not known; what is about to be written, as far as is known.
        sizes = [form.size if (form := self.layers[diff_id].blob) else None for diff_id in self._wanted()]
        self.total = None if None in sizes else sum(size or 0 for size in sizes)
        to_write = [self.layers[diff_id] for diff_id in self.layers if diff_id not in self.absent]
        self.expected = sum(layer.blob.size if layer.blob else layer.estimate for layer in to_write)

    def _wanted(self) -> frozenset[str]:
        # A layer that is left out and whose size the source cannot tell is read, and only counted.
        return frozenset(self.layers) - frozenset(self.left_out)

    def write(self, outlet: Outlet, version: str, made_at: datetime) -> BundleRecord:
        """All members but the seal."""
        outlet.write(MARK_MEMBER)
        outlet.member(LAYOUT_NAME, OCI_LAYOUT)
        wanted = self._wanted()
        with closing(_generator(self.source.read(self.images, wanted))) as blobs:
            for blob in blobs:
                self._take(blob, outlet)
        self._require_all(wanted)
        assembled = [(one, assemble(one, self.came, self.left_out, self.configs[one.config])) for one in self.images]
        for _, each in assembled:
            self._add(outlet, each.descriptor, each.manifest)
        outlet.member(INDEX_NAME, _index(assembled))
        if not self.absent:
            outlet.member(FOR_DOCKER, _for_docker(assembled))
        record = self._record(assembled, version, made_at)
        outlet.member(RECORD, record.as_json())
        return record

    def _take(self, blob: Blob, outlet: Outlet) -> None:
        if blob.digest in self.blobs or blob.diff_id in self.left_out:
            for _ in blob.chunks:
                self._check_stop()
        elif blob.kind == "config":
            if blob.size > 64 * 1024 * 1024:
                raise _wrong(self.source, blob, f"a config of {blob.size} bytes")
            content = b"".join(self._checked(blob))
            self.configs[blob.digest] = content
            self._add(outlet, blob.descriptor, content)
        elif blob.diff_id in self.absent:
            for _ in self._checked(blob):
                pass
            self.left_out[blob.diff_id] = blob.descriptor
        else:
            outlet.begin(blob_path(blob.digest), blob.size)
            for chunk in self._checked(blob):
                outlet.write(chunk)
            outlet.end(blob.size)
            self.came[blob.diff_id] = blob.descriptor
            self.blobs[blob.digest] = BlobRecord.of(blob.descriptor, blob.diff_id)

    def _checked(self, blob: Blob) -> Iterator[bytes]:
        """The blob's chunks, held to its size and digest."""
        size, digest = 0, hashlib.sha256()
        for chunk in blob.chunks:
            self._check_stop()
            size += len(chunk)
            if size > blob.size:
                break
            digest.update(chunk)
            if blob.kind == "layer":
                self.done += len(chunk)
                self.progress(self.done, self.total or 0)
            yield chunk
        found = f"sha256:{digest.hexdigest()}"
        if size != blob.size or found != blob.digest:
            raise _wrong(self.source, blob, f"{size} bytes, {found}" if size <= blob.size else "more bytes")

    def _add(self, outlet: Outlet, descriptor: Descriptor, content: bytes) -> None:
        if descriptor.digest not in self.blobs:
            outlet.member(blob_path(descriptor.digest), content)
            self.blobs[descriptor.digest] = BlobRecord.of(descriptor)

    def _check_stop(self) -> None:
        if self.stop():
            raise StoppedError(
                "The bundle was not finished: it was told to stop.",
                safe="Nothing was changed; the unfinished file was removed.",
                next="Run the same again.",
            )

    def _require_all(self, wanted: frozenset[str]) -> None:
        missing = wanted - frozenset(self.came) - frozenset(self.left_out)
        missing |= {image.config for image in self.images} - frozenset(self.configs)
        if missing:
            raise UnprovenError(
                f"{self.source.where} did not give everything that was asked for.",
                observed=f"Missing: {', '.join(sorted(missing))}.",
                next="Run the same again: an image may have been replaced or removed there meanwhile.",
            )

    def _record(self, assembled: Sequence[tuple[Image, Assembled]], version: str, made_at: datetime) -> BundleRecord:
        return BundleRecord(
            version=version,
            made_at=made_at,
            made_by=f"apinizer-upgrade {installed('apinizer-upgrade')}",
            source=self.source.where,
            platforms=sorted({str(image.platform) for image in self.images}),
            images=[
                BundledImage(name=one.name, origin=one.origin, config=one.config, manifest=each.descriptor.digest)
                for one, each in assembled
            ],
            blobs=list(self.blobs.values()),
            base=BaseRecord(version=self.held.version, images=list(self.held.images)) if self.held else None,
            left_out=[BlobRecord.of(form, diff_id) for diff_id, form in sorted(self.left_out.items())],
        )


def _index(assembled: Sequence[tuple[Image, Assembled]]) -> bytes:
    """The layout's index.  Images are named in full in both annotations: skopeo and podman choose by the second."""
    index = json.loads(index_of(assembled))
    for (image, _), entry in zip(assembled, index["manifests"], strict=True):
        entry["annotations"][REF_NAME] = image.name
    return as_bytes(index)


def _for_docker(assembled: Sequence[tuple[Image, Assembled]]) -> bytes:
    """The list that `docker load` reads (moby: image/tarexport); it unpacks compressed layers too."""
    listed = [
        {
            "Config": blob_path(image.config),
            "RepoTags": [familiar(image.name)],
            "Layers": [blob_path(layer["digest"]) for layer in json.loads(each.manifest)["layers"]],
        }
        for image, each in assembled
    ]
    return json.dumps(listed, separators=(",", ":")).encode()


def _facts(record: BundleRecord, path: Path, size: int, sha256: str, compression: Compression) -> BundleFacts:
    return BundleFacts(
        path=str(path),
        size=size,
        sha256=sha256,
        kind="bundle",
        compression=compression,
        version=record.version,
        made_at=record.made_at,
        platforms=record.platforms,
        images=record.images,
        base=record.base,
        left_out=record.left_out,
    )


def _distinct(images: Sequence[Image]) -> tuple[Image, ...]:
    """Each image once; raise `BlockedError` where there is none, or one name is to mean two images."""
    named: dict[str, Image] = {}
    for image in images:
        if (other := named.setdefault(image.name, image)).config != image.config:
            raise BlockedError(
                f"{image.name} would name two images in the bundle.",
                observed=f"{other.origin} ({other.config}) and {image.origin} ({image.config}).",
                next="Make a bundle for each platform, or give each image a name of its own.",
            )
    if not named:
        raise BlockedError(
            "There is nothing to bundle.",
            observed="No image was named.",
            next="Name a version whose images the source has.",
        )
    return tuple(named.values())


def _wrong(source: Source, blob: Blob, found: str) -> UpgradeError:
    return UnprovenError(
        f"What {source.where} sent is not what its digest says.",
        observed=f"expected {blob.size} bytes, {blob.digest}; found {found}",
        safe="Nothing was changed; the unfinished file was removed.",
        next="Run the same again; if it stays so, the source is damaged: pull or push the image there anew.",
    )


def _generator(blobs: Iterator[Blob]) -> Generator[Blob, None, None]:
    """Closing it closes what it is made of."""
    yield from blobs
