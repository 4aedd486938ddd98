"""The images' part of the flows: brought and proved before the manager, or the manager is left alone."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from blocks.image_settings import FromSettings, ImageSourceSettings, SourceRegistrySettings
from blocks.settings import ClusterSettings, InstallationSettings
from deployments.embedded import EmbeddedServer
from tasks.domain.errors import (
    NOTHING_CHANGED,
    BlockedError,
    DriftError,
    ForbiddenError,
    NotFoundError,
    StoppedError,
    UpgradeError,
)
from tasks.domain.way import Way
from tasks.images import session
from tasks.record.feed import Event, State, listening
from tests.flows.test_failures import Once
from tests.flows.world import ALL, MANAGER, NEW, World, archives, eventually
from tests.tasks.images.folder_node import FolderNode, FolderNodes
from tests.tasks.images.registry.served import Faults, Made, Served, served

REPOSITORIES = ("manager", "worker", "cache", "apiportal", "integration")
BASE = os.urandom(200_000)


class Site:
    """A sandbox, a registry on the outside that holds the release, and the site's own, which is empty."""

    def __init__(self, world: World, outside: Served, inside: Served, backups: Path) -> None:
        self.world, self.outside, self.inside, self._backups = world, outside, inside, backups
        self.made = {name: self.put(name) for name in REPOSITORIES}
        for name in REPOSITORIES:
            self.put(name, "2025.11.1")

    def put(self, repository: str, version: str = NEW) -> Made:
        content = f"{repository} {version} ".encode() + os.urandom(20_000)
        return self.outside.put_image(f"apinizercloud/{repository}:{version}", [BASE, content])

    def held(self) -> dict[str, str]:
        """The config that each tag of the site's registry names."""
        return {
            f"{path.partition('/')[2]}:{tag}": self.inside.manifest(f"{path}:{tag}")["config"]["digest"]
            for path, repository in self.inside.repositories.items()
            for tag in repository.tags
        }

    def whole(self) -> bool:
        """Whether the site's registry holds the release as the outside has it."""
        return self.held() == {f"{name}:{NEW}": made.config for name, made in self.made.items()}

    def provide(
        self, way: Way = Way.REGISTRY_TO_REGISTRY, *, parallel: int = 4, folder: str = "apinizer", **more: Any
    ) -> str:
        from blocks.installation import provide

        source = FromSettings(
            prefix=f"{self.outside.host}/apinizercloud", registry=SourceRegistrySettings(insecure=True), **more
        )
        images = ImageSourceSettings(
            kind="registry",
            prefix=f"{self.inside.host}/{folder}",
            insecure=True,
            way=way,
            source=source,
            parallel=parallel,
        )
        clusters = (ClusterSettings(kubeconfig_path=str(self.world.sandbox.kubeconfig)),)
        provide("site", InstallationSettings(clusters=clusters, backup_dir=str(self._backups), images=images))
        return "site"


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def site(prefect_server: EmbeddedServer, world: World, faults: Faults, backups: Path) -> Iterator[Site]:
    with served(faults=faults) as outside, served() as inside:
        yield Site(world, outside, inside, backups)


class SetImage:
    """Hears when the manager's image is set, and remembers how the world was right then."""

    def __init__(self, look: Callable[[], bool]) -> None:
        self._look = look
        self.seen: list[bool] = []

    def __call__(self, event: Event) -> None:
        if event.subject == MANAGER and event.state is State.RUNNING and not self.seen:
            self.seen.append(self._look())


def test_images_are_in_the_registry_before_the_manager_is_touched(site: Site, backups: Path) -> None:
    from flows.upgrade import upgrade

    heard = SetImage(lambda: site.whole() and len(archives(backups)) == 1)
    with listening(heard):
        report = upgrade(to=NEW, installation=site.provide())
    assert heard.seen == [True]
    assert report["complete"]
    assert site.world.at(NEW) == ALL
    images = site.world.images()
    assert {image.rpartition("/")[0] for image in images.values()} == {f"{site.inside.host}/apinizer"}
    # The layer that all share was uploaded once; each other only there where it belongs.
    assert site.inside.received < len(BASE) + 10 * 40_000


