"""A journal as a ConfigMap: its name and labels, what is read of one, what is told of one that cannot be read.  Pure."""

import re
from dataclasses import dataclass
from typing import Any

from tasks.cluster.answers import JsonObject
from tasks.cluster.last_write import last_write, writer_of
from tasks.domain.errors import BlockedError
from tasks.domain.journal import Journal
from tasks.domain.journal_form import Unreadable, read

PREFIX = "apinizer-upgrade-"
DATA = "journal.json"
LABELS = {"app.kubernetes.io/managed-by": "apinizer-upgrade", "app.kubernetes.io/component": "journal"}
SELECTOR = ",".join(f"{key}={value}" for key, value in LABELS.items())
BESIDE = ".journal.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """A ConfigMap as it was seen last."""

    uid: str
    version: str
    text: str


@dataclass(frozen=True, slots=True)
class Damaged:
    """A journal that is there and cannot be read: the ConfigMap's name, why, and who wrote it last."""

    name: str
    unreadable: Unreadable
    written: str = ""


def journal_name(run: str) -> str:
    """The ConfigMap's name."""
    return PREFIX + run


def configmap(run: str, text: str, version: str) -> JsonObject:
    """The ConfigMap of a run's journal, as this program's `version` makes it."""
    meta = {"name": journal_name(run), "labels": labels_of(version)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {DATA: text}}


def changed(text: str, before: Kept, version: str) -> JsonObject:
    """The merge patch that writes `text` over what was seen before, and over nothing else."""
    meta = {"uid": before.uid, "resourceVersion": before.version, "labels": labels_of(version)}
    return {"metadata": meta, "data": {DATA: text}}


def journal_of(thing: JsonObject) -> Journal | Damaged:
    """What a journal's ConfigMap holds."""
    name = str(thing["metadata"]["name"])
    text = kept(thing).text
    journal = read(text) if text else Unreadable(f"Its {DATA} is gone or empty.")
    if isinstance(journal, Journal):
        if journal_name(journal.id) == name:
            return journal
        journal = Unreadable(f"It says that it is of the run {journal.id}, and its name does not.")
    return Damaged(name, _told_by_label(journal, thing), writer(thing))


def unreadable_error(namespace: str, damaged: Damaged) -> BlockedError:
    """What is told of a journal that cannot be read."""
    where, why = f"kubectl -n {namespace}", damaged.unreadable
    put_back = (
        f"{where} create configmap {damaged.name} --from-file={DATA}=ARCHIVE{BESIDE} --dry-run=client -o yaml "
        f"| {where} replace -f -"
    )
    ways = (
        *((f"Use the program that wrote it{f', {why.tool}' if why.tool else ''}.",) if why.newer else ()),
        f"Put it back from the copy beside that run's backup: {put_back}",
        f"Where you know that the run has ended and all is well, remove it: {where} delete configmap {damaged.name}",
    )
    return BlockedError(
        f"The journal {damaged.name} cannot be read, so whether that run has ended is not known.",
        observed=" ".join(part for part in (why.why, damaged.written) if part),
        next="\n".join(ways),
    )


def labels_of(version: str) -> dict[str, str]:
    """The labels of a journal's ConfigMap; a label's value takes few characters (RFC 1123 and `_`)."""
    return {**LABELS, "app.kubernetes.io/version": re.sub(r"[^A-Za-z0-9._-]", "-", version)[:63].strip("._-")}


def kept(thing: JsonObject) -> Kept:
    """What of a ConfigMap conditional writes need."""
    meta = thing["metadata"]
    data = thing.get("data") or {}
    return Kept(str(meta["uid"]), str(meta["resourceVersion"]), str(data.get(DATA, "")))


def is_journal(thing: JsonObject) -> bool:
    """By its labels; or by its name, where it lost them and still holds something."""
    meta = thing["metadata"]
    labels: dict[str, Any] = meta.get("labels") or {}
    if all(labels.get(key) == value for key, value in LABELS.items()):
        return True
    return str(meta["name"]).startswith(PREFIX) and DATA in (thing.get("data") or {})


def _told_by_label(unreadable: Unreadable, thing: JsonObject) -> Unreadable:
    """With the program's version that the labels name, where the text itself does not say it."""
    version = (thing["metadata"].get("labels") or {}).get("app.kubernetes.io/version", "")
    if not unreadable.newer or unreadable.tool or not version:
        return unreadable
    return Unreadable(unreadable.why, True, f"apinizer-upgrade {version}")


def writer(thing: JsonObject) -> str:
    """Who wrote the object last; "" where the server does not tell."""
    last = last_write(thing)
    return "It was last written by {} at {}.".format(*writer_of(last)) if last else ""
