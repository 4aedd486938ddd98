"""The routes of the Kubernetes API: from a request's path to the part that answers it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
import traceback
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from deployments.sandbox import access, deletion, failures, ownership, resources, tables
from deployments.sandbox.access import Action, User
from deployments.sandbox.cluster import Cluster
from deployments.sandbox.control import Control
from deployments.sandbox.exchange import Exchange, Receive, Scope, Send, dump, number_of
from deployments.sandbox.listing import selector_of
from deployments.sandbox.reach import Reach
from deployments.sandbox.resources import Resource
from deployments.sandbox.watching import BrokenConnectionError, WatchRequest
from deployments.sandbox.writing import scale_of

JsonObject = dict[str, Any]
_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names. `name` may be empty (a collection); `rest` is what follows a proxy."""

    resource: Resource
    namespace: str
    name: str
    sub: str
    rest: str


class Api:
    """The ASGI application."""

    def __init__(self, cluster: Cluster, control: Control) -> None:
        self._cluster, self._control = cluster, control
        self._reach = Reach(cluster)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange, begun = Exchange(scope, receive, send), time.time()
        try:
            await self._handle(exchange)
        except failures.ApiError as error:
            if not exchange.started:
                await exchange.answer_error(error)
        except (
            Exception
        ) as error:  # A mistake of this server's, told as the real one tells its own; the log has the rest.
            if exchange.started:
                raise
            traceback.print_exc(file=sys.stderr)
            await exchange.answer_error(failures.internal_error(f"{type(error).__name__}: {error}"))
        finally:
            self._cluster.audit.note(exchange, begun)

    async def _handle(self, exchange: Exchange) -> None:
        path, faults = exchange.path, self._cluster.faults
        if path.startswith("/sandbox/"):
            user = self._cluster.access.authenticate(exchange.headers.get("authorization"))
            if not user.is_admin:
                raise failures.unauthorized()
            await self._control.handle(exchange)
            return
        if faults.latency_seconds:
            await asyncio.sleep(faults.latency_seconds)
        if fault := faults.answer_for(exchange.method, path + ("?watch" if exchange.asks("watch") else "")):
            error = _fault_error(fault.code, fault.retry_after)
            if not fault.landed:
                raise error
            exchange.instead = error
        user = self._cluster.access.authenticate(exchange.headers.get("authorization"))
        target = parse(path)
        if target is None:
            self._cluster.access.check_path(user, _VERBS.get(exchange.method, "get"), path)
            await self._answer_path(exchange)
        else:
            await self._answer_target(exchange, user, target)

    # -------------------------------------------------------- paths, discovery
    async def _answer_path(self, exchange: Exchange) -> None:
        path = exchange.path.rstrip("/")
        if path in ("/readyz", "/livez", "/healthz"):
            await exchange.answer(b"ok", kind="text/plain; charset=utf-8")
            return
        if path == "/openapi/v2":
            await self._answer_openapi(exchange)
            return
        parts = path.strip("/").split("/")
        found: JsonObject | None = None
        match parts:
            case ["version"]:
                found = resources.VERSION
            case ["api"]:
                found = resources.core_versions()
            case ["apis"]:
                found = resources.groups()
            case ["api", version]:
                found = resources.resource_list("", version)
            case ["apis", group]:
                found = resources.group(group) and {"kind": "APIGroup", "apiVersion": "v1", **resources.group(group)}
            case ["apis", group, version]:
                found = resources.resource_list(group, version)
        if not found:
            await exchange.answer(b"404 page not found\n", 404, "text/plain; charset=utf-8")
            return
        await exchange.answer_json(found)

    async def _answer_openapi(self, exchange: Exchange) -> None:
        """A schema that describes nothing: kubectl then leaves validation to the server, as for kinds it does not know."""
        if "protobuf" in exchange.accept:
            kind = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
            await exchange.answer(b"\x0a\x032.0", kind=kind)  # Document{swagger: "2.0"}
            return
        info = {"title": "Kubernetes", "version": resources.VERSION["gitVersion"]}
        await exchange.answer_json({"swagger": "2.0", "info": info, "paths": {}, "definitions": {}})

    # ----------------------------------------------------------------- objects
    async def _answer_target(self, exchange: Exchange, user: User, target: Target) -> None:
        verb = _verb(exchange, target)
        resource = target.resource
        plural = f"{resource.plural}/{target.sub}" if target.sub else resource.plural
        namespace = target.name if resource is resources.NAMESPACES else target.namespace
        self._cluster.access.check(user, Action(verb, resource, resource.group, plural, namespace, target.name))
        if target.sub in ("log", "proxy"):
            await self._reach.answer(exchange, target.resource, target.namespace, target.name, target.sub, target.rest)
        elif verb == "watch":
            await self._watch(exchange, target)
        elif verb == "list":
            found = self._cluster.lister.answer(resource, target.namespace, exchange.query)
            await exchange.answer_json(tables.of_list(resource, found, exchange) or found)
        elif verb == "get":
            await self._get(exchange, target)
        elif verb == "create":
            await self._create(exchange, user, target)
        elif verb in ("update", "patch"):
            await self._write(exchange, target, verb)
        elif verb == "delete":
            await self._delete(exchange, target)
        else:
            await self._delete_all(exchange, target)

    async def _get(self, exchange: Exchange, target: Target) -> None:
        obj = self._cluster.store.must_get(target.resource, target.namespace, target.name)
        if target.sub == "scale":
            await exchange.answer_json(scale_of(target.resource, obj))
            return
        await exchange.answer_json(tables.of_object(target.resource, obj, exchange) or obj)

    async def _create(self, exchange: Exchange, user: User, target: Target) -> None:
        body = await exchange.json()
        if not isinstance(body, dict):
            raise failures.bad_request("the request body is no object")
        cluster, resource = self._cluster, target.resource
        if resource.plural == "selfsubjectaccessreviews":
            found = access.access_review(cluster.access, user, body)
        elif resource.plural == "selfsubjectrulesreviews":
            found = access.rules_review(cluster.access, user, body)
        elif target.sub == "token":
            found = self._make_token(target, body)
        elif target.sub or target.name:
            raise failures.method_not_allowed()
        else:
            found = cluster.writer.create(
                resource, target.namespace, body, dry="dryRun" in exchange.query, writer=_writer(exchange)
            )
        await exchange.answer_json(tables.of_object(resource, found, exchange) or found, 201)

    def _make_token(self, target: Target, body: JsonObject) -> JsonObject:
        self._cluster.store.must_get(target.resource, target.namespace, target.name)
        token = self._cluster.access.add_service_account(target.namespace, target.name)
        status = {"token": token, "expirationTimestamp": "2100-01-01T00:00:00Z"}
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"creationTimestamp": None},
            "spec": body.get("spec") or {},
            "status": status,
        }

    async def _write(self, exchange: Exchange, target: Target, verb: str) -> None:
        writer, dry = self._cluster.writer, "dryRun" in exchange.query
        if verb == "patch" and exchange.content_type not in (
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
        ):
            await exchange.body()
            raise failures.unsupported_media_type()
        body = await exchange.json()
        place = (target.resource, target.namespace, target.name, body)
        if verb == "patch":
            found = writer.patch(*place, exchange.content_type, target.sub, dry=dry, writer=_writer(exchange))
        else:
            found = writer.update(*place, target.sub, dry=dry, writer=_writer(exchange))
        await exchange.answer_json(tables.of_object(target.resource, found, exchange) or found)

    async def _delete(self, exchange: Exchange, target: Target) -> None:
        options = await self._delete_options(exchange)
        store, resource = self._cluster.store, target.resource
        obj = store.must_get(resource, target.namespace, target.name)
        if "dryRun" in exchange.query or options.get("dryRun"):
            await exchange.answer_json(obj)
            return
        found = deletion.delete(store, resource, obj, options)
        if store.get(resource, target.namespace, target.name) is not None or resource is resources.PODS:
            await exchange.answer_json(found)
            return
        details = {"name": target.name, "kind": resource.plural, "uid": obj["metadata"]["uid"]}
        if resource.group:
            details["group"] = resource.group
        await exchange.answer_json(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        )

    async def _delete_all(self, exchange: Exchange, target: Target) -> None:
        options = await self._delete_options(exchange)
        store, resource = self._cluster.store, target.resource
        keep = selector_of(exchange.query, resource)
        listed = self._cluster.lister.answer(resource, target.namespace, exchange.query)
        for obj in store.find(resource, target.namespace, keep):
            deletion.delete(store, resource, obj, options)
        await exchange.answer_json(listed)

    async def _delete_options(self, exchange: Exchange) -> JsonObject:
        options = await exchange.json()
        options = dict(options) if isinstance(options, dict) else {}
        for name in ("propagationPolicy", "gracePeriodSeconds", "orphanDependents"):
            if name in exchange.query:
                value = exchange.query[name]
                options[name] = int(value) if value.isdigit() else value
        return options

    # ------------------------------------------------------------------ watch
    async def _watch(self, exchange: Exchange, target: Target) -> None:
        query, resource = exchange.query, target.resource
        keep = selector_of(
            query if not target.name else {**query, "fieldSelector": f"metadata.name={target.name}"}, resource
        )
        seconds = number_of(query, "timeoutSeconds")
        request = WatchRequest(
            resource,
            target.namespace,
            keep,
            query.get("resourceVersion", ""),
            seconds or None,
            exchange.asks("allowWatchBookmarks"),
        )
        watches = self._cluster.watches
        with watches.opened(request) as queue, contextlib.suppress(BrokenConnectionError):

            async def lines() -> AsyncIterator[bytes]:
                first = True
                async with contextlib.aclosing(watches.deliver(request, queue)) as source:
                    async for event in source:
                        shown = tables.of_event(resource, event, exchange, header=first)
                        first = False
                        yield dump(shown or event) + b"\n"

            await exchange.stream(lines(), "application/json")
            return
        raise ConnectionAbortedError("a watch is broken off, as asked")


