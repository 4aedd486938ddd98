"""Reads blobs of a containerd's content store, all of them in one command."""

from collections.abc import Iterator, Sequence

from tasks.domain.errors import TemporaryError
from tasks.images.containerd.refusals import of_ctr
from tasks.images.containerd.script import GET, Ctr
from tasks.images.manifest import parse_manifest
from tasks.images.model import Blob, Image
from tasks.images.remote import Receiving


def blobs_of(ctr: Ctr, images: Sequence[Image], wanted: frozenset[str]) -> Iterator[Blob]:
    """Each config of `images` once, which are known already, then each layer whose diffID is wanted once.

    The layers come one after the other on one stream, told apart by their sizes, which the manifest names.
    """
    for image in {image.config: image for image in images}.values():
        content, kind = image.config_content, parse_manifest(image.manifest, image.name).config.media_type
        yield Blob("config", "", image.config, len(content), kind, iter([content]))
    layers = {
        layer.diff_id: layer.blob
        for image in images
        for layer in image.layers
        if layer.diff_id in wanted and layer.blob is not None
    }
    if not layers:
        return
    name = ctr.remote.host.name
    command = ctr.command(GET, *(blob.digest for blob in layers.values()))
    with ctr.remote.receiving(command, judge=lambda ran: of_ctr(name, ctr.address, ran), sudo=False) as receiving:
        stream = _Stream(receiving, name)
        for diff_id, blob in layers.items():
            chunks = stream.next(blob.size)
            yield Blob("layer", diff_id, blob.digest, blob.size, blob.media_type, chunks)
            for _ in chunks:
                pass
        receiving.finish()


class _Stream:
    """The output of a command, cut at known sizes."""

    def __init__(self, receiving: Receiving, name: str) -> None:
        self._receiving, self._name = receiving, name
        self._pieces = iter(receiving)
        self._rest = b""

    def next(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes; raise why, where the command ends before."""
        left = size
        while left:
            piece = self._rest or next(self._pieces, b"")
            if not piece:
                self._receiving.finish()
                raise TemporaryError(
                    f"containerd on {self._name} gave less than its manifests name.",
                    observed=f"{left} bytes of a layer are missing.",
                    next="Pull the image there anew, then try again.",
                )
            self._rest, piece = piece[left:], piece[:left]
            left -= len(piece)
            yield piece
