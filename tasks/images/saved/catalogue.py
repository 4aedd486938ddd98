"""What an archive of `docker save` says of its images, where the engine keeps them in containerd's store: an OCI layout.

The Id of such an image is a manifest's digest, and no question gives its config; its archive does.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tasks.domain.errors import DamagedArchiveError
from tasks.domain.reference import ImageReference
from tasks.images.layout import IMAGE_NAME, INDEX_NAME, blob_path
from tasks.images.manifest import choose_platform, image_of, is_index, parse_index, parse_manifest
from tasks.images.model import Descriptor, Image, Platform
from tasks.images.saved.tape import ArchiveError, CutShortError, Tape

# Manifests, indexes and configs; anything larger is a layer.
_SMALL = 4 << 20


@dataclass(slots=True)
class Catalogue:
    """The small files of a layout, by path, and the entries of its index, by full name."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    names: Mapping[str, Descriptor] = field(default_factory=dict)

    def image(self, name: str, reference: ImageReference, platform: Platform | None) -> Image:
        """The image under `name`; raise `BlockedError` where the platform is lacking, `UnprovenError` where it is not whole."""
        found = self.names.get(name)
        if found is None:
            raise _damaged(f"It does not hold {name}.")
        content = self._file(found.digest)
        if is_index(content, found.media_type):
            content = self._file(choose_platform(content, platform, name).digest)
        config = self._file(parse_manifest(content, name).config.digest)
        return image_of(
            reference.normal, str(reference), content, config, manifest_digest=found.digest, platform=platform
        )

    def _file(self, digest: str) -> bytes:
        content = self.files.get(blob_path(digest))
        if content is None:
            raise DamagedArchiveError(
                "The Docker engine does not have the whole image.",
                observed=f"It lacks {digest}.",
                next="Pull the image there anew, and start again.",
            )
        return content


def read_catalogue(chunks: Iterable[bytes]) -> Catalogue:
    """Read an archive to its end, keeping only its small JSON files."""
    tape = Tape(chunks)
    files: dict[str, bytes] = {}
    try:
        while entry := tape.advance():
            if entry.regular and entry.size <= _SMALL:
                content = tape.content(_SMALL)
                if content[:1] in (b"{", b"["):
                    files[entry.name] = content
    except (ArchiveError, CutShortError) as error:
        raise _damaged(f"{error}.") from None
    index = files.get(INDEX_NAME)
    if index is None:
        raise _damaged(f"It has no {INDEX_NAME}.")
    names = {
        _full(entry.annotations[IMAGE_NAME]): entry.descriptor
        for entry in parse_index(index)
        if IMAGE_NAME in entry.annotations
    }
    return Catalogue(files, names)


def _full(name: str) -> str:
    reference = ImageReference.find(name)
    return reference.normal if reference else name


def _damaged(why: str) -> DamagedArchiveError:
    return DamagedArchiveError("The Docker engine's archive is not as it should be.", observed=why, next="Try again.")
