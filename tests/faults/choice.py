"""At which of the boundaries that an undisturbed run passed it is disturbed.  Pure."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

JsonObject = dict[str, Any]
LIKE_ONE = (
    "prod/cache-prod",
    "test/cache",
    "prod/worker-prod",
    "portal/apinizer-portal",
    "integration/apinizer-integration",
)
"""Deployments that go the way that another goes as well: of their steps only what changes something is disturbed."""


def chosen(lines: Sequence[JsonObject], *, every: bool = False) -> list[JsonObject]:
    """Before, within and after every step: each write to cluster, database and disk on both its sides, and progress.

    Of many writes of one kind within a step the first, the middle and the last.  With `every` no step is left out for
    being like another.
    """
    steps = list(dict.fromkeys(line["task"] for line in lines))
    found = [line for step in steps for line in _of(step, [one for one in lines if one["task"] == step], every=every)]
    return found if every else _without_same(found, [line for line in lines if line["kind"] != "says"])


def _without_same(found: list[JsonObject], lines: list[JsonObject]) -> list[JsonObject]:
    """Without the beginning of a step right after the end of another: between the two nothing happens."""
    after = {id(line) for line in found if line["kind"] == "after"}
    same = {
        id(line)
        for before, line in itertools.pairwise(lines)
        if id(before) in after and line["kind"] == "before" and not line["what"]
    }
    return [line for line in found if id(line) not in same]


def _of(step: str, lines: list[JsonObject], *, every: bool) -> Iterable[JsonObject]:
    like = not every and any(step.endswith(key) for key in LIKE_ONE)
    wanted = {id(line) for line in _within(lines)}
    if like:
        wanted = {
            id(one)
            for one in lines
            if id(one) in wanted and ("PATCH deployments" in one["what"] or one["kind"] == "midway")
        }
    else:
        wanted |= {id(line) for line in lines if line["kind"] in {"before", "after"} and not line["what"]}
    return [line for line in lines if id(line) in wanted]


def _within(lines: list[JsonObject]) -> list[JsonObject]:
    writes = [
        one
        for one in lines
        if one["kind"] in {"before", "answered"} and one["what"] and not one["what"].startswith("beat ")
    ]
    groups: dict[tuple[str, str], list[JsonObject]] = {}
    for one in writes:
        groups.setdefault((one["kind"], one["what"].split()[0]), []).append(one)
    found = [one for group in groups.values() for one in _first_middle_last(group)]
    progress = {one["kind"]: one for one in reversed(lines) if one["kind"] in {"midway", "migrating"}}
    return [*found, *progress.values()]


def _first_middle_last(group: list[JsonObject]) -> list[JsonObject]:
    at = sorted({0, len(group) // 2, len(group) - 1})
    return [group[number] for number in at]


def one_a_step(lines: Sequence[JsonObject], *, every: bool) -> list[JsonObject]:
    """For each step its middle: where it is half done, else before what it writes, else its beginning."""
    found = []
    for step in dict.fromkeys(line["task"] for line in lines):
        of_step = chosen([line for line in lines if line["task"] == step], every=every)
        ranks = {id(line): _rank(line) for line in of_step}
        if of_step and (every or not any(step.endswith(key) for key in LIKE_ONE)):
            found.append(min(of_step, key=lambda line: ranks[id(line)]))
    return found


def _rank(line: JsonObject) -> int:
    order = (line["kind"] == "migrating", line["kind"] == "midway", line["kind"] == "before" and bool(line["what"]))
    return order.index(True) if True in order else len(order)


def moment(line: JsonObject) -> str:
    """Where in its step a boundary lies, for people."""
    if not line["what"]:
        return str(line["kind"]) if line["kind"] in {"before", "after"} else f"within: {line['kind']}"
    number = line["at"].rpartition(" ")[2]
    again = "" if number == "#1" else f" {number}"
    return f"within: {line['kind']} {line['what']}{again}"
