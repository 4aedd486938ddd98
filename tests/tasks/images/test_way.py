"""The ways: where each begins and ends, and what it stands for."""

from dataclasses import replace

import pytest

from blocks.image_settings import FromSettings, ImageSourceSettings, by_way
from tasks.domain.errors import BlockedError, UsageError
from tasks.domain.placement import NodeFacts
from tasks.domain.way import Way
from tasks.images.opening import Opened, remote_for_node, runtime_of, source_for


def test_every_source_goes_to_every_target() -> None:
    assert {(way.source, way.target) for way in Way if way.source} == {
        (source, target)
        for source in ("docker", "containerd", "registry", "bundle")
        for target in ("nodes", "registry")
    }
    assert {way for way in Way if not way.source} == {Way.ONLINE, Way.PROXY}
    assert all(way.replaces for way in Way)


def settings(way: Way, **more: object) -> ImageSourceSettings:
    source = FromSettings(bundle="/no/such.tar")
    inside = {"kind": "registry", "prefix": "h:5/a"} if way.target == "registry" else {}
    return ImageSourceSettings.model_validate({"way": way, "source": source, **inside, **more})


@pytest.mark.parametrize("way", [way for way in Way if way.source])
def test_opening_asks_nothing(way: Way) -> None:
    opened = Opened(settings(way))
    assert opened.source().where
    assert (
        opened.registry() if way.target == "registry" else opened.target(NodeFacts("n", runtime="docker://24"))
    ).where
    opened.close()


def test_a_way_that_moves_nothing_has_no_source() -> None:
    with pytest.raises(UsageError, match="moves no images") as raised:
        source_for(settings(Way.ONLINE))
    assert "docker-to-nodes" in raised.value.next


def test_another_way_is_checked_with_the_rest() -> None:
    given = settings(Way.ONLINE)
    assert by_way(given, None) == given
    assert by_way(given, Way.BUNDLE_TO_NODES, bundle="b.tar").source.bundle == "b.tar"
    with pytest.raises(UsageError, match="needs a bundle"):
        by_way(ImageSourceSettings(), Way.BUNDLE_TO_NODES)
    unnamed = ImageSourceSettings(way=Way.BUNDLE_TO_NODES)  # the file may be named for each run
    assert by_way(unnamed, None, bundle="b.tar").source.bundle == "b.tar"
    with pytest.raises(UsageError, match="needs a bundle"):
        source_for(unnamed)
    with pytest.raises(UsageError, match="docker-to-registry") as raised:
        by_way(given, Way.DOCKER_TO_REGISTRY)
    assert "needs the kind registry" in raised.value.observed


NODE = NodeFacts("n1", addresses=(("Hostname", "n1.local"), ("InternalIP", "10.0.0.1")), runtime="containerd://1.6.20")


def test_how_a_node_is_reached() -> None:
    access = {
        "user": "ops",
        "jump": "bastion",
        "named": [{"name": "n2", "host": "alias", "port": 2022, "user": "root"}],
    }
    given = settings(Way.DOCKER_TO_NODES, nodes=access)
    host = remote_for_node(given, NODE).host
    assert (host.destination, host.user, host.port, host.jump) == ("10.0.0.1", "ops", 0, "bastion")
    host = remote_for_node(given, NodeFacts("n2")).host
    assert (host.destination, host.user, host.port, host.jump) == ("alias", "root", 2022, "bastion")
    assert remote_for_node(given, NodeFacts("n3")).host.destination == "n3"


def test_which_runtime_a_node_has() -> None:
    given = settings(Way.DOCKER_TO_NODES, nodes={"named": [{"name": "n2", "runtime": "docker"}]})
    assert (runtime_of(given, NODE), runtime_of(given, NodeFacts("n2"))) == ("containerd", "docker")
    with pytest.raises(BlockedError, match="cri-o"):
        runtime_of(given, NodeFacts("n4", runtime="cri-o://1.30"))


@pytest.mark.parametrize("nodes", [{"runtime": "docker"}, {"named": [{"name": "n1", "runtime": "docker"}]}])
def test_a_runtime_that_contradicts_the_node_is_refused(nodes: dict[str, object]) -> None:
    given = settings(Way.DOCKER_TO_NODES, nodes=nodes)
    with pytest.raises(BlockedError, match="n1 runs docker") as raised:
        runtime_of(given, NODE)
    assert NODE.runtime in raised.value.observed
    assert runtime_of(given, NodeFacts("n1", runtime="docker://24")) == "docker"


def test_nodes_of_one_name_in_two_clusters_have_a_host_each() -> None:
    named = [
        {"name": "n1", "cluster": "near", "host": "10.1.0.1"},
        {"name": "n1", "cluster": "far", "host": "10.2.0.1"},
        {"name": "n1", "user": "ops"},
    ]
    given = settings(Way.DOCKER_TO_NODES, nodes={"named": named})
    hosts = [remote_for_node(given, replace(NODE, cluster=cluster)).host for cluster in ("near", "far", "third")]
    assert [(host.destination, host.user) for host in hosts] == [
        ("10.1.0.1", ""),
        ("10.2.0.1", ""),
        ("10.0.0.1", "ops"),
    ]
