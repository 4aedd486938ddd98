"""Every error of images that reaches a person has its four parts where it is made."""

import ast
from pathlib import Path

import pytest

from tasks.domain import errors

ROOT = Path(__file__).parents[3]
# A `StoppedError` is told by the run that was stopped.
NAMES = {
    name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, errors.UpgradeError)
}
FILES = [
    *(ROOT / "tasks" / "images").rglob("*.py"),
    *(ROOT / "deployments" / "cli").glob("images_*.py"),
    ROOT / "blocks" / "image_settings.py",
]


def lacking(file: Path) -> list[str]:
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    made = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id in NAMES - {"StoppedError"}]
    parts = {"observed", "next"}
    return [f"{file.name}:{call.lineno}" for call in made if not parts <= {word.arg for word in call.keywords}]


@pytest.mark.parametrize("folder", sorted({file.parent for file in FILES}), ids=lambda folder: folder.name)
def test_no_part_is_left_out(folder: Path) -> None:
    assert [place for file in FILES if file.parent == folder for place in lacking(file)] == []
