"""Platforms, and manifests, configs and indexes read with their checks."""

import json
from typing import Any

import pytest

from tasks.domain.errors import BlockedError, UnprovenError, UsageError
from tasks.images.manifest import choose_platform, image_of, is_index, parse_config, parse_index, parse_manifest
from tasks.images.media import (
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
)
from tasks.images.model import Descriptor, Platform, digest_of

AMD, ARM = Platform("linux", "amd64"), Platform("linux", "arm64", "v8")
LAYER = Descriptor(OCI_LAYER_GZIP, digest_of(b"layer"), 5)


def config(**more: Any) -> bytes:
    diff_ids = [digest_of(b"plain")]
    told = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    return json.dumps({**told, **more}).encode()


def manifest(kind: str = OCI_MANIFEST, layers: list[Any] | None = None, **more: Any) -> bytes:
    own = Descriptor(OCI_CONFIG, digest_of(config()), len(config()))
    told = {"schemaVersion": 2, "mediaType": kind, "config": own.as_json()}
    return json.dumps({**told, "layers": [LAYER.as_json()] if layers is None else layers, **more}).encode()


def index(*platforms: str, kind: str = OCI_INDEX) -> bytes:
    entries = []
    for text in platforms:
        entry: dict[str, Any] = Descriptor(OCI_MANIFEST, digest_of(text.encode()), 1).as_json()
        if text:
            parts = text.split("/")
            entry["platform"] = dict(zip(("os", "architecture", "variant"), parts, strict=False))
        entries.append(entry)
    return json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()


@pytest.mark.parametrize(
    ("one", "other", "fits"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/amd64", "linux/arm64", False),
        ("linux/amd64", "windows/amd64", False),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm/v6", "linux/arm/v7", False),
        ("linux/arm/v7", "linux/arm/v7", True),
    ],
)
def test_which_platforms_fit(one: str, other: str, fits: bool) -> None:  # noqa: FBT001
    assert Platform.parse(one).matches(Platform.parse(other)) is fits
    assert str(Platform.parse(one)) == one


@pytest.mark.parametrize("text", ["", "linux", "linux/", "linux/arm/v7/x", "/amd64"])
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(UsageError):
        Platform.parse(text)


def test_an_image_is_read_from_its_manifest_and_config() -> None:
    image = image_of("docker.io/a/b:1", "a/b:1", manifest(), config(), manifest_digest="sha256:" + "9" * 64)
    assert image.config == digest_of(config())
    assert image.diff_ids == (digest_of(b"plain"),)
    assert image.layers[0].blob == LAYER
    assert image.platform == AMD
    assert image.manifest_digest == "sha256:" + "9" * 64
    assert image.manifest_descriptor == Descriptor(OCI_MANIFEST, digest_of(manifest()), len(manifest()))
    assert image.named("x/y:2").name == "x/y:2"


@pytest.mark.parametrize("own", [OCI_CONFIG, DOCKER_CONFIG])
def test_a_manifest_that_does_not_tell_its_media_type(own: str) -> None:
    document = json.loads(manifest())
    del document["mediaType"]
    document["config"]["mediaType"] = own
    content = json.dumps(document).encode()
    expected = OCI_MANIFEST if own == OCI_CONFIG else DOCKER_MANIFEST
    assert parse_manifest(content).media_type == expected
    told = image_of("n", "o", content, config()).manifest_descriptor
    assert told is not None
    assert told.media_type == expected


