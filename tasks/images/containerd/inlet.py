"""Streams an OCI layout with only the missing blobs into `ctr images import`.

containerd's import (images/archive/importer.go, the same from 1.4 to 2.1) takes each file of the archive into its
content store by the digest that it computes, and reads index.json when the archive has ended; a manifest may name
blobs that were there before.  So blobs go out as they come, and the manifests, which need all of them, go last.  An
archive that ends before index.json is refused whole: nothing gets a name.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from tasks.images.layout import (
    INDEX_NAME,
    LAYOUT_NAME,
    OCI_LAYOUT,
    TAR_END,
    assemble,
    blob_path,
    index_of,
    padding,
    tar_file,
    tar_member,
)
from tasks.images.model import Blob, Descriptor, Image, Need
from tasks.images.remote import Sending

_GATHER = 256 * 1024


class LayoutInlet:
    """One delivery: `opened` starts the import, whose archive this writes."""

    def __init__(self, images: Sequence[Image], need: Need, opened: Callable[[], Sending]) -> None:
        self._images, self._need, self._open = images, need, opened
        self._came: dict[str, Descriptor] = {}
        self._configs: dict[str, bytes] = {}
        self._stack = ExitStack()
        self._sending: Sending | None = None
        self.sent = 0
        """Bytes of the archive so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def take(self, blob: Blob) -> None:
        """Pass a blob on.  Its file's name is its digest's, under which a transfer that broke goes on in containerd."""
        if blob.kind == "config":
            content = b"".join(blob.chunks)
            self._configs[blob.digest] = content
            self._write(tar_file(blob_path(blob.digest), content))
            return
        gathered = bytearray(tar_member(blob_path(blob.digest), blob.size))
        for chunk in blob.chunks:
            if len(gathered) + len(chunk) < _GATHER:
                gathered += chunk
                continue
            self._write(bytes(gathered))
            self._write(chunk)
            gathered.clear()
        self._write(bytes(gathered) + padding(blob.size))
        self._came[blob.diff_id] = blob.descriptor

    def finish(self) -> None:
        """Write the manifests and the index, and wait for the import's end."""
        assembled = [
            (image, assemble(image, self._came, self._need.reuse, self._configs.get(image.config, b"")))
            for image in self._images
        ]
        manifests = {one.descriptor.digest: one.manifest for _, one in assembled}
        files = [tar_file(blob_path(digest), content) for digest, content in manifests.items()]
        files += [tar_file(LAYOUT_NAME, OCI_LAYOUT), tar_file(INDEX_NAME, index_of(assembled)), TAR_END]
        sending = self._write(b"".join(files))
        sending.finish()

    def _write(self, content: bytes) -> Sending:
        if self._sending is None:
            self._sending = self._stack.enter_context(self._open())
        self._sending.write(content)
        self.sent += len(content)
        return self._sending
