"""Versions: the form, the order by number, the text that is kept."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tasks.domain.errors import UsageError
from tasks.domain.version import Version

NUMBERS = st.tuples(st.integers(1000, 9999), st.integers(1, 12), st.integers(0, 999))
LIKE_A_VERSION = st.from_regex(r"[0-9]{4}\.[0-9]{1,2}\.[0-9]{1,4}", fullmatch=True)


def written(numbers: tuple[int, int, int], month: int = 2, patch: int = 1) -> str:
    return f"{numbers[0]:04}.{numbers[1]:0{month}}.{numbers[2]:0{patch}}"


def test_they_order_by_number_and_not_by_text() -> None:
    texts = ["2026.04.10", "2025.11.1", "2024.01.6", "2026.04.9", "2025.04.5", "2025.07.0", "2026.4.2"]
    assert [str(v) for v in sorted(map(Version, texts))] == [
        "2024.01.6",
        "2025.04.5",
        "2025.07.0",
        "2025.11.1",
        "2026.4.2",
        "2026.04.9",
        "2026.04.10",
    ]


@given(NUMBERS, NUMBERS, st.integers(1, 2), st.integers(1, 4))
def test_their_order_is_that_of_their_numbers(
    one: tuple[int, int, int], other: tuple[int, int, int], month: int, patch: int
) -> None:
    left, right = Version(written(one)), Version(written(other, month, patch))
    assert (left < right) == (one < other)
    assert (left > right) == (one > other)
    assert (left <= right) == (one <= other)
    assert (left == right) == (one == other)
    if one == other:
        assert hash(left) == hash(right)


@given(LIKE_A_VERSION)
def test_the_text_is_kept_as_written(text: str) -> None:
    version = Version.find(text)
    month = int(text.split(".")[1])
    assert (version is None) == (not 1 <= month <= 12)
    assert version is None or str(version) == text


def test_two_spellings_are_one_version_with_two_texts() -> None:
    short, long = Version("2026.04.1"), Version("2026.04.01")
    assert short == long
    assert len({short, long}) == 1
    assert (str(short), str(long)) == ("2026.04.1", "2026.04.01")
    assert short < Version("2026.04.10")


@pytest.mark.parametrize(
    "text",
    ["", "latest", "v2025.07.0", "2025.07", "2025.07.0-rc1", "2025.13.0", "2025.00.1", "25.07.0", "2025.07.0\n",
     " 2025.07.0", "2025.07.00000", "２０２５.07.0", "2025,07,0", "sha256:abc"],
)  # fmt: skip
def test_what_is_no_version_is_said_with_the_form(text: str) -> None:
    assert Version.find(text) is None
    with pytest.raises(UsageError) as caught:
        Version(text)
    assert repr(text) in caught.value.happened
    assert "YYYY.MM.PATCH" in caught.value.observed
    assert caught.value.exit_code == 2


def test_no_tag_is_no_version() -> None:
    assert Version.find(None) is None


def test_it_is_no_text_and_orders_with_nothing_else() -> None:
    assert Version("2025.07.0") != "2025.07.0"
    with pytest.raises(TypeError):
        assert Version("2025.07.0") < "2025.08.0"  # type: ignore[operator]


def test_in_a_model_it_is_its_text() -> None:
    class Wish(BaseModel):
        to: Version

    wish = Wish.model_validate_json('{"to": "2026.04.01"}')
    assert wish.model_dump(mode="json") == {"to": "2026.04.01"}
    assert Wish(to=Version("2026.04.01")) == wish
    assert pickle.loads(pickle.dumps(Version("2026.04.01"))).text == "2026.04.01"  # noqa: S301 - its own bytes


def test_a_line_is_a_year_and_a_month() -> None:
    assert Version("2026.04.01").line == Version("2026.4.10").line == (2026, 4)
