"""A delivery into a registry: each layer uploaded once, mounted where other repositories need it, the tags last."""

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self

from tasks.domain.errors import TemporaryError, UnprovenError, UpgradeError
from tasks.domain.reference import ImageReference
from tasks.images.handing_over import UNCHANGED
from tasks.images.layout import Assembled, assemble
from tasks.images.manifest import parse_manifest
from tasks.images.media import OCI_CONFIG, OCI_LAYER_GZIP, PLAIN_LAYERS
from tasks.images.model import Blob, Descriptor, HeldBlob, Holdings, Image, Need
from tasks.images.registry.address import Repository, label_of, repository_of
from tasks.images.registry.client import RegistryClient
from tasks.images.registry.download import blob_pieces
from tasks.images.registry.gzipping import gzipped
from tasks.images.registry.lookup import LARGEST_CONFIG
from tasks.images.registry.proving import holds_blob, prove_image
from tasks.images.registry.upload import Uploader


class RegistryInlet:
    """Takes blobs into the repositories of `images`.  Broken off, it leaves blobs that no tag names."""

    def __init__(
        self,
        client: RegistryClient,
        uploader: Uploader,
        images: Sequence[Image],
        need: Need,
        holdings: Holdings,
        *,
        where: str,
        learned: MutableMapping[str, HeldBlob],
    ) -> None:
        self._client = client
        self._uploader = uploader
        self._images = [image for image in images if image.name not in need.complete]
        self._need = need
        self._where = where
        self._held = holdings.blobs
        self._learned = learned
        self._came: dict[str, Descriptor] = {}
        self._configs: dict[str, bytes] = {}
        self._named: list[str] = []
        # digest -> the repositories that are known to have it, the first to be mounted from.
        self._places: dict[str, list[Repository]] = {
            digest: [Repository.parse(blob.repository)] for digest, blob in holdings.blobs.items() if blob.repository
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing: what came counts only when a tag names it."""

    def take(self, blob: Blob) -> None:
        """Upload a layer to the first repository that needs it, compressed on the way where it is not."""
        with self._telling():
            self._take(blob)

    def finish(self) -> None:
        """Complete each repository, then name the images, then read them back."""
        with self._telling():
            made = [(image, self._complete(image)) for image in self._images]
            for image, assembled in made:
                self._name(image, assembled)
                self._named.append(image.name)
            for image in self._images:
                prove_image(self._client, image, self._where)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Errors say what a delivery that did not end has left."""
        try:
            yield
        except UpgradeError as error:
            if not self._named:
                raise error.with_safe(UNCHANGED) from error.__cause__
            done = f"Pushed by then: {', '.join(self._named)}. {UNCHANGED}"
            raise error.with_safe(done) from error.__cause__

    def _take(self, blob: Blob) -> None:
        if blob.kind == "config":
            self._configs[blob.digest] = _small(blob.chunks)
            return
        wanting = [image for image in self._images if blob.diff_id in image.diff_ids]
        if not wanting:
            return
        at = _repository(wanting[0])
        if blob.media_type in PLAIN_LAYERS or blob.digest == blob.diff_id:
            described = self._uploader.send(at, gzipped(blob.chunks), OCI_LAYER_GZIP, None)
        else:
            described = self._uploader.send(at, blob.chunks, blob.media_type, blob.descriptor)
        self._came[blob.diff_id] = described
        self._places[described.digest] = [at]
        self._learned[blob.diff_id] = HeldBlob(
            described.digest, described.size, described.media_type, blob.diff_id, str(at)
        )

    def _complete(self, image: Image) -> Assembled:
        """All blobs of an image in its own repository; its manifest."""
        at = _repository(image)
        config = self._configs.get(image.config) or image.config_content
        assembled = assemble(image, self._came, self._need.reuse, config)
        told = parse_manifest(assembled.manifest, image.name)
        for layer in dict.fromkeys(told.layers):
            self._bring(at, layer)
        if not holds_blob(self._client, at, told.config.digest):
            self._uploader.send(at, iter((config,)), OCI_CONFIG, replace(told.config, size=len(config)))
        return assembled

    def _bring(self, at: Repository, layer: Descriptor) -> None:
        places = self._places.setdefault(layer.digest, [])
        if at in places:
            return
        there = holds_blob(self._client, at, layer.digest)
        sources = [place for place in places if place.registry == at.registry]
        if not there and not sources:
            raise _gone(self._where, layer.digest)
        if not there and not self._uploader.mount(at, layer.digest, sources[0]):
            pieces = blob_pieces(self._client, sources[0], layer)
            self._uploader.send(at, pieces, layer.media_type, layer)
        places.append(at)

    def _name(self, image: Image, assembled: Assembled) -> None:
        at, reference = _repository(image), ImageReference.parse(image.name)
        what = f"push {image.name}"
        answer = self._client.ask(
            "PUT",
            at,
            self._client.url(at, f"manifests/{label_of(reference)}"),
            what,
            scopes=(at.push,),
            headers={"Content-Type": assembled.descriptor.media_type},
            content=assembled.manifest,
        )
        if "MANIFEST_BLOB_UNKNOWN" in answer.codes or "BLOB_UNKNOWN" in answer.codes:
            raise _gone(self._where, str(answer))
        self._client.require(answer, at, what, 200, 201, 202)
        found = answer.headers.get("docker-content-digest", assembled.descriptor.digest)
        if found != assembled.descriptor.digest:
            raise UnprovenError(
                f"{self._where} took another manifest for {image.name} than was sent.",
                observed=f"sent {assembled.descriptor.digest}, it answered {found}",
                next="A proxy in front of the registry may change what passes.",
            )


def _repository(image: Image) -> Repository:
    return repository_of(ImageReference.parse(image.name))


def _small(chunks: Iterator[bytes]) -> bytes:
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > LARGEST_CONFIG:
            raise UnprovenError(
                "A config is too large.",
                observed=f"more than {LARGEST_CONFIG} bytes",
                next="Pull the image anew at the source.",
            )
    return bytes(content)


def _gone(where: str, what: str) -> TemporaryError:
    return TemporaryError(
        f"{where} no longer has what it had when it was looked at.",
        observed=what,
        next="Start again: what it lacks is computed anew. A garbage collection may run there.",
    )
