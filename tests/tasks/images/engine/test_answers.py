"""What an engine's answers mean."""

import pytest

from tasks.domain.reference import ImageReference
from tasks.images.engine.answers import Known, asked_name, by_name, engine_facts, known_image, sizes, usable_layers
from tasks.images.model import DEFAULT_PLATFORM, Image, Layer, Platform

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")


@pytest.mark.parametrize(
    ("word", "platform"),
    [
        ("x86_64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("armv7l", "linux/arm/v7"),
        ("s390x", "linux/s390x"),
    ],
)
def test_platform_of_an_engine(word: str, platform: str) -> None:
    assert engine_facts({"OSType": "linux", "Architecture": word}).platform == Platform.parse(platform)


@pytest.mark.parametrize(
    ("status", "keeps"),
    [
        ([["driver-type", "io.containerd.snapshotter.v1"]], True),
        ([["Backing Filesystem", "extfs"], ["Supports d_type", "true"]], False),
        (None, False),
    ],
)
def test_store_of_an_engine(status: object, keeps: bool) -> None:  # noqa: FBT001 -- a table's column.
    assert engine_facts({"DriverStatus": status}).keeps_blobs is keeps


def test_an_image_with_docker_and_with_podman() -> None:
    """podman leaves out the algorithm of an Id and keeps the full name."""
    docker = {"Id": A, "RepoTags": ["mongo:6"], "RepoDigests": [f"mongo@{B}"], "RootFS": {"Layers": [C]}, "Os": "linux", "Architecture": "amd64"}  # fmt: skip
    podman = {**docker, "Id": A[7:], "RepoTags": ["docker.io/library/mongo:6", "<none>:<none>"], "Size": None}
    for answer in (docker, podman):
        known = known_image(answer)
        assert (known.id, known.diff_ids, known.platform) == (A, (C,), DEFAULT_PLATFORM)
        assert known.names == {"docker.io/library/mongo:6", f"docker.io/library/mongo@{B}"}
        assert by_name(["docker.io/library/mongo:6", A, "docker.io/library/mongo:7"], [known]).keys() == {
            "docker.io/library/mongo:6",
            A,
        }


def test_an_image_without_names_or_layers() -> None:
    known = known_image({"Id": A, "RepoTags": None, "RepoDigests": None, "RootFS": None})
    assert known == Known(A, frozenset(), (), Platform("linux", ""), 0)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("mongo", "docker.io/library/mongo:latest"),
        ("apinizercloud/worker:1", "docker.io/apinizercloud/worker:1"),
        (f"nexus.local:5000/worker:1@{A}", f"nexus.local:5000/worker@{A}"),
    ],
)
def test_name_to_ask_for(text: str, name: str) -> None:
    assert asked_name(ImageReference.parse(text)) == name


@pytest.mark.parametrize(
    ("steps", "layers", "total", "about"),
    [
        ([0, 6, 0, 12, 110], 3, 128, (110, 12, 6)),
        ([6, 110], 3, 120, (40, 40, 40)),
        ([], 2, 0, (0, 0)),
        ([], 0, 10, ()),
    ],
)
def test_sizes_of_layers(steps: list[int], layers: int, total: int, about: tuple[int, ...]) -> None:
    assert sizes([{"Size": step} for step in steps], layers, total) == about


@pytest.mark.parametrize(
    ("held", "lacking", "usable"),
    [
        ([[A, B]], [[A, B, C]], {A, B}),
        ([[A, B]], [[B, A]], set()),
        ([[A, B], [B]], [[A, C, B]], {A}),
        ([[A]], [[A, B], [B, A]], set()),
        ([[A, A]], [[A, A, A]], set()),
        ([[A, A, A]], [[A, A]], {A}),
        ([], [[A]], set()),
    ],
)
def test_layers_that_need_not_be_sent(held: list[list[str]], lacking: list[list[str]], usable: set[str]) -> None:
    """A layer counts where all below it is the same, at every place where it stands."""
    known = [Known("", frozenset(), tuple(diff_ids), DEFAULT_PLATFORM, 0) for diff_ids in held]
    images = [Image("", "", DEFAULT_PLATFORM, "", tuple(map(Layer, diff_ids))) for diff_ids in lacking]
    assert usable_layers(images, known) == usable
