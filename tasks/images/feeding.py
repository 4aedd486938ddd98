"""One receiver of a delivery: the thread that feeds its target, what it still lacks, and how it ended."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from dataclasses import dataclass, replace
from threading import Thread

from tasks.domain.errors import StoppedError, TemporaryError, UnprovenError, UpgradeError
from tasks.images.handing_over import LOOK, UNCHANGED, HandOver
from tasks.images.model import Blob, Holdings, Image, Inlet, Need, Target

# How long a receiver that was broken off may take to put its target in order before it is left to itself.
GRACE = 10.0


@dataclass(frozen=True, slots=True)
class Receiver:
    """A target with the images that it shall hold, what it holds of them and what it lacks; `name` is unique."""

    name: str
    target: Target
    images: Sequence[Image]
    holdings: Holdings
    need: Need


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many bytes of blobs a receiver took, and why it failed, None where it has everything."""

    sent: int
    error: UpgradeError | None


class Feed:
    """Feeds one receiver; all but `_run` and what it calls belongs to the thread that reads the source."""

    def __init__(
        self,
        receiver: Receiver,
        progress: Callable[[str, int, int], None],
        stop: Callable[[], bool],
        patience: float,
    ) -> None:
        self.receiver = receiver
        self._images = [image for image in receiver.images if image.name not in receiver.need.complete]
        self._progress = progress
        self._stop = stop
        self._over = HandOver(receiver.target.where, patience=patience)
        self._layers = set(receiver.need.layers)
        self._configs = set(receiver.need.configs)
        # In the caller's context: what is told of the progress belongs to the run that the caller is part of.
        self._thread = Thread(
            target=copy_context().run, args=(self._run,), name=f"images to {receiver.name}", daemon=True
        )
        self._sent = 0
        self._finished = False
        self._failure: Exception | None = None

    def start(self) -> None:
        self._thread.start()

    @property
    def open(self) -> bool:
        """Whether the receiver still takes anything."""
        return self._over.open

    @property
    def lacking(self) -> bool:
        """Whether something that it needs has not come yet."""
        return bool(self._layers or self._configs)

    def lacks(self, image: Image) -> bool:
        """Whether it needs content of `image`."""
        return image.config in self.receiver.need.configs and any(one.config == image.config for one in self._images)

    def wants(self, blob: Blob) -> bool:
        """Whether it takes anything and has not got this yet."""
        return self.open and (blob.digest in self._configs if blob.kind == "config" else blob.diff_id in self._layers)

    def head(self, blob: Blob) -> None:
        """A blob begins, which `wants` has said yes to."""
        self._configs.discard(blob.digest)
        self._layers.discard(blob.diff_id)
        self._over.put(blob, self._stop)

    def piece(self, content: bytes) -> None:
        self._over.put(content, self._stop)

    def tail(self) -> None:
        """The blob has ended and is what its digest says."""
        self._over.put(None, self._stop)

    def end(self, where: str) -> None:
        """The source, for people `where`, has given all it has."""
        missing = sorted(self._layers | self._configs)
        if not missing:
            self._over.end()
            return
        error = UnprovenError(
            f"{where} did not give all of the images.",
            observed="missing: " + ", ".join(missing),
            safe=UNCHANGED,
            next="Look whether the images are whole there (pull them again), then start again.",
        )
        self._over.break_off(error)

    def break_off(self, error: UpgradeError) -> None:
        """End the delivery with `error`, unless it has ended already."""
        # Each receiver its own: an exception gathers the trace of every thread that raises it.
        own = error.with_safe(error.safe)
        own.__cause__ = error.__cause__
        self._over.break_off(own)

    def outcome(self) -> Outcome:
        """Wait until the receiver has ended; one that was broken off and does not end is left to itself."""
        while self._thread.is_alive():
            self._thread.join(LOOK)
            if self._stop() and self._over.error is None:
                self._over.break_off(self._error(StoppedError, "was stopped"))
            # From the break on, for all receivers alike: a hundred that hang are not waited for one after the other.
            if self._over.broken_at is not None and time.monotonic() - self._over.broken_at > GRACE:
                break
        if self._finished:
            return Outcome(self._sent, None)
        return Outcome(self._sent, self._over.error or self._told(self._failure))

    def _run(self) -> None:
        need = self.receiver.need
        try:
            with self.receiver.target.inlet(self._images, need, self.receiver.holdings) as inlet:
                for blob in self._over.blobs():
                    self._take(inlet, blob)
                inlet.finish()
                self._finished = True
            self._progress(self.receiver.name, self._sent, self._sent)
        except Exception as error:  # noqa: BLE001 -- one receiver's failure must not end the others; it is told in the outcome.
            self._failure = error
        finally:
            self._over.leave()

    def _take(self, inlet: Inlet, blob: Blob) -> None:
        pieces = self._over.pieces()
        inlet.take(replace(blob, chunks=self._counted(pieces)))
        for _ in pieces:  # A target that found out that it holds the blob takes none of it.
            pass

    def _counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        in_all = self.receiver.need.size or 0
        for piece in pieces:
            yield piece
            self._sent += len(piece)
            self._progress(self.receiver.name, self._sent, max(in_all, self._sent) if in_all else 0)

    def _told(self, failure: Exception | None) -> UpgradeError:
        if isinstance(failure, UpgradeError):
            return failure
        kind = TemporaryError if isinstance(failure, OSError) else UpgradeError
        error = self._error(kind, "failed", repr(failure) if failure else "It ended without a word.")
        error.__cause__ = failure
        return error

    def _error(self, kind: type[UpgradeError], how: str, observed: str = "") -> UpgradeError:
        return kind(
            f"Bringing images to {self.receiver.target.where} {how}.",
            observed=observed,
            safe=UNCHANGED,
            next="Start again: only what is missing is sent.",
        )
