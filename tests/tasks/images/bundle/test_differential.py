"""A bundle without what the site holds; and the lists by which the connected side knows that."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from blocks.image_settings import ImageSourceSettings
from tasks.domain.errors import UsageError
from tasks.domain.reference import ImageReference
from tasks.images.bundle import Base, BundleSource, HeldList, MissingBaseError, read_held, verify_bundle, write_bundle
from tasks.images.missing import need_of
from tasks.images.model import HeldBlob, Holdings, Image
from tasks.images.opening import Opened
from tasks.images.staging import weigh
from tasks.images.surveying import Look
from tests.tasks.images.bundle.shelf import AT, Shelf, everything, layer_of, release

BOTH = pytest.mark.parametrize("engine", [True, False])


def two_releases(*, engine: bool) -> tuple[Shelf, tuple[Image, ...], tuple[Image, ...]]:
    shelf = Shelf(engine)
    return shelf, release(shelf, "2025.04.3"), release(shelf, "2025.07.0")


def holding(shelf: Shelf, images: tuple[Image, ...], *, plain: bool) -> Holdings:
    """A node that holds these images, from an engine (plain layers) or from a registry."""
    blobs = {}
    for diff_id in {diff_id for image in images for diff_id in image.diff_ids}:
        blob = shelf.descriptor(diff_id)
        digest = diff_id if plain else blob.digest
        blobs[digest] = HeldBlob(digest, blob.size, blob.media_type, "" if plain else diff_id)
    configs = {image.config: HeldBlob(image.config, 100) for image in images}
    return Holdings({**blobs, **configs}, {image.name: image.config for image in images})


@BOTH
def test_layers_of_the_base_are_left_out_and_named(tmp_path: Path, *, engine: bool) -> None:
    shelf, old, new = two_releases(engine=engine)
    base = layer_of(b"base")
    facts = write_bundle(
        shelf, new, tmp_path, version="2025.07.0", made_at=AT, held=Base.of_images("2025.04.3", old), compress="none"
    )
    assert Path(facts.path).name == "apinizer-images--2025.07.0--since-2025.04.3.tar"
    (left_out,) = facts.left_out
    assert left_out.diff_id == new[0].diff_ids[0]
    assert left_out.descriptor == shelf.descriptor(left_out.diff_id)
    assert facts.base is not None
    assert facts.base.version == "2025.04.3"
    assert facts.base.images[1] == "docker.io/apinizercloud/worker:2025.04.3"
    verified = verify_bundle(Path(facts.path))
    assert (verified.base, verified.left_out) == (facts.base, facts.left_out)
    whole = write_bundle(shelf, new, tmp_path / "whole", version="2025.07.0", made_at=AT, compress="none")
    if engine:
        assert whole.size - facts.size > len(base) * 0.9


@BOTH
@pytest.mark.parametrize("plain", [True, False])
def test_it_serves_a_site_that_holds_the_base_in_whatever_form(tmp_path: Path, *, engine: bool, plain: bool) -> None:
    shelf, old, new = two_releases(engine=engine)
    write_bundle(shelf, new, tmp_path / "b", version="2025.07.0", made_at=AT, held=Base.of_images("2025.04.3", old))
    with BundleSource(tmp_path / "b") as source:
        need = need_of(source.images, holding(shelf, old, plain=plain))
        source.require({"node-a": need})
        came = everything(source.read(source.images, need.layers))
        assert need.layers == frozenset(d for image in new for d in image.diff_ids) - frozenset(old[0].diff_ids[:1])
        assert {one.diff_id for one in source.verify().left_out}.isdisjoint(came)
        assert len(came) == len(need.layers) + len(new)


def test_a_site_without_the_base_is_told_so_and_gets_nothing(tmp_path: Path) -> None:
    shelf, old, new = two_releases(engine=True)
    write_bundle(shelf, new, tmp_path / "b", version="2025.07.0", made_at=AT, held=Base.of_images("2025.04.3", old))
    with BundleSource(tmp_path / "b") as source:
        needs = {
            "node-a": need_of(source.images, holding(shelf, old, plain=True)),
            "node-b": need_of(source.images, Holdings()),
            "node-c": need_of(source.images, Holdings()),
        }
        with pytest.raises(MissingBaseError) as caught:
            source.require(needs)
        text = str(caught.value)
        assert "2025.04.3" in text
        assert "node-b lacks 1" in text
        assert "node-c lacks 1" in text
        assert "node-a" not in text
        assert caught.value.exit_code == 3
        with pytest.raises(MissingBaseError, match=r"2025\.04\.3"):
            next(source.read(source.images, needs["node-b"].layers))


@pytest.mark.parametrize("lacking", [True, False])
def test_a_run_asks_the_bundle_before_it_sends_anything(tmp_path: Path, *, lacking: bool) -> None:
    shelf, old, new = two_releases(engine=False)
    write_bundle(shelf, new, tmp_path / "b", version="2025.07.0", made_at=AT, held=Base.of_images("2025.04.3", old))
    opened = Opened(
        ImageSourceSettings.model_validate({"way": "bundle-to-nodes", "source": {"bundle": str(tmp_path / "b")}})
    )
    images = opened.source().find([ImageReference.parse(image.name) for image in new], None)
    held = Holdings() if lacking else holding(shelf, old, plain=False)
    look = Look("node-b", "node-b (containerd)", images, held, need_of(images, held))
    try:
        if lacking:
            with pytest.raises(MissingBaseError, match=r"node-b \(containerd\) lacks 1"):
                weigh(opened, [look])
        else:
            assert weigh(opened, [look]) == (look,)
    finally:
        opened.close()


def test_a_list_counts_what_all_targets_hold(tmp_path: Path) -> None:
    shelf, old, new = two_releases(engine=False)
    only_one = holding(shelf, new[:1], plain=False)
    nodes = {
        "node-a (containerd)": holding(shelf, old, plain=True),
        "node-b (containerd)": _both(holding(shelf, old, plain=False), only_one),
    }
    held = HeldList.of(nodes, AT)
    assert held.targets == ["node-a (containerd)", "node-b (containerd)"]
    assert set(held.diff_ids) == {d for i in old for d in i.diff_ids} | {i.config for i in old}
    assert held.names == {image.name: image.config for image in old}

    (tmp_path / "held").write_text(held.as_json())
    again = read_held(tmp_path / "held")
    assert again == held
    facts = write_bundle(shelf, new, tmp_path, version="2025.07.0", made_at=AT, held=Base.of_list(again))
    assert Path(facts.path).name == "apinizer-images--2025.07.0--since-held.tar"
    assert [one.diff_id for one in facts.left_out] == [old[0].diff_ids[0]]
    with BundleSource(Path(facts.path)) as source:
        for holdings in nodes.values():
            source.require({"node": need_of(source.images, holdings)})
        with pytest.raises(MissingBaseError, match="against a list"):
            source.require({"node-c": need_of(source.images, Holdings())})


def _both(one: Holdings, other: Holdings) -> Holdings:
    return Holdings({**one.blobs, **other.blobs}, {**one.names, **other.names})


def test_an_engine_that_needs_whole_layers_lets_nothing_be_left_out() -> None:
    shelf, old, _ = two_releases(engine=True)
    held = holding(shelf, old, plain=True)
    docker = Holdings(held.blobs, held.names, whole_layers=True)
    assert HeldList.of({"a": held, "d": docker}, AT).diff_ids == []
    assert HeldList.of({}, AT).digests == []


@BOTH
def test_all_layers_left_out(tmp_path: Path, *, engine: bool) -> None:
    shelf, _, new = two_releases(engine=engine)
    facts = write_bundle(
        shelf, new, tmp_path / "b", version="2025.07.0", made_at=AT, held=Base.of_images("2025.07.0", new)
    )
    assert len(facts.left_out) == 7
    with BundleSource(tmp_path / "b") as source:
        need = need_of(source.images, holding(shelf, new, plain=False))
        source.require({"node-a": need})


GOOD: Mapping[str, object] = {
    "format": "apinizer-upgrade/held/1", "made_at": "2025-07-01T00:00:00Z", "targets": ["a"],
    "names": {}, "diff_ids": ["sha256:" + "0" * 64], "digests": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "JSON"),
        ("no json", "JSON"),
        ("[]", "object"),
        (json.dumps({**GOOD, "format": "apinizer-upgrade/held/2"}), "format"),
        (json.dumps({**GOOD, "diff_ids": ["sha256:xyz"]}), "diff_ids"),
        (json.dumps({**GOOD, "more": 1}), "more"),
        (json.dumps({key: value for key, value in GOOD.items() if key != "digests"}), "digests"),
    ],
)
def test_bad_lists(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / "held").write_text(json.dumps(GOOD))
    assert read_held(tmp_path / "held").targets == ["a"]
    (tmp_path / "held").write_text(content)
    with pytest.raises(UsageError, match="not a list of what a site holds") as caught:
        read_held(tmp_path / "held")
    assert why in caught.value.observed
    assert "images status --held" in caught.value.next


def test_no_list(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(UsageError, match="not a list"):
            read_held(path)
