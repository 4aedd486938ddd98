"""Artifacts of a run in Prefect.  Showing is not doing: an artifact that cannot be kept never fails a step."""

import re
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.logging import get_run_logger

T = TypeVar("T")
DISTANCE = 1.5  # seconds


def keep_page(key: str, markdown: str, description: str) -> None:
    """A page of Markdown under `key`."""
    _kept(lambda: create_markdown_artifact(markdown, key=key, description=description))


def keep_table(key: str, rows: Sequence[dict[str, Any]], description: str) -> None:
    """A table under `key`; one dictionary a row."""
    _kept(lambda: create_table_artifact(list(rows), key=key, description=description))


class Gauge:
    """The progress of one thing, from 0 to 1, with a line of text.

    Each update is a request that a rollout would wait for, so they keep a distance; the last one is always shown.
    """

    def __init__(self, name: str, description: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._description = description
        self._clock = clock
        self._shown_at = clock()
        key = f"progress-{slug(name)}"
        self._id = cast("UUID | None", _kept(lambda: create_progress_artifact(0.0, key=key, description=description)))

    def show(self, share: float, text: str) -> None:
        """Move it, unless it moved a moment ago and is not done."""
        now = self._clock()
        if (artifact := self._id) is not None and (share >= 1.0 or now - self._shown_at >= DISTANCE):
            self._shown_at = now
            percent = round(min(max(share, 0.0), 1.0) * 100, 1)
            _kept(lambda: update_progress_artifact(artifact, percent, description=f"{self._description}: {text}"))


def slug(text: str) -> str:
    """A key as Prefect wants it: lower-case letters, digits and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _kept(act: Callable[[], T]) -> T | None:
    try:
        return act()
    except Exception as error:  # noqa: BLE001 - whatever the server or the client does, the rollout goes on
        get_run_logger().warning("An artifact could not be kept: %s", type(error).__name__)
        return None
