"""Versions of the product: `YYYY.MM.PATCH`, ordered by number, written as they were given."""

import re
from functools import total_ordering
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from tasks.domain.errors import UsageError

_FORM = re.compile(r"(?P<year>[0-9]{4})\.(?P<month>[0-9]{1,2})\.(?P<patch>[0-9]{1,4})")


@total_ordering
class Version:
    """One release, e.g. `2026.04.01`.

    Equal and ordered by number (`2026.04.1 == 2026.04.01 < 2026.04.10`); `text` keeps the tag as written,
    because the registry knows it by no other.
    """

    __slots__ = ("numbers", "text")

    def __init__(self, text: str) -> None:
        match = _FORM.fullmatch(text)
        month = int(match["month"]) if match else 0
        if match is None or not 1 <= month <= 12:
            raise UsageError(
                f"{text!r} is not a version of Apinizer.",
                observed="A version is written YYYY.MM.PATCH, a year, a month from 1 to 12 and a number.",
                next="Give it as in the release notes, e.g. 2025.07.0, without a leading v or a suffix.",
            )
        self.text = text
        self.numbers = (int(match["year"]), month, int(match["patch"]))

    @classmethod
    def find(cls, tag: str | None) -> "Version | None":
        """The version that an image tag is, or None where the tag is something else (`latest`, a hash)."""
        try:
            return cls(tag or "")
        except UsageError:
            return None

    @property
    def line(self) -> tuple[int, int]:
        """Year and month: two versions of one line differ in the patch only."""
        return self.numbers[:2]

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Version({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return self.numbers == other.numbers if isinstance(other, Version) else NotImplemented

    def __lt__(self, other: object) -> bool:
        return self.numbers < other.numbers if isinstance(other, Version) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.numbers)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """In models a version is its text."""
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls(str(value)),
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )
