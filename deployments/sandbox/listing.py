"""Lists: selectors, pages that stay one snapshot, resource versions."""

from __future__ import annotations

import base64
import binascii
import json
from collections import OrderedDict
from typing import Any

from deployments.sandbox import failures
from deployments.sandbox.exchange import number_of
from deployments.sandbox.resources import Resource
from deployments.sandbox.selectors import Predicate, everything, parse_fields, parse_labels
from deployments.sandbox.store import Store
from deployments.sandbox.watching import parse_version

JsonObject = dict[str, Any]
_SNAPSHOTS = 50


def selector_of(query: dict[str, str], resource: Resource) -> Predicate:
    """The labelSelector and fieldSelector of a request as one test."""
    tests: list[Predicate] = []
    if text := query.get("labelSelector", ""):
        tests.append(parse_labels(text))
    if text := query.get("fieldSelector", ""):
        tests.append(parse_fields(text, resource))
    if not tests:
        return everything
    return lambda obj: all(test(obj) for test in tests)


class Lister:
    def __init__(self, store: Store) -> None:
        self._store = store
        # Pages of one list are of one moment: (resourceVersion, the objects) by number.
        self._snapshots: OrderedDict[str, tuple[str, list[JsonObject]]] = OrderedDict()
        self._next = 0

    def expire(self) -> None:
        """Forget every begun list: its next page is too old."""
        self._snapshots.clear()

    def answer(self, resource: Resource, namespace: str, query: dict[str, str]) -> JsonObject:
        """The answer to a list request. Raises ApiError 400, 410 (a continue token too old), 504 (a version to come)."""
        limit = number_of(query, "limit") or 0
        if token := query.get("continue"):
            version, rest, number = self._resume(token)
        else:
            asked = parse_version(query.get("resourceVersion") or "0")
            if asked > self._store.version:
                raise failures.too_large_version(asked, self._store.version)
            version, number = str(self._store.version), ""
            rest = self._store.find(resource, namespace, selector_of(query, resource))
        meta: JsonObject = {"resourceVersion": version}
        page = rest
        if limit and len(rest) > limit:
            page, left = rest[:limit], rest[limit:]
            meta["continue"] = self._keep(version, left, number)
            if not (query.get("labelSelector") or query.get("fieldSelector")):
                meta["remainingItemCount"] = len(left)
        items = [{key: value for key, value in obj.items() if key not in ("kind", "apiVersion")} for obj in page]
        return {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": meta, "items": items}

    def _keep(self, version: str, left: list[JsonObject], _number: str) -> str:
        self._next += 1
        self._snapshots[str(self._next)] = (version, left)
        while len(self._snapshots) > _SNAPSHOTS:
            self._snapshots.popitem(last=False)
        token = {"v": "meta.k8s.io/v1", "rv": int(version), "start": str(self._next)}
        return base64.urlsafe_b64encode(json.dumps(token).encode()).decode().rstrip("=")

    def _resume(self, token: str) -> tuple[str, list[JsonObject], str]:
        try:
            decoded = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
            number = str(decoded["start"])
        except (binascii.Error, ValueError, KeyError, TypeError) as error:
            raise failures.bad_request("continue key is not valid: illegal base64 data") from error
        if number not in self._snapshots:
            raise failures.expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
                "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
                "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
                "deleted between the time the first chunk was returned and now may show up in the list."
            )
        version, rest = self._snapshots[number]
        return version, rest, number
