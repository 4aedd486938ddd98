"""Who wrote an object last and when, by the metadata.managedFields that the API server keeps.  Pure."""

from collections.abc import Callable

from tasks.cluster.answers import JsonObject


def last_write(thing: JsonObject, counts: Callable[[JsonObject], bool] = lambda _: True) -> JsonObject | None:
    """The newest entry of managedFields that `counts`; None where there is none, or the server keeps none.

    An entry is of one writer: its own name, or the subresource it wrote through (meta/v1 ManagedFieldsEntry).
    """
    kept = filter(counts, thing.get("metadata", {}).get("managedFields") or ())
    return max(kept, key=lambda entry: str(entry.get("time") or ""), default=None)


def writer_of(entry: JsonObject) -> tuple[str, str]:
    """The name of the writer and the time, as people are told them."""
    return str(entry.get("manager") or "an unnamed writer"), str(entry.get("time") or "an unknown time")
