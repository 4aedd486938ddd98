"""What reaches into a container: its log, and its HTTP port through the API server's proxy."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

from deployments.sandbox import failures
from deployments.sandbox.cluster import Cluster
from deployments.sandbox.component import Log
from deployments.sandbox.exchange import Exchange, number_of
from deployments.sandbox.kubelet import Pod
from deployments.sandbox.replication import is_ready
from deployments.sandbox.resources import PODS, SERVICES, Resource

JsonObject = dict[str, Any]


class Reach:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def answer(
        self, exchange: Exchange, resource: Resource, namespace: str, name: str, sub: str, rest: str
    ) -> None:
        if sub == "log":
            await self._log(exchange, namespace, name)
        elif resource is SERVICES:
            await self._service(exchange, namespace, name, "/" + rest)
        else:
            await self._pod(exchange, namespace, name, "/" + rest)

    # -------------------------------------------------------------------- log
    async def _log(self, exchange: Exchange, namespace: str, name: str) -> None:
        obj = self._cluster.store.must_get(PODS, namespace, name)
        query = exchange.query
        container = self._container_name(obj, query.get("container", ""))
        pod = self._cluster.kubelet.pod(obj["metadata"]["uid"])
        if pod is None:
            raise failures.bad_request(f"pod {name} does not have a host assigned")
        log = self._find_log(pod, name, container, previous=exchange.asks("previous"))
        lines = _selected(log, query)
        stamped = exchange.asks("timestamps")
        if exchange.asks("follow"):
            await exchange.stream(_follow(log, lines, stamped=stamped), "text/plain")
        else:
            whole = b"".join(_line(at, text, stamped=stamped) for at, text in lines)
            await exchange.answer(whole[: number_of(query, "limitBytes")], kind="text/plain")

    def _container_name(self, obj: JsonObject, asked: str) -> str:
        name = obj["metadata"]["name"]
        regular = [one["name"] for one in obj["spec"]["containers"]]
        names = regular + [one["name"] for one in obj["spec"].get("initContainers") or []]
        if not asked:
            if len(names) == 1:
                return str(names[0])
            raise failures.bad_request(
                f"a container name must be specified for pod {name}, choose one of: [{' '.join(regular)}]"
            )
        if asked not in names:
            raise failures.bad_request(f"container {asked} is not valid for pod {name}")
        return asked

    def _find_log(self, pod: Pod, name: str, container: str, *, previous: bool) -> Log:
        found = pod.container(container)
        log = found.log if found else None
        if found is not None and previous:
            # Once a run is over and the next has not begun, that run is the previous one.
            log = found.previous_log if found.process else found.log
            if log is None:
                raise failures.bad_request(f'previous terminated container "{container}" in pod "{name}" not found')
        if found is None or log is None:
            reason = found.waiting_reason if found else "ContainerCreating"
            why = "trying and failing to pull image" if reason in ("ErrImagePull", "ImagePullBackOff") else reason
            verb = "" if why != reason else "waiting to start: "
            start = f"is {verb or 'waiting to start: '}{why}"
            raise failures.bad_request(f'container "{container}" in pod "{name}" {start}')
        return log

    # ------------------------------------------------------------------ proxy
    async def _service(self, exchange: Exchange, namespace: str, text: str, path: str) -> None:
        name, port = _split(text)
        service = self._cluster.store.must_get(SERVICES, namespace, name)
        ports = service["spec"].get("ports") or []
        chosen = (
            ports[0]
            if not port and len(ports) == 1
            else next((one for one in ports if port in (one.get("name"), str(one["port"]))), None)
        )
        if chosen is None:
            if not port:
                raise failures.service_unavailable(f'no endpoints available for service "{text}"')
            raise failures.service_unavailable(f'no service port {port} found for service "{name}"')
        selector = service["spec"].get("selector") or {}
        ready = [
            pod
            for pod in self._cluster.store.find(PODS, namespace)
            if selector
            and selector.items() <= (pod["metadata"].get("labels") or {}).items()
            and is_ready(pod)
            and "deletionTimestamp" not in pod["metadata"]
        ]
        if not ready:
            raise failures.service_unavailable(f'no endpoints available for service "{text}"')
        target = chosen.get("targetPort", chosen["port"])
        await self._ask(
            exchange, ready[0], int(target) if str(target).isdigit() else _named_port(ready[0], target), path
        )

    async def _pod(self, exchange: Exchange, namespace: str, text: str, path: str) -> None:
        name, port = _split(text)
        pod = self._cluster.store.must_get(PODS, namespace, name)
        if not port:
            declared = [
                one["containerPort"] for container in pod["spec"]["containers"] for one in container.get("ports") or []
            ]
            port = str(declared[0]) if declared else "80"
        if not pod["status"].get("podIP"):
            raise failures.bad_request("address not allowed")
        await self._ask(exchange, pod, int(port) if port.isdigit() else _named_port(pod, port), path)

    async def _ask(self, exchange: Exchange, obj: JsonObject, port: int, path: str) -> None:
        pod = self._cluster.kubelet.pod(obj["metadata"]["uid"])
        found = pod.answer(port, path) if pod else None
        if found is None:
            address = obj["status"].get("podIP", "")
            text = f"error trying to reach service: dial tcp {address}:{port}: connect: connection refused"
            raise failures.ApiError(500, "", text)
        status, body = found
        await exchange.answer(body, status)


def _split(text: str) -> tuple[str, str]:
    """`[scheme:]name[:port]` as name and port."""
    parts = text.split(":")
    if len(parts) == 3:
        return parts[1], parts[2]
    if len(parts) == 2:
        return parts[0], parts[1]
    return text, ""


def _named_port(pod: JsonObject, name: str) -> int:
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or []:
            if port.get("name") == name:
                return int(port["containerPort"])
    return 0


def _selected(log: Log, query: dict[str, str]) -> list[tuple[str, str]]:
    lines = list(log.lines)
    if seconds := number_of(query, "sinceSeconds"):
        since = (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
        lines = [line for line in lines if line[0] >= since]
    if since := query.get("sinceTime", ""):
        lines = [line for line in lines if line[0] >= since.rstrip("Z")]
    tail = number_of(query, "tailLines")
    if tail is not None:
        lines = lines[-tail:] if tail else []
    return lines


def _line(at: str, text: str, *, stamped: bool) -> bytes:
    return f"{at} {text}\n".encode() if stamped else f"{text}\n".encode()


async def _follow(log: Log, lines: list[tuple[str, str]], *, stamped: bool) -> AsyncIterator[bytes]:
    """The lines, then each new one until the run ends."""
    sent = len(log.lines)
    for at, text in lines:
        yield _line(at, text, stamped=stamped)
    while True:
        for at, text in log.lines[sent:]:
            yield _line(at, text, stamped=stamped)
        sent = len(log.lines)
        if log.ended:
            return
        changed = log.changed
        if len(log.lines) == sent:
            await changed.wait()
