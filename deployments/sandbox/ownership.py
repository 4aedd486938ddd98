"""Who wrote which fields of a Deployment's spec: metadata.managedFields, as far as its direct fields go (`f:replicas`).

As the API server's field manager does for updates and patches: a field belongs to whoever changed it last; the writer
is the query's fieldManager, else the client's name from its User-Agent.  What comes through the scale has no writer (""):
servers before Kubernetes 1.22 leave the fields with whoever had them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

JsonObject = dict[str, Any]


def writer_of(query: Mapping[str, str], agent: str) -> str:
    """The manager's name of a request (managedfields.PrefixFromUserAgent)."""
    return query.get("fieldManager") or agent.partition("/")[0] or "unknown"


def managed(old: JsonObject | None, new: JsonObject, writer: str, at: str) -> list[JsonObject]:
    """The entries after a write that made `new` of `old` (None: created)."""
    before = old["spec"] if old else {}
    keys = {*before, *new["spec"]}
    changed = {f"f:{key}" for key in keys if before.get(key) != new["spec"].get(key)}
    entries = [dict(one) for one in (old or {"metadata": {}})["metadata"].get("managedFields") or []]
    if not changed or not writer:
        return entries
    owned = {one["manager"]: set(one["fieldsV1"]["f:spec"]) - changed for one in entries}
    times = {one["manager"]: one["time"] for one in entries} | {writer: at}
    owned[writer] = owned.get(writer, set()) | {field for field in changed if field.removeprefix("f:") in new["spec"]}
    return [_entry(name, times[name], fields) for name, fields in owned.items() if fields]


def _entry(manager: str, at: str, fields: set[str]) -> JsonObject:
    return {
        "manager": manager,
        "operation": "Update",
        "apiVersion": "apps/v1",
        "time": at,
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {field: {} for field in sorted(fields)}},
    }
