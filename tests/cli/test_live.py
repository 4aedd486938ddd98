"""What a run says where lines stay: every change of a step, and of amounts one now and then."""

import io

from rich.console import Console

from deployments.cli.live import PAUSE, Display, Row
from tasks.record.feed import Event, State


def lines(events: list[tuple[float, Event]]) -> list[str]:
    """What is printed without a terminal, the times left out; each event with the second it comes at."""
    out = io.StringIO()
    now = 0.0
    with Display(Console(file=out, width=200), [Row("images")], lambda: now) as display:
        for at, event in events:
            now = at
            display.hear(event)
    return [line[len("00:00:00 ") :] for line in out.getvalue().splitlines()]


def amount(at: float, share: float, subject: str = "images on node-a") -> tuple[float, Event]:
    return at, Event(subject, State.RUNNING, f"{share:.3f}", share, passing=True)


def test_amounts_are_told_now_and_then() -> None:
    told = lines(
        [
            amount(0.0, 0.0),
            *(amount(0.01 * n, 0.01 * n) for n in range(1, 100)),
            (2.0, Event("images on node-a", State.DONE, "proved", 1.0)),
        ]
    )
    assert told == [f"images on node-a: {text}" for text in ("0.000", "0.250", "0.500", "0.750", "proved")]


def test_a_slow_one_is_told_all_the_same() -> None:
    told = lines([amount(second, second / 1000) for second in range(21)])
    assert len(told) == 1 + 20 // PAUSE


def test_subjects_do_not_wait_for_each_other() -> None:
    told = lines([amount(0.0, 0.0), amount(0.0, 0.0, "images on node-b"), amount(0.1, 0.01), amount(0.1, 0.3)])
    assert told == ["images on node-a: 0.000", "images on node-b: 0.000", "images on node-a: 0.300"]


def test_each_change_of_a_rollout_is_told() -> None:
    texts = ["1 of 3 updated", "2 of 3 updated", "3 of 3 updated", "3 of 3 ready"]
    assert lines([(0.1 * n, Event("prod/worker", State.RUNNING, text, 0.1)) for n, text in enumerate(texts)]) == [
        f"prod/worker: {text}" for text in texts
    ]