def test_nodes_get_what_they_lack_from_one_reading(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One node at a time is looked at and settled; one whose line breaks is settled alone, the other does not wait for it."""
    from flows.stage import stage

    nodes = {name: FolderNode(name, tmp_path / name) for name in ("node-a", "node-b")}
    monkeypatch.setattr(session, "Opened", lambda settings, **_: FolderNodes(settings, nodes))
    name = site.provide(Way.REGISTRY_TO_NODES, parallel=1)
    result = stage(to=NEW, installation=name)
    assert [place["place"] for place in result["places"]] == ["node-a", "node-b"]
    for place in result["places"]:
        assert set(place["images"].values()) == {made.config for made in site.made.values()}
    shared = site.made["worker"].layers[0]
    assert len(site.outside.requests("GET", shared)) == 1
    nodes["node-a"].forget(next(iter(nodes["node-a"].names)))
    nodes["node-a"].cut = [10]
    result = stage(to=NEW, installation=name)
    assert {place["place"]: len(place["brought"]) for place in result["places"]} == {"node-a": 1, "node-b": 0}
    assert len(site.outside.requests("GET", shared)) == 1

    def refuse(_images: object) -> None:
        raise ForbiddenError("node-a refuses.")

    for node in nodes.values():
        node.forget(next(iter(node.names)))
        node.pinned.clear()
    monkeypatch.setattr(nodes["node-a"], "keep", refuse)
    with pytest.raises(ForbiddenError, match="node-a refuses"):
        stage(to=NEW, installation=name)
    assert len(nodes["node-b"].pinned) == len(REPOSITORIES)
    for name_of, node in nodes.items():
        node.refuse = ForbiddenError(f"{name_of} is not to be asked.", next=f"See {name_of}.")
    with pytest.raises(ForbiddenError, match=r"node-a is not to be asked\. node-b is not") as raised:
        stage(to=NEW, installation=name)
    assert raised.value.next == "See node-a.\nSee node-b."


@pytest.mark.parametrize("missing", ["worker", "manager"])
def test_an_image_that_the_source_lacks_leaves_the_manager_alone(site: Site, missing: str) -> None:
    from flows.upgrade import upgrade

    del site.outside.repositories[f"apinizercloud/{missing}"].tags[NEW]
    before = site.world.written()
    with pytest.raises(NotFoundError) as raised:
        upgrade(to=NEW, installation=site.provide())
    assert f"{missing} has no tag {NEW}" in raised.value.happened
    assert NOTHING_CHANGED in raised.value.safe
    assert all(raised.value.as_json().values())
    assert site.world.written() == before


def test_a_tag_that_moved_since_it_was_looked_at(site: Site) -> None:
    from flows.upgrade import upgrade

    before = site.world.written()
    moved = Once("images on registry", "proved", lambda: site.put("cache"))
    with listening(moved), pytest.raises(DriftError, match="tag was moved") as raised:
        upgrade(to=NEW, installation=site.provide())
    assert moved.acted
    assert f"cache:{NEW}" in raised.value.observed
    assert site.made["cache"].config in raised.value.observed
    assert "does no harm" in raised.value.safe
    assert site.world.written() == before


def test_a_tag_of_the_site_that_is_another_image_is_not_replaced(site: Site) -> None:
    from flows.stage import stage

    other = site.inside.put_image(f"apinizer/worker:{NEW}", [b"somebody else's"])
    with pytest.raises(BlockedError, match="another image") as raised:
        stage(to=NEW, installation=site.provide())
    assert raised.value.exit_code == 3
    assert site.held() == {f"worker:{NEW}": other.config}


def test_staging_a_second_time_moves_nothing(site: Site) -> None:
    from flows.stage import stage

    before, name = site.world.written(), site.provide()
    first = stage(to=NEW, installation=name)
    assert site.whole()
    assert first["sent"] > len(BASE)
    (place,) = first["places"]
    assert place["images"] == {f"{site.inside.host}/apinizer/{n}:{NEW}": m.config for n, m in site.made.items()}
    assert len(place["brought"]) == len(REPOSITORIES)
    received = site.inside.received
    second = stage(to=NEW, installation=name)
    assert (second["sent"], second["places"][0]["brought"]) == (0, [])
    assert second["places"][0]["images"] == place["images"]
    assert site.inside.received == received
    assert site.world.written() == before


def test_a_source_that_goes_away_in_mid_transfer_is_waited_for(site: Site, faults: Faults) -> None:
    from flows.stage import stage
    from tests.tasks.images.registry.served import Ordered

    # More often than a client tries again by itself.
    faults.answers += [Ordered("GET", "/blobs/" + site.made["cache"].layers[1], 503, times=12)]
    told: list[Event] = []
    with listening(told.append):
        stage(to=NEW, installation=site.provide())
    assert site.whole()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell's background jobs are started with SIGINT ignored, and Python then leaves it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interruption_in_mid_transfer(site: Site, faults: Faults, interruptible: None) -> None:
    from flows.stage import stage

    before = site.world.written()
    name = site.provide()

    def stall() -> None:
        faults.stall_get += [10_000]
        waiting.start()

    def interrupt() -> None:
        if eventually(lambda: not faults.stall_get, 60):
            os.kill(os.getpid(), signal.SIGINT)

    waiting = threading.Thread(target=interrupt)
    found = Once("images", "images found", stall)
    with listening(found), pytest.raises(StoppedError) as raised:
        stage(to=NEW, installation=name)
    waiting.join()
    assert "No component was changed" in raised.value.safe
    assert site.world.written() == before
    assert not site.whole()
    assert stage(to=NEW, installation=name)["places"]
    assert site.whole()


def test_a_bundle_is_made_carried_and_taken_in(site: Site, tmp_path: Path) -> None:
    from flows.bundle import bundle
    from flows.load import load

    before, name = site.world.written(), site.provide()
    made = bundle(to=NEW, installation=name, source="registry", out=str(tmp_path))
    path = Path(made["path"])
    assert path.parent == tmp_path
    assert {image["name"]: image["config"] for image in made["images"]} == {
        f"{site.outside.host}/apinizercloud/{n}:{NEW}": m.config for n, m in site.made.items()
    }
    spoilt = tmp_path / "spoilt.tar"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    spoilt.write_bytes(content)
    with pytest.raises(UpgradeError):
        load(bundle=str(spoilt), installation=name)
    assert site.held() == {}
    result = load(bundle=str(path), installation=name)
    assert site.whole()
    assert (result["way"], result["to"]) == ("bundle-to-registry", NEW)
    assert result["bundle"]["sha256"] == made["sha256"]
    assert site.world.written() == before


def test_what_no_registry_and_no_node_has_blocks_an_online_upgrade(site: Site, backups: Path) -> None:
    from flows.upgrade import upgrade

    before = site.world.written()
    with pytest.raises(BlockedError, match="not where the nodes could pull") as raised:
        upgrade(to=NEW, installation=site.provide(Way.ONLINE))
    assert f"{site.inside.host}/apinizer/manager:{NEW}" in raised.value.observed
    assert "node-a" in raised.value.observed
    assert raised.value.exit_code == 3
    assert site.world.written() == before


def test_without_a_node_for_a_component_nothing_is_touched(site: Site) -> None:
    from flows.upgrade import upgrade

    for node in ("node-a", "node-b"):
        site.world.change(f"/api/v1/nodes/{node}", {"spec": {"unschedulable": True}})
    before = site.world.written()
    with pytest.raises(BlockedError) as raised:
        upgrade(to=NEW, installation=site.provide(Way.REGISTRY_TO_NODES))
    assert "node-a: it is cordoned" in raised.value.observed
    assert raised.value.exit_code == 3
    assert site.world.written() == before


def test_what_a_node_has_under_the_name_already_leaves_the_manager_alone(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.stage import stage
    from flows.upgrade import upgrade

    name = f"{site.inside.host}/apinizer/worker:{NEW}"
    site.world.sandbox.load_image(name, "node-b")
    before = site.world.written()
    staged = stage(to=NEW, installation=site.provide())
    assert [finding["code"] for finding in staged["findings"]] == ["node-holds-other"]
    with pytest.raises(BlockedError, match="node-b holds an image under the name") as raised:
        upgrade(to=NEW, installation=site.provide())
    assert site.whole()
    assert f"images rm {name}" in raised.value.next
    assert site.world.written() == before
    nodes = {node: FolderNode(node, tmp_path / node) for node in ("node-a", "node-b")}
    monkeypatch.setattr(session, "Opened", lambda settings, **_: FolderNodes(settings, nodes))
    held = {name: {"config": site.made["worker"].config, "blobs": []}}
    (tmp_path / "node-b" / "names").write_text(json.dumps(held))
    assert stage(to=NEW, installation=site.provide())["findings"] == [], "its runtime says that it is the same image"


def test_what_no_upgrade_would_take_is_not_brought(site: Site) -> None:
    from flows.stage import stage

    with pytest.raises(BlockedError, match="nothing marks as Apinizer") as raised:
        stage(to=NEW, installation=site.provide(folder="library"))
    assert len(raised.value.next.splitlines()) == 1
    assert site.inside.received == 0
