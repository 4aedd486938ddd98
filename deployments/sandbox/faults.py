"""What has been switched to go wrong, and how long things take. Changed over `/sandbox/faults` while all runs."""

from __future__ import annotations

import asyncio
import random
import re
from dataclasses import dataclass, field, fields
from typing import Any

JsonObject = dict[str, Any]


@dataclass
class AnswerFault:
    """Answers that are replaced by an error: `count` times (-1: always), each with `probability`, where path and method fit.

    `landed`: the request is carried out all the same, and only its answer is lost.
    """

    code: int = 503
    path: str = ".*"
    methods: list[str] = field(default_factory=list)
    count: int = -1
    probability: float = 1.0
    retry_after: int = 1
    landed: bool = False

    def hits(self, method: str, path: str) -> bool:
        if self.count == 0 or (self.methods and method not in self.methods) or not re.search(self.path, path):
            return False
        if random.random() >= self.probability:
            return False
        self.count -= self.count > 0
        return True


@dataclass
class Faults:
    """Everything that can be switched; times in seconds of the cluster, which `speed` divides."""

    # The API
    answers: list[AnswerFault] = field(default_factory=list)
    latency_seconds: float = 0.0  # Before every answer, in real seconds.
    drop_watches_after: int = 0  # Close every watch cleanly after so many events; 0: never.
    break_watches_after: int = 0  # The same, without the end of the chunked body.
    half_open_watches: bool = False  # Watches stay open and say nothing, not even bookmarks.
    gone_as_event: int = 0  # So many next watches that resume answer 410 as an ERROR event.
    gone_as_status: int = 0  # So many next watches that resume answer 410 as HTTP status.
    bookmark_seconds: float = 5.0
    # The nodes
    missing_images: dict[str, list[str]] = field(
        default_factory=dict
    )  # Image to nodes ([]: every node) that cannot get it.
    unreachable_registries: list[str] = field(default_factory=list)  # Hosts; "*" for all.
    pull_seconds: float = 0.8
    # The components
    crashing: list[str] = field(default_factory=list)  # "worker:2025.07.0", "worker:*"
    hanging: list[str] = field(default_factory=list)  # The same: starts and never becomes ready.
    boot_seconds: float | None = None  # In place of the container's BOOT_SECONDS.
    migration_seconds: float | None = None
    # The controllers
    refused_pods: dict[str, str] = field(default_factory=dict)  # Namespace to the message that pod creation gets.
    stalled_controllers: bool = False  # Nothing reconciles: status is never observed.

    def change(self, changes: JsonObject) -> None:
        """Set some fields; raises ValueError for one that does not exist."""
        known = {one.name for one in fields(self)}
        for name, value in changes.items():
            if name not in known:
                raise ValueError(f"no such fault: {name}; there are {', '.join(sorted(known))}")
            setattr(self, name, [AnswerFault(**one) for one in value] if name == "answers" else value)

    def answer_for(self, method: str, path: str) -> AnswerFault | None:
        return next((one for one in self.answers if one.hits(method, path)), None)

    def applies(self, listed: list[str], component: str, version: str) -> bool:
        return f"{component}:{version}" in listed or f"{component}:*" in listed


class Pace:
    """The cluster's time: `speed` 2 halves every wait."""

    def __init__(self, speed: float) -> None:
        self.speed = speed

    def real(self, seconds: float) -> float:
        return seconds / self.speed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.speed)
