"""What `docker load` is given: names as Docker has them, and an archive that an engine takes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.images.model import DEFAULT_PLATFORM, Image, Layer
from tasks.images.saved.writer import TAR_END, config_file, familiar, layer_head, manifest_file, padding
from tests.tasks.images.engine.standin import Engine, RefusedError, sha


@pytest.mark.parametrize(
    ("full", "short"),
    [
        ("docker.io/apinizercloud/worker:2025.07.0", "apinizercloud/worker:2025.07.0"),
        ("docker.io/library/mongo:6", "mongo:6"),
        ("docker.io/library/a/b:1", "library/a/b:1"),
        ("nexus.local:5000/apinizercloud/worker:1", "nexus.local:5000/apinizercloud/worker:1"),
        ("nexus.local/library/worker:1", "nexus.local/library/worker:1"),
    ],
)
def test_names_as_docker_writes_them(full: str, short: str) -> None:
    assert familiar(full) == short


def archive_of(images: list[Image], configs: dict[str, bytes], layers: list[bytes]) -> bytes:
    files = [layer_head(sha(layer), len(layer)) + layer + padding(len(layer)) for layer in layers]
    files += [config_file(digest, content) for digest, content in configs.items()]
    return b"".join([*files, manifest_file(images), TAR_END])


def plain_layers(most: int) -> st.SearchStrategy[bytes]:
    """An engine unpacks what begins as gzip or zstd does; a layer that is a tar archive begins with a file's name."""
    return st.binary(max_size=most).map(lambda content: b"name" + content)


@settings(deadline=None, max_examples=50)
@given(
    shared=st.lists(plain_layers(3000), min_size=1, max_size=3, unique=True),
    own=st.lists(plain_layers(1000), min_size=1, max_size=3),
)
def test_an_engine_takes_it_with_and_without_the_layers_that_it_has(shared: list[bytes], own: list[bytes]) -> None:
    source, target = Engine(), Engine()
    images = []
    for number, layer in enumerate(own):
        name = f"docker.io/a/b{number}:1"
        config = source.add(name, [*shared, layer])
        diff_ids = tuple(Layer(sha(each)) for each in (*shared, layer))
        images.append(Image(name, name, DEFAULT_PLATFORM, config, diff_ids))
    layers = {sha(each): each for each in (*shared, *own)}
    target.load(archive_of(images, source.configs, list(layers.values())))
    assert target.tags == {image.name: image.config for image in images}

    target.configs.clear()
    target.tags.clear()
    target.load(archive_of(images[:1], source.configs, []))
    assert target.tags == {images[0].name: images[0].config}
    with pytest.raises(RefusedError, match="no such file"):
        Engine().load(archive_of(images, source.configs, list(layers.values())[1:]))
