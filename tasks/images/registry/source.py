"""A registry as a source of images."""

from collections.abc import Callable, Iterator, Sequence

from tasks.domain.reference import ImageReference
from tasks.images.manifest import parse_manifest
from tasks.images.model import Blob, Image, Platform
from tasks.images.registry.access import Access
from tasks.images.registry.address import repository_of
from tasks.images.registry.client import RegistryClient
from tasks.images.registry.download import blob_pieces
from tasks.images.registry.lines import never
from tasks.images.registry.lookup import find_image


class RegistrySource:
    """Reads images from registries with one login; which registry, each reference says (docker.io where it has none)."""

    def __init__(self, access: Access | None = None, *, where: str = "", stop: Callable[[], bool] = never) -> None:
        self._access = access or Access()
        self._client = RegistryClient(self._access, stop=stop)
        self._where = where

    @property
    def where(self) -> str:
        return self._where or "registry"

    def find(self, references: Sequence[ImageReference], platform: Platform | None = None) -> tuple[Image, ...]:
        """As `Source.find`; every manifest and config is held to its digest."""
        return tuple(find_image(self._client, reference, platform) for reference in references)

    def read(self, images: Sequence[Image], wanted: frozenset[str]) -> Iterator[Blob]:
        """As `Source.read`; a line that breaks in the middle of a layer is taken up where it was."""
        seen: set[str] = set()
        for image in images:
            if image.config not in seen:
                seen.add(image.config)
                described = parse_manifest(image.manifest, image.origin).config
                chunks = iter((image.config_content,))
                yield Blob("config", "", image.config, len(image.config_content), described.media_type, chunks)
        for image in images:
            at = repository_of(ImageReference.parse(image.origin))
            for layer in image.layers:
                if layer.diff_id in seen or layer.diff_id not in wanted or layer.blob is None:
                    continue
                seen.add(layer.diff_id)
                blob = layer.blob
                pieces = blob_pieces(self._client, at, blob)
                yield Blob("layer", layer.diff_id, blob.digest, blob.size, blob.media_type, pieces)
                pieces.close()

    def close(self) -> None:
        self._client.close()
