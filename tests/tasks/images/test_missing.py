"""What a target lacks, over every form in which it may hold a layer; and whether it has the room."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.domain.errors import BlockedError
from tasks.images.media import DOCKER_LAYER, OCI_LAYER_GZIP
from tasks.images.missing import need_of, nothing_to_do, require_space
from tasks.images.model import Descriptor, HeldBlob, Holdings, Image, Layer, Platform, digest_of

CASES = yaml.safe_load((Path(__file__).parent / "tables" / "missing.yaml").read_text())
LINUX = Platform("linux", "amd64")


def digest(text: str) -> str:
    return digest_of(text.encode())


def layer(text: str) -> Layer:
    diff, form, size = text.split()
    if form == "unread":
        return Layer(digest(diff), None, int(size))
    return Layer(digest(diff), blob(diff, form, int(size)))


def blob(diff: str, form: str, size: int) -> Descriptor:
    plain = form == "plain"
    return Descriptor(DOCKER_LAYER if plain else OCI_LAYER_GZIP, digest(diff if plain else f"{diff} gzip"), size)


def image(name: str, config: str, layers: list[str]) -> Image:
    return Image(
        name, name, LINUX, digest(config), tuple(layer(each) for each in layers), config_content=config.encode()
    )


def held(text: str) -> HeldBlob:
    diff, form, size, *noted = text.split()
    one = blob(diff, form, int(size))
    return HeldBlob(one.digest, one.size, diff_id=digest(diff) if noted else "")


def holdings(told: dict[str, Any]) -> Holdings:
    blobs = [held(each) for each in told.get("blobs", [])]
    return Holdings(
        blobs={each.digest: each for each in blobs},
        names={name: digest(config) for name, config in told.get("names", {}).items()},
        whole_layers=told.get("whole_layers", False),
    )


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_what_is_missing(case: dict[str, Any]) -> None:
    images = [image(name, **told) for name, told in case["images"].items()]
    need, expected = need_of(images, holdings(case["holds"])), case["need"]
    assert need.complete == set(expected["complete"])
    assert need.layers == {digest(each) for each in expected["layers"]}
    assert need.configs == {digest(each) for each in expected["configs"]}
    forms = {diff: digest(diff if form == "plain" else f"{diff} gzip") for diff, form in expected["reuse"].items()}
    assert {diff_id: one.digest for diff_id, one in need.reuse.items()} == {
        digest(diff): one for diff, one in forms.items()
    }
    assert need.size == expected["size"]
    assert nothing_to_do(need, images) == (len(expected["complete"]) == len(images))


def test_the_form_that_a_target_reuses_is_told_whole() -> None:
    told = need_of([image("worker", "w", ["base plain 300"])], holdings({"blobs": ["base gzip 100 noted"]}))
    assert told.reuse[digest("base")] == Descriptor(OCI_LAYER_GZIP, digest("base gzip"), 100)


@pytest.mark.parametrize(
    ("layers", "room"),
    [(["base plain 1000"], 2000), (["base gzip 1000"], 4000), (["base unread 1000"], 2000), (["base unread 0"], 0)],
)
def test_the_room_counts_what_layers_unpack_to(layers: list[str], room: int) -> None:
    need = need_of([image("worker", "w", layers)], Holdings())
    assert need.room == room
    require_space(need, Holdings(free=room * 110 // 100), "node-a")
    require_space(need, Holdings(free=None), "node-a")
    if room:
        with pytest.raises(BlockedError) as raised:
            require_space(need, Holdings(free=room * 110 // 100 - 1), "node-a")
        assert "node-a" in raised.value.happened


def test_what_is_held_needs_no_room() -> None:
    need = need_of([image("worker", "w", ["base gzip 1000"])], holdings({"blobs": ["base gzip 1000"]}))
    require_space(need, Holdings(free=0), "node-a")
