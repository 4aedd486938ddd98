"""Reads blobs of any size; a line that breaks in the middle is taken up where it was (RFC 9110, Range requests)."""

import re
from collections.abc import Generator

from tasks.domain.errors import TemporaryError, UnprovenError
from tasks.images.model import Descriptor
from tasks.images.registry.address import Repository
from tasks.images.registry.client import RegistryClient, noted
from tasks.images.registry.transport import SilentError, told

PIECE = 256 * 1024
# Tries in a row that bring nothing new, and tries in all for one blob.
TRIES_WITHOUT_PROGRESS = 4
# A line that stands still counts twice: whoever reads has waited long, and tries again too, telling so.
SILENCE = 2
TRIES_IN_ALL = 20

_PART = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


def blob_pieces(
    client: RegistryClient, at: Repository, blob: Descriptor, *, pull: tuple[str, ...] = ()
) -> Generator[bytes]:
    """The bytes of a blob, exactly as many as its descriptor says.  Their digest is the caller's to check.

    Raise `TemporaryError` where the line breaks again and again, `UnprovenError` where the registry has another
    number of bytes, `NotFoundError` where it does not have the blob.
    """
    done, fruitless = 0, 0
    for attempt in range(1, TRIES_IN_ALL + 1):
        before = done
        try:
            for piece in _part(client, at, blob, done, pull):
                done += len(piece)
                if done > blob.size:
                    raise _other_size(at, blob, f"more than {blob.size} bytes")
                yield piece
        except TemporaryError as error:
            counts = SILENCE if isinstance(error, SilentError) else 1
            fruitless = fruitless + counts if done == before else counts
            if fruitless >= TRIES_WITHOUT_PROGRESS or attempt == TRIES_IN_ALL:
                raise
            client.pause(fruitless)
            continue
        if done == blob.size:
            return
        raise _other_size(at, blob, f"{done} bytes")


def whole_blob(client: RegistryClient, at: Repository, blob: Descriptor, largest: int) -> bytes:
    """A small blob, a config; raise `UnprovenError` where its descriptor promises more than `largest` bytes."""
    if blob.size > largest:
        raise _other_size(at, blob, f"at most {largest} bytes to be taken")
    return b"".join(blob_pieces(client, at, blob))


def _part(
    client: RegistryClient, at: Repository, blob: Descriptor, start: int, pull: tuple[str, ...]
) -> Generator[bytes]:
    """The blob from `start` on."""
    if start == blob.size and start:
        return
    what = f"read {blob.digest} of {at.path}"
    url = client.url(at, f"blobs/{blob.digest}")
    headers = {"Range": f"bytes={start}-"} if start else {}
    with client.open("GET", at, url, what, scopes=pull, headers=headers) as response:
        if response.status_code not in (200, 206):
            client.require(noted(response, at.host, what), at, what, 200, 206)
        skip = _to_skip(start, response.status_code, response.headers.get("content-range", ""))
        pieces = response.iter_raw(PIECE)
        while True:
            client.heed()
            with told(at.host, what, secure=url.startswith("https:")):
                piece = next(pieces, b"")
            if not piece:
                return
            if skip >= len(piece):
                skip -= len(piece)
                continue
            yield piece[skip:] if skip else piece
            skip = 0


def _to_skip(start: int, status: int, told_range: str) -> int:
    """How many bytes of an answer are known already: all before `start` where the server ignored the Range."""
    if status == 200:
        return start
    told_part = _PART.fullmatch(told_range.strip())
    first = int(told_part[1]) if told_part else start
    if first > start:
        raise TemporaryError(
            "The registry left out a part of a blob.",
            observed=f"From byte {start} on asked, {told_range} got.",
            next="Try again.",
        )
    return start - first


def _other_size(at: Repository, blob: Descriptor, found: str) -> UnprovenError:
    return UnprovenError(
        f"A blob of {at} is not as long as its manifest says.",
        observed=f"{blob.digest}: {blob.size} bytes expected, {found} found",
        next="The registry's storage is damaged or a proxy changes what passes: push the image there anew.",
    )
