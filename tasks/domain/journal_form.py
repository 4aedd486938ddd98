"""A journal as text to keep: compact JSON, bounded in size, and read back with a reason where it cannot be.

Pure.  What is kept must fit an object of the API server: etcd takes 1.5 MiB a request by default, and a ConfigMap's data
may have 1 MiB (https://kubernetes.io/docs/concepts/configuration/configmap/).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from tasks.domain.errors import UpgradeError, UsageError
from tasks.domain.journal import FORMAT, Entry, Journal, Try

LIMIT = 256 * 1024
"""Bytes that a journal should have at most: texts are cut to keep to it, entries never."""
HARD_LIMIT = 1000 * 1000
"""Bytes that a journal may have: beyond it a ConfigMap is refused."""
CAPS = (8000, 2000, 500, 120)
"""The lengths, in characters, that long texts are cut to, one after the other, until it fits."""
KEPT_TRIES = 10
"""How many of the last tries stay whatever it takes; the first stays too."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A journal that is there and cannot be read: `why` in a sentence.

    `newer` where another version of this program can read it; `tool` is that one's name, or "".
    """

    why: str
    newer: bool = False
    tool: str = ""


def write(journal: Journal, *, limit: int = LIMIT) -> str:
    """The journal as JSON of at most `limit` bytes; raise `UpgradeError` where its entries alone exceed `HARD_LIMIT`."""
    text = _dumped(journal)
    for cap in CAPS:
        if _size(text) <= limit:
            return text
        text = _dumped(_cut(journal, cap))
    if _size(text) > limit:
        text = _dumped(_cut(journal, CAPS[-1], tries=KEPT_TRIES))
    if _size(text) > HARD_LIMIT:
        raise UpgradeError(
            f"The journal of the {journal.kind} {journal.id} would be too large to be kept in the cluster.",
            observed=f"{_size(text):,} bytes for {len(journal.entries)} changes; a ConfigMap takes {HARD_LIMIT:,}.",
            safe="A change is begun only when the journal has it, so at most evidence is missing there.",
            next="Upgrade fewer Deployments at once: name their namespaces with --namespace.",
        )
    return text


def read(text: str) -> Journal | Unreadable:
    """The journal that the text holds, or why it holds none that this program understands."""
    try:
        found = json.loads(text)
    except ValueError as error:
        return Unreadable(f"What it holds is no JSON: {error}.")
    if not isinstance(found, dict):
        return Unreadable("What it holds is JSON, and no journal.")
    if found.get("format") != FORMAT:
        return Unreadable(f"It is of format {found.get('format')!r}, this program reads {FORMAT}.", True, _tool(found))
    try:
        return Journal.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        return Unreadable(f"What it holds is no journal: {place or 'as a whole'}: {first['msg']}.")
    except UsageError as error:  # a version that is none
        return Unreadable(f"What it holds is no journal: {error.happened}")


def _dumped(journal: Journal) -> str:
    """What is as by default is left out, but for the format."""
    value = {"format": journal.format, **journal.model_dump(mode="json", exclude_defaults=True)}
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _size(text: str) -> int:
    return len(text.encode())


def _cut(journal: Journal, cap: int, tries: int = 0) -> Journal:
    """With texts of at most `cap` characters, and all tries or the first and the last `tries` of them."""
    kept = journal.tries
    if tries and len(kept) > tries + 1:
        kept = (kept[0], *kept[-tries:])
    return journal.model_copy(
        update={
            "reason": shorter(journal.reason, cap),
            "tries": tuple(_cut_try(one, cap) for one in kept),
            "entries": tuple(_cut_entry(one, cap) for one in journal.entries),
        }
    )


def _cut_try(one: Try, cap: int) -> Try:
    return one.model_copy(update={"error": {part: shorter(text, cap) for part, text in one.error.items()}})


def _cut_entry(entry: Entry, cap: int) -> Entry:
    """Sentences and evidence only: images, counts and the command that undoes it stay whole."""
    evidence = {k: shorter(v, cap) if isinstance(v, str) else v for k, v in entry.evidence.items()}
    return entry.model_copy(update={"will": shorter(entry.will, cap), "evidence": evidence})


def shorter(text: str, cap: int) -> str:
    """The text, or its beginning and end with what is left out between them counted."""
    if len(text) <= cap:
        return text
    left = f" [... {len(text) - cap} characters ...] "
    head = cap * 2 // 3
    return text[:head] + left + text[len(text) - (cap - head) :]


def _tool(found: Mapping[str, Any]) -> str:
    """The program of the last try, as far as a journal of another format has such a thing where this one has it."""
    try:
        return str(found["tries"][-1]["owner"]["tool"])[:80]
    except (KeyError, IndexError, TypeError):
        return ""
