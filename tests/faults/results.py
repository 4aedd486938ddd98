"""One disturbed run, how it came out, and the table of all."""

import itertools
import re
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


def spread(cases: Sequence[Case], most: int) -> list[Case]:
    """At most so many of them, in their order: of each kind of moment and fault one, then the last, then those between."""
    kinds: dict[tuple[str, ...], list[Case]] = {}
    for case in cases:
        step = case.step if case.moment == "within: midway" else ""  # half of what is the question there
        kinds.setdefault((re.sub(r" #\d+$", "", case.moment), case.fault, step), []).append(case)
    for found in kinds.values():
        found.sort(key=_from_both_ends(found))
    rounds = itertools.chain.from_iterable(itertools.zip_longest(*kinds.values()))
    picked = {id(case) for case in itertools.islice((case for case in rounds if case), most)}
    return [case for case in cases if id(case) in picked]


def _from_both_ends(found: Sequence[Case]) -> Callable[[Case], int]:
    ranks = {id(case): min(number, len(found) - 1 - number) for number, case in enumerate(found)}
    return lambda case: ranks[id(case)]


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
