"""Takes what is missing to a folder here first, where that is asked for: the source is read once and then left in peace.

What lies there is a bundle of just the layers that somebody lacks; it goes when they have it.  A folder that a killed
process left is swept by the next one.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tasks.domain.errors import UsageError
from tasks.domain.reference import ImageReference
from tasks.images.bundle import Base, BundleSource, write_bundle
from tasks.images.feeding import Receiver
from tasks.images.missing import need_of
from tasks.images.model import Image, Source

PREFIX = "apinizer-staging-"
_LOCK = "lock"


@contextmanager
def stashed(
    source: Source, images: Sequence[Image], receivers: Sequence[Receiver], folder: Path, stop: Callable[[], bool]
) -> Iterator[tuple[Source, tuple[Image, ...], tuple[Receiver, ...]]]:
    """While the context lasts: the same images in a folder here, and the receivers as they get them from there.

    Raise `UsageError` where the folder cannot be used, `BlockedError` where it has no room, and what the source raises.
    """
    with _place_in(folder) as place:
        wanted = frozenset(diff_id for receiver in receivers for diff_id in receiver.need.layers)
        rest = frozenset(diff_id for image in images for diff_id in image.diff_ids) - wanted
        held = Base("", (), rest) if rest else None
        file = place / "images.tar"
        write_bundle(source, images, file, version="", made_at=datetime.now(UTC), held=held, compress="none", stop=stop)
        with BundleSource(file, stop=stop) as here:
            references = [ImageReference.parse(image.name) for image in images]
            found = here.find(references, images[0].platform)
            by_name = {image.name: there.named(image.name) for image, there in zip(images, found, strict=True)}
            yield here, tuple(by_name.values()), tuple(_from_here(receiver, by_name) for receiver in receivers)


def _from_here(receiver: Receiver, by_name: dict[str, Image]) -> Receiver:
    images = [by_name[image.name] for image in receiver.images]
    return replace(receiver, images=images, need=need_of(images, receiver.holdings))


@contextmanager
def _place_in(folder: Path) -> Iterator[Path]:
    """A folder of this process's own, which goes with the context, or with the next process if this one is killed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone_in(folder):
            _sweep(folder)
            place = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))
            lock = os.open(place / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        raise UsageError(
            f"The staging folder {folder} cannot be used.",
            observed=error.strerror or type(error).__name__,
            next="Name a folder that this user may write to, or none: images then go straight to the targets.",
        ) from None
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(lock)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Nobody sweeps while another one makes its place."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sweep(folder: Path) -> None:
    """Remove what processes left that are no more: their locks went with them."""
    for old in folder.glob(f"{PREFIX}*"):
        try:
            lock = os.open(old / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # not ours to open
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(old, ignore_errors=True)
        except OSError:
            pass  # its process lives
        finally:
            os.close(lock)
