"""The names of backups."""

from datetime import date

import pytest

from tasks.database.naming import archive_name, next_number

DAY = date(2026, 11, 22)


def test_name() -> None:
    assert archive_name("2025.04.3", DAY, 1) == "apinizer-backup--2025.04.3--2026-11-22--01.archive"
    assert archive_name("2025.04.3", DAY, 123).endswith("--123.archive")


@pytest.mark.parametrize("version", ["../../etc/passwd", "a/b", "x--y", "", "ü"])
def test_a_version_is_never_a_path(version: str) -> None:
    name = archive_name(version, DAY, 1)
    assert "/" not in name
    assert name.count("--") == 3
    assert next_number(version, DAY, [name]) == 2


@pytest.mark.parametrize(
    ("taken", "number"),
    [
        ([], 1),
        (["apinizer-backup--2025.04.3--2026-11-22--01.archive"], 2),
        (["apinizer-backup--2025.04.3--2026-11-22--07.archive"], 8),
        (["apinizer-backup--2025.04.3--2026-11-22--01.archive.json"], 2),
        ([".apinizer-backup--2025.04.3--2026-11-22--02.archive.partial"], 3),
        (["apinizer-backup--2025.04.3--2026-11-21--09.archive"], 1),
        (["apinizer-backup--2025.04.30--2026-11-22--09.archive"], 1),
        (["apinizer-backup--2025.04.3--2026-11-22--99.archive"], 100),
        (["notes.txt", "apinizer-backup--2025.04.3--2026-11-22--xx.archive"], 1),
    ],
)
def test_next_number(taken: list[str], number: int) -> None:
    assert next_number("2025.04.3", DAY, taken) == number
