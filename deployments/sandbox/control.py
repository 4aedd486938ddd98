"""`/sandbox/...`: faults and edits of the world while it runs, for whoever holds the admin token."""

from __future__ import annotations

import asyncio
import dataclasses
import resource
from collections.abc import Awaitable, Callable
from typing import Any

from deployments.sandbox import failures, outage
from deployments.sandbox.cluster import Cluster
from deployments.sandbox.database import Database
from deployments.sandbox.exchange import Exchange
from deployments.sandbox.images import normalise

JsonObject = dict[str, Any]


class Control:
    """POST /sandbox/faults {field: value}, /sandbox/do {action: ..., ...}; GET /sandbox/faults, /sandbox/audit[?after=SEQ]: what
    was written over the API; and /sandbox/state: how many tasks there are and how many seconds of a processor they took."""

    def __init__(self, cluster: Cluster, database: Database, go_down: Callable[[float], Awaitable[None]]) -> None:
        self._cluster, self._database, self._go_down = cluster, database, go_down
        self._tasks: set[asyncio.Task[None]] = set()

    async def handle(self, exchange: Exchange) -> None:
        faults = self._cluster.faults
        if exchange.path == "/sandbox/state":
            usage = resource.getrusage(resource.RUSAGE_SELF)
            await exchange.answer_json({"tasks": len(asyncio.all_tasks()), "busy": usage.ru_utime + usage.ru_stime})
            return
        if exchange.path == "/sandbox/audit":
            await exchange.answer_json({"writes": self._cluster.audit.after(int(exchange.query.get("after", 0)))})
            return
        if exchange.method == "GET":
            await exchange.answer_json(dataclasses.asdict(faults))
            return
        body = await exchange.json()
        try:
            if exchange.path == "/sandbox/faults":
                faults.change(body)
                await exchange.answer_json(dataclasses.asdict(faults))
            elif exchange.path == "/sandbox/do":
                await exchange.answer_json(await self._do(body))
            else:
                raise failures.page_not_found()
        except (ValueError, TypeError, KeyError) as error:
            raise failures.bad_request(str(error)) from error

    async def _do(self, body: JsonObject) -> JsonObject:
        cluster = self._cluster
        match body["action"]:
            case "drop_watches":
                cluster.watches.drop_all()
            case "compact":
                cluster.store.compact()
                cluster.lister.expire()
            case "token":
                return {"token": cluster.access.add(body["user"], body.get("namespace", ""), body["rules"])}
            case "remove_image":
                cluster.kubelet.images.remove(body["node"], normalise(body["image"]) or body["image"])
            case "add_image":
                cluster.kubelet.images.add(body["node"], normalise(body["image"]) or body["image"])
            case "lose_node":
                outage.lose(cluster.store, cluster.kubelet, body["node"])
            case "find_node":
                outage.find_again(cluster.store, cluster.kubelet, body["node"])
            case "api_down":
                task = asyncio.get_running_loop().create_task(self._down(float(body["seconds"])))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case "stop_database":
                await self._database.stop()
            case "start_database":
                self._database.start(auth=True)
                await self._database.wait()
            case "speed":
                cluster.pace.speed = float(body["speed"])
            case other:
                raise ValueError(f"no such action: {other}")
        return {}

    async def _down(self, seconds: float) -> None:
        await asyncio.sleep(0.05)  # The answer to this request leaves first.
        await self._go_down(seconds)
