"""What was written over the API and by whom, in the order in which it was answered: an API server's audit log."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from deployments.sandbox.exchange import Exchange

JsonObject = dict[str, Any]
KEPT = 20_000
_READS = frozenset({"GET", "HEAD", "OPTIONS"})


class Audit:
    """The newest writes, refused ones too. `seq` counts from 1 without a gap.

    `status` is the answer's, 0 where none was begun; `generation` and `resource_version` are those of the object that was
    answered. A Secret's body is left out.
    """

    def __init__(self) -> None:
        self._kept: deque[JsonObject] = deque(maxlen=KEPT)
        self._count = 0

    def note(self, exchange: Exchange, begun: float) -> None:
        """Keep one request that is over; reads are not kept."""
        if exchange.method in _READS or exchange.path.startswith("/sandbox/"):
            return
        self._count += 1
        meta = exchange.answered.get("metadata") if isinstance(exchange.answered, dict) else None
        meta = meta if isinstance(meta, dict) else {}
        self._kept.append(
            {
                "seq": self._count,
                "begun": begun,
                "ended": time.time(),
                "method": exchange.method,
                "path": exchange.path,
                "agent": exchange.headers.get("user-agent", ""),
                "status": exchange.status,
                "body": None if "/secrets" in exchange.path else exchange.read,
                "generation": meta.get("generation"),
                "resource_version": meta.get("resourceVersion"),
            }
        )

    def after(self, seq: int) -> list[JsonObject]:
        """The writes that are kept with a higher number."""
        return [one for one in self._kept if one["seq"] > seq]
