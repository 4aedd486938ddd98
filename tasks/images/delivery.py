"""Reads a source once and feeds every receiver at once, holding each blob to its digest while it passes."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from tasks.domain.errors import StoppedError, TemporaryError, UnprovenError, UpgradeError
from tasks.images.feeding import Feed, Outcome, Receiver
from tasks.images.handing_over import PATIENCE, UNCHANGED
from tasks.images.media import PLAIN_LAYERS
from tasks.images.missing import nothing_to_do
from tasks.images.model import Blob, Image, Source

__all__ = ["Outcome", "Receiver", "deliver"]

# Pieces in which bytes are handed over: large enough that handing over costs nothing beside hashing.
SMALLEST, LARGEST = 256 * 1024, 1024 * 1024


def deliver(
    source: Source,
    images: Sequence[Image],
    receivers: Sequence[Receiver],
    *,
    progress: Callable[[str, int, int], None] = lambda _name, _done, _in_all: None,
    stop: Callable[[], bool] = lambda: False,
    patience: float = PATIENCE,
) -> dict[str, Outcome]:
    """Bring every receiver what it needs, and return by its name how that ended.

    Each receiver runs in a thread of its own; one that fails is dropped and the others go on, a slow one slows them.
    A source that fails, fails all that are not through.  A blob that is not what its digest says fails all that were
    to get it.  Nothing of a receiver that failed counts there.  `progress` is told (receiver, bytes done, bytes in
    all or 0) from the receivers' threads; `stop` is asked several times a second, and ends those that are not through
    with `StoppedError`.
    """
    feeds = [
        Feed(receiver, progress, stop, patience)
        for receiver in receivers
        if not nothing_to_do(receiver.need, receiver.images)
    ]
    outcomes = {receiver.name: Outcome(0, None) for receiver in receivers}
    delivery = _Delivery(source, feeds, stop)
    try:
        for feed in feeds:
            feed.start()
        delivery.run([image for image in images if any(feed.lacks(image) for feed in feeds)])
    except UpgradeError as error:
        _break_off(feeds, error)
    except OSError as error:
        _break_off(feeds, _broke(source, error))
    except BaseException:
        _break_off(feeds, _stopped(source))
        raise
    finally:
        for feed in feeds:
            outcomes[feed.receiver.name] = feed.outcome()
    return outcomes


class _Delivery:
    """The side that reads the source."""

    def __init__(self, source: Source, feeds: Sequence[Feed], stop: Callable[[], bool]) -> None:
        self._source = source
        self._feeds = feeds
        self._stop = stop

    def run(self, images: Sequence[Image]) -> None:
        if images:
            wanted = frozenset(diff_id for feed in self._feeds for diff_id in feed.receiver.need.layers)
            blobs = self._source.read(images, wanted)
            try:
                self._read(blobs, _named(images))
            finally:
                _close(blobs)
        for feed in self._feeds:
            feed.end(self._source.where)

    def _read(self, blobs: Iterator[Blob], named: Mapping[str, frozenset[str]]) -> None:
        for blob in blobs:
            takers = [feed for feed in self._feeds if feed.wants(blob)]
            fault = _misnamed(blob, named) if takers else ""
            try:
                fault = self._pass(blob, [] if fault else takers) or fault
            finally:
                _close(blob.chunks)
            if fault:
                _break_off(takers, _wrong(self._source, blob, fault))
            # What follows in the source's stream is nobody's: it need not be read.
            if not any(feed.lacking for feed in self._feeds if feed.open):
                return

    def _pass(self, blob: Blob, takers: Sequence[Feed]) -> str:
        """Hand a blob to its takers, consuming it whether there are any or not; why it is not what it says, or ""."""
        for feed in takers:
            feed.head(blob)
        count, content = 0, hashlib.sha256()
        for piece in _pieces(blob.chunks) if takers else blob.chunks:
            if self._stop():
                raise _stopped(self._source)
            count += len(piece)
            if not any(feed.open for feed in self._feeds):
                return ""
            if takers and count <= blob.size:
                content.update(piece)
                for feed in takers:
                    feed.piece(piece)
        found = f"sha256:{content.hexdigest()}"
        if takers and (count > blob.size or (count, found) != (blob.size, blob.digest)):
            return f"found {count} bytes" + (f", {found}" if count <= blob.size else "")
        for feed in takers:
            feed.tail()
        return ""


def _named(images: Sequence[Image]) -> Mapping[str, frozenset[str]]:
    """The digests under which a layer may come, by diffID, as the images' manifests say; empty where they do not."""
    named: dict[str, set[str]] = {}
    for image in images:
        for layer in image.layers:
            named.setdefault(layer.diff_id, set()).update([layer.blob.digest] if layer.blob else [])
    return {diff_id: frozenset(digests) for diff_id, digests in named.items()}


def _misnamed(blob: Blob, named: Mapping[str, frozenset[str]]) -> str:
    """Why the blob's digest cannot be that of the layer it is said to be, "" where it can."""
    digests = named.get(blob.diff_id)
    if blob.kind == "config" or blob.digest == blob.diff_id or not digests:
        plain = blob.kind == "layer" and blob.media_type in PLAIN_LAYERS and blob.digest != blob.diff_id
        return f"it is uncompressed and its diffID is {blob.diff_id}" if plain else ""
    return "" if blob.digest in digests else f"the manifest names {', '.join(sorted(digests))}"


def _pieces(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of a good size."""
    gathered: list[bytes] = []
    size = 0
    for chunk in chunks:
        if not gathered and SMALLEST <= len(chunk) <= LARGEST:
            yield chunk
            continue
        gathered.append(chunk)
        size += len(chunk)
        if size >= SMALLEST:
            yield from _cut(b"".join(gathered))
            gathered, size = [], 0
    if size:
        yield b"".join(gathered)


def _cut(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), LARGEST):
        yield content[start : start + LARGEST]


def _close(generator: object) -> None:
    close = getattr(generator, "close", None)
    if close is not None:
        close()


def _break_off(feeds: Sequence[Feed], error: UpgradeError) -> None:
    for feed in feeds:
        feed.break_off(error)


def _wrong(source: Source, blob: Blob, fault: str) -> UnprovenError:
    what = "A config" if blob.kind == "config" else f"The layer {blob.diff_id}"
    return UnprovenError(
        f"{what} from {source.where} is not what its digest says.",
        observed=f"expected {blob.digest}, {blob.size} bytes; {fault}",
        safe=UNCHANGED,
        next="Start again; if it stays so, the source is damaged: pull or push the image there anew.",
    )


def _broke(source: Source, error: OSError) -> TemporaryError:
    return TemporaryError(
        f"{source.where} broke off.",
        observed=str(error),
        safe=UNCHANGED,
        next="Start again: only what is missing is sent.",
    )


def _stopped(source: Source) -> StoppedError:
    return StoppedError(
        f"Bringing images from {source.where} was stopped.",
        safe=UNCHANGED,
        next="Start again when it suits: only what is missing is sent.",
    )
