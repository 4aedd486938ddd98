"""One disturbed run, how it came out, and the table of all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

COLUMNS = ("STEP", "MOMENT", "FAULT", "THEN", "GONE ON IN", "EFFECTS", "RESULT")


@dataclass(frozen=True)
class Case:
    """What is done and where; `act` fills in how it came out, and raises AssertionError where the fault did not land."""

    group: str
    step: str
    moment: str
    fault: str
    act: "Callable[[Outcome], None]" = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.group}: {self.step}, {self.moment}, {self.fault}"


@dataclass
class Outcome:
    """`then` is how it was gone on with, `seconds` how long that took, `effects` what was done in all."""

    case: Case
    then: str = ""
    seconds: float | None = None
    effects: str = ""
    problems: list[str] = field(default_factory=list)
    told: str = ""

    @property
    def good(self) -> bool:
        return not self.problems

    def cells(self) -> tuple[str, ...]:
        case = self.case
        took = "" if self.seconds is None else f"{self.seconds:.1f} s"
        return (case.step, case.moment, case.fault, self.then, took, self.effects, "" if self.good else "FAILED")


def table(outcomes: Sequence[Outcome]) -> str:
    """All of them as text, the problems of those that failed below."""
    parts = []
    for group in dict.fromkeys(one.case.group for one in outcomes):
        rows = [COLUMNS, *(_row(one) for one in outcomes if one.case.group == group)]
        widths = [max(len(row[number]) for row in rows) for number in range(len(COLUMNS))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        parts.append("\n".join([f"== {group}", *lines]))
    failed = [one for one in outcomes if not one.good]
    parts += [
        "\n".join([f"FAILED {one.case.name}", *(f"  - {text}" for text in one.problems), _indented(one.told)])
        for one in failed
    ]
    parts.append(f"{len(outcomes) - len(failed)} of {len(outcomes)} as they should be.")
    return "\n\n".join(parts)


def _row(outcome: Outcome) -> tuple[str, ...]:
    cells = outcome.cells()
    return (*cells[:-1], cells[-1] or "as it should be")


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.strip().splitlines()[-25:])
