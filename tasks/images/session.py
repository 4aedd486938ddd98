"""What a run has open for its images, found by the installation's name: a task's parameters carry names alone."""

from collections.abc import Iterator
from contextlib import contextmanager

from blocks.image_settings import ImageSourceSettings
from tasks.images.opening import Opened
from tasks.record import stopping

_open: dict[str, Opened] = {}


@contextmanager
def images_open(name: str, settings: ImageSourceSettings) -> Iterator[Opened]:
    """Have the tasks of a run find source and targets under the installation's `name`, until the context ends."""
    _open[name] = opened = Opened(settings, stop=stopping.asked)
    try:
        yield opened
    finally:
        _open.pop(name, None)
        opened.close()


def opened_for(name: str) -> Opened:
    """What `images_open` opened."""
    return _open[name]
