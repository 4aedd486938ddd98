"""The three patch types of the API: JSON patch, JSON merge patch, strategic merge patch. Pure.

Strategic merge follows k8s.io/apimachinery/pkg/util/strategicpatch: lists that have a merge key are merged by it,
other lists are replaced; `$patch: delete|replace`, `$retainKeys`, `$setElementOrder/x` and `$deleteFromPrimitiveList/x`.
"""

from __future__ import annotations

import copy
from typing import Any

from deployments.sandbox.failures import ApiError, bad_request

JsonObject = dict[str, Any]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"

# patchMergeKey of the types in k8s.io/api; None marks a list of plain values that is merged as a set.
_MERGE_KEYS: dict[str, str | None] = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "imagePullSecrets": "name",
    "conditions": "type",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "ownerReferences": "uid",
    "addresses": "type",
    "secrets": "name",
    "finalizers": None,
}


def json_patch(target: JsonObject, operations: Any) -> JsonObject:
    """RFC 6902. Raises ApiError 400 for a malformed patch, 422 for one that cannot be applied."""
    if not isinstance(operations, list):
        raise bad_request("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    result = copy.deepcopy(target)
    for operation in operations:
        result = _operate(result, operation)
    return result


def _refuse(message: str) -> ApiError:
    """What the server answers when a well-formed JSON patch does not fit: 422 with this text and no causes."""
    return ApiError(422, "Invalid", f"the server rejected our request due to an error in our request: {message}")


def _operate(document: Any, operation: JsonObject) -> Any:
    kind, path = operation.get("op"), _pointer(str(operation.get("path", "")))
    match kind:
        case "add":
            return _put(document, path, copy.deepcopy(operation.get("value")), insert=True)
        case "replace":
            _read(document, path)
            return _put(document, path, copy.deepcopy(operation.get("value")), insert=False)
        case "remove":
            return _remove(document, path)
        case "test":
            if _read(document, path, missing=None) != operation.get("value"):
                raise _refuse(f"testing path {operation['path']} value failed")
            return document
        case "copy":
            return _put(document, path, copy.deepcopy(_read(document, _pointer(operation["from"]))), insert=True)
        case "move":
            value = _read(document, _pointer(operation["from"]))
            return _put(_remove(document, _pointer(operation["from"])), path, value, insert=True)
    raise _refuse(f"Unexpected kind: {kind}")


def _pointer(path: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]


_ABSENT = object()


def _read(document: Any, path: list[str], missing: Any = _ABSENT) -> Any:
    for part in path:
        if isinstance(document, dict) and part in document:
            document = document[part]
        elif isinstance(document, list) and part.isdigit() and int(part) < len(document):
            document = document[int(part)]
        elif missing is not _ABSENT:
            return missing
        else:
            raise _refuse(f"Unable to read path: /{'/'.join(path)}: missing value")
    return document


def _put(document: Any, path: list[str], value: Any, *, insert: bool) -> Any:
    if not path:
        return value
    parent, last = _read(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        if last == "-":
            parent.append(value)
        elif not last.isdigit() or int(last) > len(parent):
            raise _refuse(f"Unable to access invalid index: {last}")
        elif insert:
            parent.insert(int(last), value)
        else:
            parent[int(last)] = value
    elif isinstance(parent, dict):
        parent[last] = value
    else:
        raise _refuse(f"add operation does not apply: doc is missing path: /{'/'.join(path)}")
    return document


def _remove(document: Any, path: list[str]) -> Any:
    parent, last = _read(document, path[:-1]), path[-1]
    if isinstance(parent, list) and last.isdigit() and int(last) < len(parent):
        del parent[int(last)]
    elif isinstance(parent, dict) and last in parent:
        del parent[last]
    else:
        raise _refuse(f"Unable to remove nonexistent key: {last}")
    return document


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386: null deletes, objects merge, all else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def strategic_patch(target: Any, patch: JsonObject) -> JsonObject:
    """Strategic merge of `patch` into `target`; neither is changed."""
    directive = patch.get("$patch")
    if directive == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != "$patch"}
    if directive == "delete":
        return {}
    result: JsonObject = dict(target) if isinstance(target, dict) else {}
    if "$retainKeys" in patch:
        result = {key: value for key, value in result.items() if key in patch["$retainKeys"]}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.split("/", 1)[1]
            result[name] = [one for one in result.get(name) or [] if one not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = strategic_patch(result.get(key), value)
        elif isinstance(value, list):
            result[key] = _merge_list(key, result.get(key), value)
        else:
            result[key] = value
    for key, order in patch.items():
        if key.startswith("$setElementOrder/"):
            _order(result, key.split("/", 1)[1], order)
    return result


def _key_of(name: str, items: list[Any]) -> str | None:
    if name == "ports":  # A container's ports merge by containerPort, a service's by port.
        return "containerPort" if any("containerPort" in one for one in items if isinstance(one, dict)) else "port"
    return _MERGE_KEYS.get(name)


def _merge_list(name: str, current: Any, patch: list[Any]) -> list[Any]:
    items: list[Any] = list(current) if isinstance(current, list) else []
    if name == "finalizers":
        return items + [one for one in patch if one not in items]
    key = _key_of(name, [*items, *patch])
    if key is None or any(not isinstance(one, dict) for one in [*items, *patch]):
        return copy.deepcopy(patch)
    if any(one.get("$patch") == "replace" for one in patch):
        return [copy.deepcopy(one) for one in patch if "$patch" not in one]
    for one in patch:
        if key not in one:
            raise bad_request(f"map: {one} does not contain declared merge key: {key}")
        at = next((index for index, old in enumerate(items) if old.get(key) == one[key]), None)
        if one.get("$patch") == "delete":
            items = [old for old in items if old.get(key) != one[key]]
        elif at is None:
            items.append(strategic_patch({}, one))
        else:
            items[at] = strategic_patch(items[at], one)
    return items


def _order(result: JsonObject, name: str, order: list[Any]) -> None:
    items = result.get(name)
    if not isinstance(items, list):
        return
    key = _key_of(name, items)
    wanted = [one.get(key) if isinstance(one, dict) else one for one in order]

    def place(one: Any) -> int:
        value = one.get(key) if isinstance(one, dict) else one
        return wanted.index(value) if value in wanted else len(wanted)

    result[name] = sorted(items, key=place)