def test_docker_schema_2_is_read() -> None:
    layer = Descriptor(DOCKER_LAYER_GZIP, digest_of(b"layer"), 5)
    content = manifest(DOCKER_MANIFEST, [layer.as_json()])
    assert parse_manifest(content).layers == (layer,)
    assert parse_manifest(content).media_type == DOCKER_MANIFEST


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps({"schemaVersion": 1, "fsLayers": []}).encode(), "schema 1"),
        (manifest(layers=[{**LAYER.as_json(), "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}]), "distributed"),
        (manifest(layers=[{**LAYER.as_json(), "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar"}]), "distributed"),
        (manifest(layers=[{**LAYER.as_json(), "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"}]), "encrypted"),
        (manifest(layers=[{**LAYER.as_json(), "mediaType": "application/x-what"}]), "unknown"),
        (manifest(config={**LAYER.as_json(), "mediaType": "application/vnd.cncf.helm.config.v1+json"}), "no container image"),
    ],
)  # fmt: skip
def test_manifests_that_nobody_can_carry(content: bytes, said: str) -> None:
    with pytest.raises(BlockedError) as raised:
        parse_manifest(content, "a/b:1")
    assert "a/b:1" in raised.value.happened
    assert said in raised.value.observed


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        b"[]",
        b"[" * 100_000,
        b"{}",
        b'{"schemaVersion": 2}',
        index("linux/amd64"),
        manifest(layers="none"),
        manifest(layers=[None]),
        manifest(layers=[{**LAYER.as_json(), "digest": "sha512:" + "0" * 128}]),
        manifest(layers=[{**LAYER.as_json(), "digest": "sha256:" + "A" * 64}]),
        manifest(layers=[{**LAYER.as_json(), "size": -1}]),
        manifest(layers=[{**LAYER.as_json(), "size": "5"}]),
        manifest(layers=[{**LAYER.as_json(), "size": True}]),
        manifest(layers=[LAYER.as_json()] * 2000),
        manifest(padding="x" * 5_000_000),
    ],
)
def test_manifests_that_are_none(content: bytes) -> None:
    with pytest.raises(UnprovenError):
        parse_manifest(content)


@pytest.mark.parametrize(
    "content",
    [b"{}", config(rootfs={}), config(rootfs={"diff_ids": ["x"]}), config(os=""), config(architecture=7), b"\xff"],
)
def test_configs_that_are_none(content: bytes) -> None:
    with pytest.raises(UnprovenError):
        parse_config(content)


def test_a_config_that_is_not_the_manifests() -> None:
    with pytest.raises(UnprovenError) as raised:
        image_of("n", "a/b:1", manifest(), config(author="another"))
    assert digest_of(config()) in raised.value.observed


def test_as_many_layers_as_the_config_names() -> None:
    with pytest.raises(UnprovenError):
        image_of("n", "a/b:1", manifest(layers=[LAYER.as_json()] * 2), config())


def test_an_image_for_another_platform() -> None:
    with pytest.raises(BlockedError) as raised:
        image_of("n", "a/b:1", manifest(), config(), platform=ARM)
    assert "linux/amd64" in raised.value.observed


@pytest.mark.parametrize("kind", [OCI_INDEX, DOCKER_INDEX])
@pytest.mark.parametrize(
    ("platforms", "wanted", "chosen"),
    [
        (["linux/arm64/v8", "linux/amd64"], None, "linux/amd64"),
        (["linux/arm64/v8"], None, "linux/arm64/v8"),
        (["linux/arm64/v8", "unknown/unknown"], None, "linux/arm64/v8"),
        (["linux/amd64", "linux/arm64/v8"], "linux/arm64", "linux/arm64/v8"),
        (["linux/arm/v6", "linux/arm/v7"], "linux/arm/v7", "linux/arm/v7"),
        ([""], None, ""),
    ],
)
def test_the_platform_of_an_index(kind: str, platforms: list[str], wanted: str | None, chosen: str) -> None:
    content = index(*platforms, kind=kind)
    platform = Platform.parse(wanted) if wanted else None
    assert is_index(content)
    assert choose_platform(content, platform).digest == digest_of(chosen.encode())


@pytest.mark.parametrize("platforms", [[], ["linux/amd64"], ["unknown/unknown"], [""]])
def test_a_platform_that_the_index_lacks(platforms: list[str]) -> None:
    with pytest.raises(BlockedError) as raised:
        choose_platform(index(*platforms), ARM, "a/b:1")
    assert "a/b:1 does not exist for linux/arm64/v8" in raised.value.happened


def test_the_content_says_whether_it_is_an_index() -> None:
    assert not is_index(manifest(), OCI_INDEX)
    assert is_index(b'{"schemaVersion": 2, "manifests": []}', "text/plain")
    assert not is_index(b'{"schemaVersion": 2, "layers": []}')
    with pytest.raises(UnprovenError):
        parse_index(manifest())
