"""Tables, as kubectl asks for them (`as=Table`). Anything else gets the plain object."""

from __future__ import annotations

from typing import Any

from deployments.sandbox.exchange import Exchange
from deployments.sandbox.resources import Resource

JsonObject = dict[str, Any]


def of_list(_resource: Resource, _found: JsonObject, _exchange: Exchange) -> JsonObject | None:
    return None


def of_object(_resource: Resource, _obj: JsonObject, _exchange: Exchange) -> JsonObject | None:
    return None


def of_event(_resource: Resource, _event: JsonObject, _exchange: Exchange, *, header: bool) -> JsonObject | None:
    return None
