"""Imports of large libraries without the garbage collector's part in them."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import Prefect's server in here: it takes about half the time. Smaller libraries gain little.

    Imports make classes that live for ever, and the collector walks all of them again and again, which grows
    with their number. It is off inside, and what was imported is kept out of its later walks as well.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
