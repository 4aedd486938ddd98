"""When a target counts as holding an image, and when a tag counts as moved."""

from dataclasses import replace

import pytest

from tasks.domain.errors import DriftError, UnprovenError
from tasks.images.model import Image, Platform, Proof, digest_of
from tasks.images.proof import Found, judge, require_same

LINUX = Platform("linux", "amd64")
WORKER, CACHE = (
    Image(f"docker.io/a/{one}:1", f"a/{one}:1", LINUX, digest_of(one.encode()), ()) for one in ("worker", "cache")
)


def test_each_image_has_its_proof_in_order() -> None:
    found = {
        CACHE.name: Found(CACHE.config, "sha256:c", pinned=True),
        WORKER.name: Found(WORKER.config),
        "another": Found(""),
    }
    assert judge("node-a", [WORKER, CACHE], found) == (
        Proof("node-a", WORKER.name, WORKER.config, "", pinned=False),
        Proof("node-a", CACHE.name, CACHE.config, "sha256:c", pinned=True),
    )


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({}, f"{CACHE.name}: expected {CACHE.config}, found none"),
        ({CACHE.name: Found("sha256:other")}, f"{CACHE.name}: expected {CACHE.config}, found sha256:other"),
        ({CACHE.name: Found("")}, "no config"),
        ({CACHE.name: Found(CACHE.config, lacks=("sha256:x", "sha256:y"))}, "2 of its blobs are missing"),
    ],
)
def test_unproven_is_not_held(found: dict[str, Found], said: str) -> None:
    with pytest.raises(UnprovenError) as raised:
        judge("node-a", [WORKER, CACHE], {WORKER.name: Found(WORKER.config), **found})
    assert said in raised.value.observed
    assert "node-a" in raised.value.happened
    assert WORKER.name not in raised.value.observed


def test_every_fault_is_told() -> None:
    with pytest.raises(UnprovenError) as raised:
        judge("node-a", [WORKER, CACHE], {})
    assert "2 images" in raised.value.happened
    assert len(raised.value.observed.splitlines()) == 2


def test_a_tag_that_moved_since_the_plan() -> None:
    require_same([WORKER], [WORKER, CACHE])
    with pytest.raises(DriftError) as raised:
        require_same([replace(WORKER, config="sha256:planned"), CACHE], [WORKER, CACHE])
    assert raised.value.observed == f"{WORKER.origin}: now {WORKER.config}, planned sha256:planned"


def test_another_name_at_the_source_that_leads_to_another_image() -> None:
    other = replace(WORKER, origin="nexus.local:5/a/worker:1")
    require_same([WORKER], [other])
    with pytest.raises(DriftError) as raised:
        require_same([WORKER], [replace(other, config="sha256:other")])
    assert f"{other.origin}: now sha256:other" in raised.value.observed
    assert f"from {WORKER.origin}" in raised.value.observed