def _fault_error(code: int, retry_after: int) -> failures.ApiError:
    if code == 429:
        return failures.too_many_requests(retry_after)
    if code == 503:
        return failures.service_unavailable("the server is currently unable to handle the request")
    if code == 504:
        return failures.ApiError(504, "Timeout", "the server was unable to return a response in the time allotted")
    if code == 500:
        return failures.internal_error("etcdserver: leader changed")
    return failures.ApiError(code, "", "a fault that the sandbox was asked for")


def _verb(exchange: Exchange, target: Target) -> str:
    verb = _VERBS.get(exchange.method)
    if verb is None:
        raise failures.method_not_allowed()
    if target.sub == "proxy":
        return verb
    if verb == "get" and exchange.asks("watch"):
        return "watch"
    if target.name:
        return verb if target.sub or verb != "create" else "create"
    if verb == "get":
        return "list"
    if verb == "delete":
        return "deletecollection"
    if verb != "create":
        raise failures.method_not_allowed()
    return verb


def parse(path: str) -> Target | None:
    """What a path names; None for paths that name no object. Raises ApiError 404 for a resource that is not served."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    resource = resources.find(group, version, rest[0])
    if resource is None or (namespace and not resource.namespaced):
        raise failures.page_not_found()
    name = rest[1] if len(rest) > 1 else ""
    sub = rest[2] if len(rest) > 2 else ""
    if sub and sub not in resource.subresources:
        raise failures.page_not_found()
    return Target(resource, namespace, name, sub, "/".join(rest[3:]))


def _writer(exchange: Exchange) -> str:
    return ownership.writer_of(exchange.query, exchange.headers.get("user-agent", ""))
