"""Whether a directory outlives the worker: a table of mounts, and this machine's own."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.database.place import judge, on_network, place_of

TABLE = yaml.safe_load((Path(__file__).parent / "tables" / "places.yaml").read_text())


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case["name"])
def test_table(case: dict[str, Any]) -> None:
    marks = case.get("marks", [])
    place = judge(case["directory"], case["mounts"], container="container" in marks, kubernetes="kubernetes" in marks)
    for verdict, said in (("ephemeral", place.ephemeral), ("warning", place.warning)):
        wanted = case.get(verdict, "")
        assert wanted in said
        assert bool(said) == bool(wanted)
        assert not said or case["directory"] in said


def test_this_machine_is_read(tmp_path: Path) -> None:
    place = place_of(tmp_path / "not" / "yet")
    assert place.mount is not None
    assert tmp_path.resolve().is_relative_to(place.mount.point)
    assert place_of(Path("/proc")).mount.kind == "proc"  # type: ignore[union-attr]
    assert not on_network(Path("/proc"))


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc")
    place = place_of(tmp_path / "link")
    assert place.mount is not None
    assert place.mount.kind == "proc"
