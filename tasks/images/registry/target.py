"""A registry as a target of images."""

from collections.abc import Callable, Sequence

from tasks.domain.errors import BlockedError, NotFoundError, UnprovenError, UpgradeError, UsageError
from tasks.domain.reference import ImageReference
from tasks.images.manifest import parse_manifest
from tasks.images.model import HeldBlob, Holdings, Image, Need, Platform, Proof
from tasks.images.registry.access import Access
from tasks.images.registry.address import Repository, repository_of
from tasks.images.registry.client import RegistryClient
from tasks.images.registry.inlet import RegistryInlet
from tasks.images.registry.lines import never
from tasks.images.registry.lookup import find_image
from tasks.images.registry.proving import holds_blob, missing_blobs, prove_image
from tasks.images.registry.transport import UntrustedError
from tasks.images.registry.upload import Uploader


class RegistryTarget:
    """Brings images to a registry; host and repository are what the images' names say.

    `known` are images that the same registry may hold, e.g. those that the installation runs now: their layers are
    recognised in the registry's form and mounted instead of sent.  A tag that names another image is replaced only
    with `overwrite`.
    """

    def __init__(
        self,
        access: Access | None = None,
        *,
        name: str = "registry",
        known: Sequence[ImageReference] = (),
        overwrite: bool = False,
        stop: Callable[[], bool] = never,
    ) -> None:
        self._client = RegistryClient(access or Access(), stop=stop)
        self._uploader = Uploader(self._client)
        self._name = name
        self._known = tuple(known)
        self._overwrite = overwrite
        # What this process uploaded, by diffID: a next try recognises it, whatever form it was sent in.
        self._learned: dict[str, HeldBlob] = {}

    @property
    def where(self) -> str:
        return self._name

    def look(self, images: Sequence[Image]) -> Holdings:
        """Which of the images are there whole, and which of their layers, in whatever form and repository."""
        blobs: dict[str, HeldBlob] = {}
        names: dict[str, str] = {}
        for image in images:
            there = self._there(ImageReference.parse(image.name), image.platform)
            if there is None:
                continue
            missing = set(missing_blobs(self._client, there))
            _note(blobs, there, missing)
            if not missing:
                names[image.name] = there.config
        lacking = [image for image in images if names.get(image.name) != image.config]
        if lacking:
            self._note_known(blobs, lacking)
            self._note_single(blobs, lacking)
        return Holdings(blobs=blobs, names=names)

    def refuse_other(self, images: Sequence[Image]) -> None:
        """Raise `BlockedError` where a tag names another image already and may not be replaced."""
        if self._overwrite:
            return
        for image in images:
            there = self._tagged(ImageReference.parse(image.name), image.platform)
            if there not in ("", image.config):
                raise BlockedError(
                    f"{image.name} is another image at {self._name} already.",
                    observed=f"There: {there}; at the source: {image.config}.",
                    next="If the one there is right, take the images from there; else allow it to be replaced: "
                    "--overwrite, or images.overwrite in the configuration.",
                )

    def inlet(self, images: Sequence[Image], need: Need, holdings: Holdings) -> RegistryInlet:
        """Open a delivery; raise `BlockedError` where it would replace another image, before anything is sent."""
        lacking = [image for image in images if image.name not in need.complete]
        for image in lacking:
            if ImageReference.parse(image.name).digest:
                raise UsageError(
                    f"{image.name} names a digest.", observed="An image is pushed by its tag.", next="Name it by a tag."
                )
        self.refuse_other(lacking)
        return RegistryInlet(
            self._client, self._uploader, images, need, holdings, where=self._name, learned=self._learned
        )

    def keep(self, images: Sequence[Image]) -> None:
        """Nothing: what a tag names is kept by a registry."""

    def prove(self, images: Sequence[Image]) -> tuple[Proof, ...]:
        """Tag, manifest, config and every blob, asked anew."""
        return tuple(prove_image(self._client, image, self._name) for image in images)

    def close(self) -> None:
        self._client.close()

    def _there(self, reference: ImageReference, platform: Platform) -> Image | None:
        try:
            return find_image(self._client, reference, platform, hints=False)
        except UntrustedError:
            raise
        except (NotFoundError, BlockedError, UnprovenError):
            return None  # Not there, or not in a form that anything could be taken from.

    def _tagged(self, reference: ImageReference, platform: Platform) -> str:
        """The config that a tag names, "" where there is none; what cannot be read is told in words."""
        try:
            return find_image(self._client, reference, platform, hints=False).config
        except NotFoundError:
            return ""
        except UnprovenError:
            return ""  # Damaged: to push it anew mends it.
        except UntrustedError:
            raise
        except BlockedError as error:
            return error.happened

    def _note_known(self, blobs: dict[str, HeldBlob], images: Sequence[Image]) -> None:
        hosts = {repository_of(ImageReference.parse(image.name)).registry for image in images}
        for reference in self._known:
            if repository_of(reference).registry not in hosts:
                continue
            try:
                there = find_image(self._client, reference, images[0].platform, hints=False)
                missing = set(missing_blobs(self._client, there))
            except UpgradeError:
                continue  # They only save a way; the images themselves tell what is wrong with the registry.
            _note(blobs, there, missing)

    def _note_single(self, blobs: dict[str, HeldBlob], images: Sequence[Image]) -> None:
        """Layers that no image here is known to have: what an earlier try left, in any repository of these images."""
        places = list(dict.fromkeys(repository_of(ImageReference.parse(image.name)) for image in images))
        seen = {blob.diff_id for blob in blobs.values()}
        for layer in dict.fromkeys(layer for image in images for layer in image.layers):
            forms = [HeldBlob(layer.blob.digest, layer.blob.size, layer.blob.media_type)] if layer.blob else []
            learned = self._learned.get(layer.diff_id)
            for form in [*forms, *([learned] if learned else [])]:
                if layer.diff_id not in seen and (at := self._first(places, form)):
                    seen.add(layer.diff_id)
                    blobs[form.digest] = HeldBlob(form.digest, form.size, form.media_type, layer.diff_id, str(at))

    def _first(self, places: Sequence[Repository], blob: HeldBlob) -> Repository | None:
        candidates = [Repository.parse(blob.repository)] if blob.repository else places
        return next((at for at in candidates if holds_blob(self._client, at, blob.digest)), None)


def _note(blobs: dict[str, HeldBlob], image: Image, missing: set[str]) -> None:
    at = str(repository_of(ImageReference.parse(image.name)))
    config = parse_manifest(image.manifest, image.name).config
    if config.digest not in missing:
        blobs.setdefault(config.digest, HeldBlob(config.digest, config.size, config.media_type, "", at))
    for layer in image.layers:
        blob = layer.blob
        if blob is not None and blob.digest not in missing:
            blobs.setdefault(blob.digest, HeldBlob(blob.digest, blob.size, blob.media_type, layer.diff_id, at))
