"""What is said of a run that ends early: never more than is known."""

import pytest

from flows import passage
from flows.passage import Passage
from tasks.domain.errors import NOTHING_CHANGED, StoppedError, TemporaryError, UpgradeError
from tasks.record.feed import Event, State, publish

HALF = "Maybe half of it is there."


class _State:
    def __init__(self, error: Exception | None) -> None:
        self._error = error
        self.message = ""

    def is_completed(self) -> bool:
        return False

    def is_failed(self) -> bool:
        return self._error is not None

    is_crashed = is_failed

    def result(self, *, raise_on_failure: bool) -> Exception | None:
        assert not raise_on_failure
        return self._error


class _Step:
    """A step that does not end in time (no error), or ended with one."""

    def __init__(self, error: Exception | None = None) -> None:
        self.state = _State(error)

    def wait(self, timeout: float | None = None) -> None:
        """Over at once, or not in time."""


def passes(step: _Step, *told: str, then: BaseException | None = None) -> None:
    with Passage("restore", NOTHING_CHANGED, {"restore": HALF}) as run:
        run._futures.append(step)  # type: ignore[arg-type]
        for subject in told:
            publish(Event(subject, State.RUNNING, "at work"))
        if then is not None:
            raise then
        run.finish()


def interrupted(step: _Step, *told: str) -> UpgradeError:
    with pytest.raises(StoppedError) as raised:
        passes(step, *told, then=KeyboardInterrupt())
    return raised.value


def test_a_step_that_began_and_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage, "STOP_SECONDS", 0.0)
    assert interrupted(_Step(), "plan", "backup").safe == NOTHING_CHANGED
    error = interrupted(_Step(), "plan", "restore")
    assert error.safe == HALF
    assert "had not come to a safe boundary" in error.observed


def test_a_step_that_ended_knows_best() -> None:
    for kind in (StoppedError, TemporaryError):
        told = kind("It ended.", observed="Seen.", safe="This is known.")
        assert interrupted(_Step(told), "restore").safe == "This is known."


def test_a_step_that_ended_as_nobody_foresaw() -> None:
    for subject, safe in (("plan", NOTHING_CHANGED), ("restore", HALF)):
        with pytest.raises(UpgradeError) as raised:
            passes(_Step(ValueError("?")), subject)
        assert raised.value.safe == safe
