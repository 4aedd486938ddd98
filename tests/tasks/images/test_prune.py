"""What may be removed from the nodes, by tables (prune/*.yaml), and that nothing in use ever is (properties)."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.database.catalogue import Backup
from tasks.domain.errors import BlockedError
from tasks.domain.version import Version
from tasks.images.prune import HeldImage, ImageUse, Stay, Verdict, to_remove
from tasks.images.pruning import versions_of_backups

CASES = [
    pytest.param(case, id=case["name"])
    for case in yaml.safe_load((Path(__file__).parent / "prune" / "verdicts.yaml").read_text())
]
KNOWN = {"name", "held", "present", "needed", "used", "repositories", "keep", "goes", "stays", "refused"}


def full(name: str) -> str:
    return name if "/" in name or name.startswith("sha256:") else f"docker.io/apinizercloud/{name}"


def short(image: HeldImage) -> str:
    return " ".join(name.removeprefix("docker.io/apinizercloud/") if "@" not in name else name for name in image.names)


def image_of(text: Any, number: int) -> HeldImage:
    if isinstance(text, dict):
        return HeldImage(f"sha256:{text['digest']}", tuple(map(full, text["names"])))
    names = [text] if isinstance(text, str) else text
    return HeldImage(f"sha256:{number:064x}", tuple(map(full, names)))


def judged(case: dict[str, Any]) -> dict[str, tuple[Verdict, ...]]:
    held = {node: [image_of(t, n) for n, t in enumerate(images)] for node, images in case["held"].items()}
    used = case.get("used", [])
    return dict(
        to_remove(
            held,
            ImageUse(
                {name: "in use" for name in used if "/" in name},
                {f"sha256:{d}": "in use" for d in used if "/" not in d},
            ),
            Stay(
                present=frozenset(Version(str(v)) for v in case["present"]),
                needed={Version(str(v)): why for v, why in case.get("needed", {}).items()},
                repositories=frozenset(case.get("repositories", [])),
                keep=case.get("keep", 0),
            ),
        )
    )


@pytest.mark.parametrize("case", CASES)
def test_what_goes_and_why_the_rest_stays(case: dict[str, Any]) -> None:
    assert case.keys() <= KNOWN
    if "refused" in case:
        with pytest.raises(BlockedError, match=case["refused"]):
            judged(case)
        return
    verdicts = judged(case)
    assert set(verdicts) == set(case["held"])
    for outcome, goes in (("goes", True), ("stays", False)):
        seen = {n: {short(v.image): v.why for v in found if v.goes is goes} for n, found in verdicts.items()}
        wanted = {node: case.get(outcome, {}).get(node, {}) for node in verdicts}
        assert {n: set(found) for n, found in seen.items()} == {n: set(found) for n, found in wanted.items()}
        for node, parts in wanted.items():
            for name, part in parts.items():
                assert part in seen[node][name]
                assert seen[node][name]


VERSIONS = [f"202{year}.{month:02}.{patch}" for year in (4, 5) for month in (1, 7, 11) for patch in (0, 3)]
NAMES = st.sampled_from([f"docker.io/apinizercloud/{r}:{v}" for r in ("worker", "cache") for v in VERSIONS])
IMAGES = st.lists(
    st.builds(
        HeldImage,
        st.integers(0, 15).map(lambda n: f"sha256:{n:064x}"),
        st.lists(NAMES, min_size=1, unique=True).map(tuple),
    ),
    max_size=8,
)


@settings(deadline=None)  # a machine that is busy is no failure
@given(
    held=st.dictionaries(st.sampled_from("abc"), IMAGES),
    used=st.frozensets(NAMES, max_size=5),
    digests=st.frozensets(st.integers(0, 15).map(lambda n: f"sha256:{n:064x}"), max_size=3),
    present=st.frozensets(st.sampled_from(VERSIONS), min_size=1, max_size=2),
    keep=st.integers(0, 3),
)
def test_never_one_in_use_nor_the_way_back(
    held: dict[str, list[HeldImage]], used: frozenset[str], digests: frozenset[str], present: frozenset[str], keep: int
) -> None:
    versions = frozenset(map(Version, present))
    use = ImageUse(dict.fromkeys(used, "used"), dict.fromkeys(digests, "used"))
    verdicts = to_remove(held, use, Stay(versions, keep=keep))
    assert {node: len(found) for node, found in verdicts.items()} == {
        node: len(images) for node, images in held.items()
    }
    every = [v for found in verdicts.values() for v in found]
    gone = [v.image for v in every if v.goes]
    assert not any(set(image.names) & used or image.digest in digests for image in gone)
    named = {Version(name.rpartition(":")[2]) for v in every for name in v.image.names}
    going = {Version(name.rpartition(":")[2]) for image in gone for name in image.names}
    oldest = min(versions)
    assert all(version < oldest for version in going)
    older = sorted((version for version in named if version < oldest), reverse=True)
    # The release before the present one, and as many more as were asked for.
    assert not going & set(older[: 1 + keep])


def backup(version: str, *, proved: bool = True) -> Backup:
    return Backup(
        archive=Path(f"apinizer-backup--{version}.archive"),
        version=version,
        taken=datetime(2026, 1, 1, tzinfo=UTC),
        size=1,
        manifest=None,
        proved=proved,
        problem="",
    )


@pytest.mark.parametrize(
    ("newest_first", "needed"),
    [
        pytest.param([], [], id="none"),
        pytest.param([backup("2025.07.0"), backup("2025.04.3"), backup("2025.01.0")], ["2025.04.3"], id="of before"),
        pytest.param([backup("2025.04.3", proved=False), backup("2025.01.0")], ["2025.01.0"], id="a proved one"),
        pytest.param([backup("2025.07.0")], [], id="of the present one"),
        pytest.param([backup("2025.11.1"), backup("unknown")], [], id="no way back"),
    ],
)
def test_the_version_of_the_newest_backup_that_can_be_gone_back_to(
    newest_first: list[Backup], needed: list[str]
) -> None:
    found = versions_of_backups(newest_first, frozenset({Version("2025.07.0")}))
    assert [str(version) for version in found] == needed
    assert versions_of_backups(newest_first, frozenset()) == {}
