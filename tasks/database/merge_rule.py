"""Which of two documents with the same `_id` stays when an archive is merged into a collection: pure rules."""

from enum import StrEnum
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from tasks.database.archive.metadata import CollectionMetadata
from tasks.database.bson_layout import NULL, UNDEFINED
from tasks.database.element import Element, at_path, compare
from tasks.domain.errors import UsageError

_FORMS = "ours, theirs or newest:FIELD"


class MergeRule(BaseModel):
    """As in git: `ours` keeps the document of the database, `theirs` takes the archive's.

    `newest` takes the one with the greater value of `field`, a dotted path; equal documents are left alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["ours", "theirs", "newest"]
    field: str = ""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.kind == "newest") != bool(self.field):
            raise ValueError("newest needs a field, ours and theirs have none")
        if self.field and not all(self.field.split(".")):
            raise ValueError("the field is no dotted path")
        return self

    @classmethod
    def parse(cls, text: str) -> Self:
        """`ours`, `theirs` or `newest:FIELD`.  Raises UsageError."""
        kind, _, field = text.strip().partition(":")
        try:
            return cls.model_validate({"kind": kind, "field": field.strip()})
        except ValueError:
            raise UsageError(
                f"{text!r} is no rule for merging.",
                observed=f"A rule is {_FORMS}; FIELD is a dotted path such as audit.updated.",
                next=f"Write {_FORMS}.",
            ) from None

    def __str__(self) -> str:
        return f"{self.kind}:{self.field}" if self.field else self.kind


class Verdict(StrEnum):
    """What becomes of an archive's document.  UNDECIDED keeps the database's, and is told apart."""

    INSERT = "insert"
    REPLACE = "replace"
    KEEP = "keep"
    SAME = "same"
    UNDECIDED = "undecided"


def decide(existing: bytes | None, incoming: bytes, rule: MergeRule) -> Verdict:
    """The verdict on an archive's document and the one with its `_id` in the database.

    With `newest`, a document without the field (or with null there) is older than one that has it.  Where
    neither has it, or the two values are of kinds that have no common order (a date and a text, documents,
    arrays), nothing is decided and the database's document stays.
    """
    if existing is None:
        return Verdict.INSERT
    if existing == incoming:
        return Verdict.SAME
    if rule.kind == "ours":
        return Verdict.KEEP
    if rule.kind == "theirs":
        return Verdict.REPLACE
    here, there = _present(existing, rule.field), _present(incoming, rule.field)
    if here is None or there is None:
        if here is there:
            return Verdict.UNDECIDED
        return Verdict.REPLACE if here is None else Verdict.KEEP
    order = compare(there, here)
    if order is None:
        return Verdict.UNDECIDED
    return Verdict.REPLACE if order > 0 else Verdict.KEEP


def structural_differences(archive: CollectionMetadata, present: CollectionMetadata) -> list[str]:
    """Sentences on what else than documents differs between the archive's definition and the database's.

    A merge moves documents only: the collection keeps its own definition, and who merges should know.
    """
    lines = []
    if (archive.type or "collection") != (present.type or "collection"):
        lines.append(
            f"The archive's is a {archive.type or 'collection'}, the database's a {present.type or 'collection'}."
        )
    for name in sorted(archive.options.keys() | present.options.keys()):
        if archive.options.get(name) != present.options.get(name):
            where = _where(archive=name in archive.options, present=name in present.options)
            lines.append(f"The option {name} {where}; the database's stays.")
    theirs = {str(index["name"]): _definition(index) for index in archive.indexes}
    ours = {str(index["name"]): _definition(index) for index in present.indexes}
    lines.extend(
        f"The index {name} {_where(archive=name in theirs, present=name in ours)}; the database's stays."
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name) != ours.get(name)
    )
    return lines


def _where(*, archive: bool, present: bool) -> str:
    if archive and present:
        return "differs"
    return "is only in the archive" if archive else "is only in the database"


def _definition(index: dict[str, object]) -> list[tuple[str, object]]:
    # `v` and `ns` belong to a server's version, `background` to how the index was once built.
    kept = {name: value for name, value in index.items() if name not in {"v", "ns", "background", "key"}}
    return [*sorted(kept.items(), key=lambda item: item[0]), ("key", _ordered(index.get("key")))]


def _ordered(key: object) -> object:
    return list(key.items()) if isinstance(key, dict) else key


def _present(document: bytes, field: str) -> Element | None:
    found = at_path(document, field)
    return None if found is None or found.kind in {NULL, UNDEFINED} else found
