"""Label and field selectors, from a request's text to a test of one object."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from deployments.sandbox.failures import bad_request
from deployments.sandbox.resources import Resource

JsonObject = dict[str, Any]
Predicate = Callable[[JsonObject], bool]

_SET_BASED = re.compile(r"^([\w./-]+)\s+(in|notin)\s*\(([^)]*)\)$")
_EQUALITY = re.compile(r"^([\w./-]+)\s*(==|!=|=)\s*([\w.-]*)$")
_EXISTS = re.compile(r"^(!?)\s*([\w./-]+)$")

_FIELDS: dict[str, tuple[str, ...]] = {
    "pods": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
    ),
    "events": (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "type",
        "source",
    ),
    "nodes": ("spec.unschedulable",),
    "secrets": ("type",),
    "namespaces": ("status.phase",),
    "replicasets": ("status.replicas",),
}


def everything(_obj: JsonObject) -> bool:
    return True


def parse_labels(text: str) -> Predicate:
    """A label selector (`a=b,c!=d,e in (f,g),h,!i`) as a test; raises ApiError 400 on other text."""
    tests = [_label_test(part.strip(), text) for part in _split(text)]
    return lambda obj: all(test(obj.get("metadata", {}).get("labels") or {}) for test in tests)


def _split(text: str) -> list[str]:
    """Split at commas that are not inside parentheses."""
    parts = re.split(r",(?![^(]*\))", text)
    return [part for part in parts if part.strip()]


def _label_test(part: str, text: str) -> Callable[[dict[str, str]], bool]:
    if found := _SET_BASED.match(part):
        key, operator, listed = found.groups()
        values = {value.strip() for value in listed.split(",")}
        if operator == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if found := _EQUALITY.match(part):
        key, operator, value = found.groups()
        if operator == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _EXISTS.match(part):
        negated, key = found.groups()
        return lambda labels: (key in labels) is not bool(negated)
    raise bad_request(f"unable to parse requirement: found '{part}' in '{text}'")


def parse_fields(text: str, resource: Resource) -> Predicate:
    """A field selector as a test; raises ApiError 400 for a field that the kind does not offer."""
    tests: list[tuple[str, bool, str]] = []
    for part in text.split(","):
        found = re.match(r"^([\w.]+)\s*(==|!=|=)(.*)$", part.strip())
        if not found:
            raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
        field, operator, value = found.groups()
        if field not in ("metadata.name", "metadata.namespace", *_FIELDS.get(resource.plural, ())):
            raise bad_request(
                f'Unable to find "{resource.api_version.replace("/", "/")}, Resource={resource.plural}" that match label selector '
                f'"", field selector "{text}": field label not supported: {field}'
            )
        tests.append((field, operator != "!=", value))
    return lambda obj: all((_field(obj, field) == value) is equal for field, equal, value in tests)


def _field(obj: JsonObject, path: str) -> str:
    value: Any = obj
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if path == "source":
        value = obj.get("source", {}).get("component")
    if path == "spec.unschedulable":
        return "true" if value else "false"
    return "" if value is None else str(value)


def matches(selector: JsonObject | None, labels: dict[str, str]) -> bool:
    """Whether a LabelSelector object (`matchLabels`, `matchExpressions`) takes these labels; an empty one takes all."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_expression(one, labels) for one in selector.get("matchExpressions") or [])


def _expression(one: JsonObject, labels: dict[str, str]) -> bool:
    key, operator, values = one["key"], one["operator"], one.get("values") or []
    match operator:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels
