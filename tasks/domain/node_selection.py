"""Node selectors and required node affinity.  Pure.

Source: `nodeaffinity.go` (component-helpers, scheduling/corev1/nodeaffinity) and `labels.Requirement` (apimachinery).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

JsonObject = dict[str, Any]

OS_LABEL = "kubernetes.io/os"

_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_INT64 = range(-(2**63), 2**63)


def refusal_by_selector(pod: JsonObject, labels: Mapping[str, str]) -> str:
    """The first label of `nodeSelector` that the node does not have so, as a reason; "" if it has all."""
    for key, value in sorted((pod.get("nodeSelector") or {}).items()):
        if labels.get(key) != value:
            return f"it lacks the label {key}={value}"
    return ""


def refusal_by_affinity(pod: JsonObject, name: str, labels: Mapping[str, str]) -> str:
    """The reason where the required node affinity does not match; what is only preferred is not looked at."""
    affinity = (pod.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return ""
    terms = required.get("nodeSelectorTerms") or ()
    if any(_term(term, name, labels) for term in terms):
        return ""
    return f"the node affinity does not match: {' or '.join(map(_words, terms)) or 'it has no term'}"


def _term(term: JsonObject, name: str, labels: Mapping[str, str]) -> bool:
    """Expressions are ANDed; a term without any matches nothing."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    return all(_expression(e, labels) for e in expressions) and all(_field(f, name) for f in fields)


def _expression(rule: JsonObject, labels: Mapping[str, str]) -> bool:
    """One requirement on the labels; one that the API would not take (no values for In) matches nothing."""
    has, values = labels.get(rule["key"]), rule.get("values") or ()
    match rule.get("operator"):
        case "In":
            return has in values
        case "NotIn":
            return bool(values) and has not in values
        case "Exists":
            return has is not None and not values
        case "DoesNotExist":
            return has is None and not values
        case "Gt" | "Lt":
            return _compared(rule["operator"], has, values)
    return False


def _compared(operator: str, has: str | None, values: Sequence[str]) -> bool:
    mine, theirs = _integer(has), _integer(values[0]) if len(values) == 1 else None
    if mine is None or theirs is None:
        return False
    return mine > theirs if operator == "Gt" else mine < theirs


def _integer(text: str | None) -> int | None:
    """As Go's ParseInt reads a 64 bit decimal."""
    if text is None or not _INTEGER.fullmatch(text):
        return None
    value = int(text)
    return value if value in _INT64 else None


def _field(rule: JsonObject, name: str) -> bool:
    """A requirement on the node's own fields, of which there is one: metadata.name; In or NotIn with one value."""
    values: Sequence[str] = rule.get("values") or ()
    if len(values) != 1:
        return False
    has = name if rule["key"] == "metadata.name" else ""
    match rule.get("operator"):
        case "In":
            return has == values[0]
        case "NotIn":
            return has != values[0]
    return False


def _words(term: JsonObject) -> str:
    rules = [*(term.get("matchExpressions") or ()), *(term.get("matchFields") or ())]
    parts = [" ".join([r["key"], r.get("operator") or "?", ",".join(r.get("values") or ())]).strip() for r in rules]
    return " and ".join(parts) or "an empty term"
