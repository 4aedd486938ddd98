"""Takes zstd off a layer: `docker load` knows it from Docker 23 on only (moby: pkg/archive, DetectCompression)."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from tasks.domain.errors import BlockedError, UnprovenError
from tasks.images.media import DOCKER_LAYER, DOCKER_LAYER_ZSTD, OCI_LAYER_ZSTD
from tasks.images.model import Blob

if TYPE_CHECKING:
    import zstandard

_CHUNK = 1 << 20
_SINCE = 23


def needs_plain(blob: Blob, version: str) -> bool:
    """Whether an engine of this version cannot take the layer as it comes."""
    major = version.partition(".")[0]
    return blob.media_type in (OCI_LAYER_ZSTD, DOCKER_LAYER_ZSTD) and major.isdigit() and int(major) < _SINCE


@contextmanager
def plain(blob: Blob, spool: str | None = None) -> Iterator[Blob]:
    """The layer uncompressed, by way of a temporary file in `spool`: an archive tells a file's size before its bytes.

    Raise `UnprovenError` where the layer is not what it says it is, `BlockedError` where it does not fit there.
    """
    import zstandard

    from tasks.images.saved.unzstd import Unzstd

    with tempfile.TemporaryFile(dir=spool) as file:
        unpacking = Unzstd()
        try:
            for chunk in blob.chunks:
                file.writelines(unpacking.feed(chunk))
            file.flush()
        except zstandard.ZstdError as error:
            raise _damaged(blob, error) from None
        except OSError as error:
            raise _no_room(blob, error, spool or tempfile.gettempdir()) from None
        size = file.tell()
        file.seek(0)
        yield Blob("layer", blob.diff_id, blob.diff_id, size, DOCKER_LAYER, _chunks_of(file))


def _damaged(blob: Blob, error: "zstandard.ZstdError") -> UnprovenError:
    return UnprovenError(
        f"The layer {blob.diff_id} cannot be unpacked.",
        observed=str(error),
        next="Start again; if it stays so, the source is damaged: pull or push the image there anew.",
    )


def _no_room(blob: Blob, error: OSError, folder: str) -> BlockedError:
    return BlockedError(
        f"The layer {blob.diff_id} cannot be unpacked in {folder}.",
        observed=error.strerror or type(error).__name__,
        next="Free some space there, or name another folder: TMPDIR.",
    )


def _chunks_of(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk
