"""The errors that people see: four parts, an exit code, and a way between processes."""

import pickle

import pytest

from tasks.domain import errors
from tasks.domain.errors import BlockedError, TemporaryError, UnprovenError, UpgradeError, UsageError

KINDS = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, UpgradeError)]


@pytest.mark.parametrize("kind", KINDS)
def test_all_four_parts_come_back_from_another_process(kind: type[UpgradeError]) -> None:
    error = kind("It broke.", observed="line one\nline two", safe="All pods run.", next="Look.")
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 - its own bytes
    assert type(back) is kind
    assert back.as_json() == error.as_json()
    assert back.as_json() == {
        "happened": "It broke.",
        "observed": "line one\nline two",
        "safe": "All pods run.",
        "next": "Look.",
    }


def test_the_text_names_the_parts_and_keeps_lines_together() -> None:
    error = UpgradeError("It broke.", observed="line one\nline two", next="Look.")
    assert str(error).splitlines() == [
        "It broke.",
        "Observed: line one",
        "  line two",
        "Safe now: Nothing was changed.",
        "Next: Look.",
    ]


def test_what_is_not_known_is_left_out() -> None:
    assert str(UpgradeError("It broke.", safe="")) == "It broke."


@pytest.mark.parametrize(("kind", "code"), [(UpgradeError, 1), (UsageError, 2), (BlockedError, 3), (TemporaryError, 1)])
def test_exit_codes(kind: type[UpgradeError], code: int) -> None:
    assert kind("x").exit_code == code


def test_a_caller_that_knows_better_says_what_is_safe() -> None:
    error = UnprovenError("No proof.", observed="o", next="n")
    told = error.with_safe("The manager is at 2025.07.0.")
    assert type(told) is UnprovenError
    assert (told.happened, told.observed, told.safe, told.next) == (
        "No proof.",
        "o",
        "The manager is at 2025.07.0.",
        "n",
    )
    assert error.safe == "Nothing was changed."
