"""A bundle as a source of images; nothing comes out of it before all of it was verified."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Self

from tasks.domain.errors import NotFoundError, UnprovenError
from tasks.domain.reference import ImageReference
from tasks.images.bundle.absent import missing_base, require_base
from tasks.images.bundle.contents import Contents
from tasks.images.bundle.opened import Opened, Progress, Stop
from tasks.images.bundle.record import BundledImage, BundleFacts
from tasks.images.bundle.signature import check_signature
from tasks.images.manifest import platform_lacking
from tasks.images.media import DOCKER_CONFIG, DOCKER_MANIFEST, OCI_CONFIG
from tasks.images.model import DEFAULT_PLATFORM, Blob, Image, Need, Platform


def _never() -> bool:
    return False


def _silent(done: int, total: int) -> None:
    pass


class BundleSource:
    """A `Source` that is a file: a bundle, the OCI layout of another tool, or a `docker save`.

    `verify` reads the file whole, once; whatever else is asked does that first where it was not done.  With
    `allowed_signers` (ssh-keygen(1), ALLOWED SIGNERS) the signature in `signature`, by default FILE.sig, is checked too.
    """

    def __init__(
        self,
        path: Path,
        *,
        signature: Path | None = None,
        allowed_signers: Path | None = None,
        stop: Stop = _never,
    ) -> None:
        self.path = path
        self._signature = signature
        self._signers = allowed_signers
        self._stop = stop
        self._one_at_a_time = Lock()
        self._opened: Opened | None = None
        self._verified: tuple[Contents, BundleFacts] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; it is opened, and verified, anew when it is asked for again."""
        if self._opened is not None:
            self._opened.close()
        self._opened, self._verified = None, None

    @property
    def where(self) -> str:
        return f"bundle {self.path}"

    @property
    def images(self) -> tuple[Image, ...]:
        """All images in it, under the names that they were bundled with."""
        return self._known()[0].images

    def verify(self, progress: Progress = _silent) -> BundleFacts:
        """Prove every byte that can be; `progress` is told the bytes read and their total.

        Raise `UsageError` (no file, no archive of images), `DamagedArchiveError`, `UnprovenError` (its
        signature) or `StoppedError`.
        """
        return self._known(progress)[1]

    def find(self, references: Sequence[ImageReference], platform: Platform | None) -> tuple[Image, ...]:
        """By full name; else by repository and tag where just one has them: behind another registry names differ."""
        contents, _ = self._known()
        return tuple(_choose(contents.images, one, platform, self.where) for one in references)

    def require(self, needs: Mapping[str, Need]) -> None:
        """Raise `MissingBaseError` where a target (by its name for people) needs what the bundle leaves out."""
        contents, facts = self._known()
        require_base(facts.base, _left_out(contents), needs)

    def read(self, images: Sequence[Image], wanted: frozenset[str]) -> Iterator[Blob]:
        """In the order of the file, so that it is read forwards; `MissingBaseError` where `wanted` was left out."""
        contents, facts = self._known()
        if lacking := wanted & _left_out(contents):
            raise missing_base(facts.base, {"The target": len(lacking)})
        opened = self._opened
        assert opened is not None  # noqa: S101 -- _known opened it.
        opened.require_unchanged()
        body = opened.body.again()
        blobs: dict[str, Blob] = {}
        for image in images:
            if image.config not in contents.blobs:
                raise _unknown(image, self.where)
            for one in _asked_for(image, wanted):
                blobs[one.digest] = one
        for blob in sorted(blobs.values(), key=lambda blob: contents.blobs[blob.digest].at):
            member = contents.blobs[blob.digest]
            blob.size, blob.chunks = member.size, body.part(member.at, member.size)
            yield blob
        opened.require_unchanged()

    def _known(self, progress: Progress = _silent) -> tuple[Contents, BundleFacts]:
        with self._one_at_a_time:
            if self._verified is None:
                self._opened = opened = Opened.of(self.path)
                try:
                    with check_signature(self.path, opened.file, self._signature, self._signers) as signed_by:
                        contents, sha256 = opened.inspect(progress, self._stop)
                        facts = _facts(opened, contents, sha256, signed_by())
                except BaseException:
                    self.close()
                    raise
                self._verified = contents, facts
            return self._verified


def verify_bundle(
    path: Path,
    *,
    signature: Path | None = None,
    allowed_signers: Path | None = None,
    progress: Progress = _silent,
    stop: Stop = _never,
) -> BundleFacts:
    """`BundleSource.verify` for a file from which nothing is to be read afterwards."""
    with BundleSource(path, signature=signature, allowed_signers=allowed_signers, stop=stop) as source:
        return source.verify(progress)


def _asked_for(image: Image, wanted: frozenset[str]) -> Iterator[Blob]:
    """The config and the wanted layers of an image, still without their bytes."""
    manifest = image.manifest_descriptor
    of_oci = manifest is not None and manifest.media_type != DOCKER_MANIFEST
    yield Blob("config", "", image.config, 0, OCI_CONFIG if of_oci else DOCKER_CONFIG, iter(()))
    for layer in image.layers:
        if layer.diff_id in wanted and layer.blob is not None:
            yield Blob("layer", layer.diff_id, layer.blob.digest, 0, layer.blob.media_type, iter(()))


def _unknown(image: Image, where: str) -> UnprovenError:
    return UnprovenError(
        f"{image.name} is not in the {where} any more.",
        observed=f"No image in it has the config {image.config}.",
        next="The file was replaced: start again with the one that is there now.",
    )


def _left_out(contents: Contents) -> frozenset[str]:
    return frozenset(blob.diff_id for blob in contents.record.left_out) if contents.record else frozenset()


def _choose(images: Sequence[Image], wanted: ImageReference, platform: Platform | None, where: str) -> Image:
    same = [image for image in images if image.name == wanted.normal]
    named = same or [image for image in images if _alike(image.name, wanted)]
    if not named or len({image.name for image in named}) > 1:
        raise NotFoundError(
            f"{wanted} is not in the {where}.",
            observed="In it: " + ", ".join(sorted({image.name for image in images})) + ".",
            next="Load a bundle of that version, or ask for an image that is in this one.",
        )
    fitting = named if platform is None and len(named) == 1 else _for(named, platform or DEFAULT_PLATFORM)
    if not fitting:
        raise platform_lacking(str(wanted), platform or DEFAULT_PLATFORM, sorted(str(one.platform) for one in named))
    return fitting[0].named(wanted.normal)


def _for(images: Sequence[Image], platform: Platform) -> list[Image]:
    return [image for image in images if platform.matches(image.platform)]


def _alike(name: str, wanted: ImageReference) -> bool:
    there = ImageReference.parse(name)
    return (there.repository, there.tag) == (wanted.repository, wanted.tag) and wanted.tag is not None


def _facts(opened: Opened, contents: Contents, sha256: str, signed_by: str) -> BundleFacts:
    record = contents.record
    return BundleFacts(
        path=str(opened.path),
        size=opened.size,
        sha256=sha256,
        kind=contents.kind,
        compression=opened.body.compression,
        version=record.version if record else "",
        made_at=record.made_at if record else None,
        platforms=sorted({str(image.platform) for image in contents.images}),
        images=[
            BundledImage(name=one.name, origin=one.origin, config=one.config, manifest=one.manifest_digest)
            for one in contents.images
        ],
        base=record.base if record else None,
        left_out=record.left_out if record else [],
        signed_by=signed_by,
        unproven=list(contents.unproven),
    )
