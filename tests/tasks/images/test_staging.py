"""What is missing where, brought and proved, from a real registry to nodes that keep images in folders."""

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from blocks.image_settings import FromSettings, ImageSourceSettings, SourceRegistrySettings
from tasks.domain.errors import (
    BlockedError,
    DriftError,
    ForbiddenError,
    NotFoundError,
    TemporaryError,
    UpgradeError,
    UsageError,
)
from tasks.domain.placement import NodeFacts, ReportedImage
from tasks.domain.reference import ImageReference
from tasks.domain.way import Way
from tasks.images import staging, surveying
from tasks.images.demand import Demand, Place
from tasks.images.model import Blob, Holdings, Image
from tasks.images.references import Wish
from tasks.images.staging import Settled
from tasks.images.stash import PREFIX
from tasks.images.surveying import Found, Look
from tests.tasks.images.folder_node import FolderNodes, folder_nodes
from tests.tasks.images.registry.served import Made, Served, served

BASE = b"base layer " * 20_000
NAMES = ("manager", "worker", "cache")
FULL = tuple(f"docker.io/apinizercloud/{name}:2" for name in NAMES)


@dataclass
class World:
    registry: Served
    opened: FolderNodes
    made: dict[str, Made]

    def put(self, name: str, text: str = "") -> Made:
        content = f"{name} {text}".encode() * 3_000
        return self.registry.put_image(f"apinizercloud/{name}:2", [BASE, content], compressed=False, media_type=OCI)

    def demand(self, **wanted: tuple[str, ...]) -> Demand:
        """Nodes (by name, dashes as underscores) with the images that they are to hold."""
        host = self.registry.host
        wishes = tuple(
            Wish(full, (ImageReference.parse(f"{host}/apinizercloud/{name}:2"),))
            for name, full in zip(NAMES, FULL, strict=True)
        )
        places = tuple(
            Place(NodeFacts(node.replace("_", "-"), platform="linux/amd64"), images) for node, images in wanted.items()
        )
        return Demand(wishes, places)

    def looks(self, demand: Demand, found: Found) -> list[Look]:
        return [surveying.look_at(self.opened, place, found) for place in demand.places]

    def run(self, demand: Demand) -> dict[str, Settled | UpgradeError]:
        """Everything, as the steps of a run do it; for each node how it ended."""
        found = surveying.find(self.opened, demand)
        looks = self.looks(demand, found)
        ended: dict[str, Settled | UpgradeError] = {}
        outcomes = staging.bring(self.opened, staging.weigh(self.opened, looks), quiet, pauses=(0, 0))
        for look in looks:
            try:
                ended[look.place] = staging.settle(self.opened, look, outcomes.get(look.place), quiet)
            except UpgradeError as error:
                ended[look.place] = error
        return ended


OCI = "application/vnd.oci.image.manifest.v1+json"


def quiet(_place: str, _done: int, _total: int) -> None:
    return None


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with served() as registry:
        source = FromSettings(prefix=f"{registry.host}/apinizercloud", registry=SourceRegistrySettings(insecure=True))
        settings = ImageSourceSettings(way=Way.REGISTRY_TO_NODES, source=source, parallel=2)
        with folder_nodes(settings, tmp_path, "node-a", "node-b", "node-c") as opened:
            made = World(registry, opened, {})
            made.made = {name: made.put(name) for name in NAMES}
            yield made


def settled(result: Settled | UpgradeError) -> Settled:
    assert isinstance(result, Settled), result
    return result


def test_each_node_gets_its_own_images_and_only_what_is_missing(world: World) -> None:
    ended = world.run(world.demand(node_a=FULL, node_b=FULL[1:2]))
    a, b = settled(ended["node-a"]), settled(ended["node-b"])
    configs = {full: world.made[name].config for name, full in zip(NAMES, FULL, strict=True)}
    assert {p.name: p.config for p in a.proofs} == configs
    assert [p.name for p in b.proofs] == [FULL[1]]
    assert a.pinned
    nodes = world.opened.nodes
    assert (
        nodes["node-a"].received
        == a.sent
        == len(BASE) + sum(m.sizes[1] for m in world.made.values()) + configs_of(world, *NAMES)
    )
    assert nodes["node-b"].received == b.sent == len(BASE) + world.made["worker"].sizes[1] + configs_of(world, "worker")
    # The shared layer was read once for both of them.
    reads = world.registry.requests("GET", world.made["cache"].layers[0])
    assert len(reads) == 1
    again = world.run(world.demand(node_a=FULL, node_b=FULL))
    assert settled(again["node-a"]).sent == 0
    assert settled(again["node-a"]).brought == ()
    assert settled(again["node-b"]).brought == (FULL[0], FULL[2])
    assert nodes["node-b"].received < 2 * len(BASE)


def configs_of(world: World, *names: str) -> int:
    return sum(len(world.registry.blobs[world.made[name].config]) for name in names)


def test_one_that_breaks_off_is_sent_the_rest_alone_and_the_others_go_on(world: World) -> None:
    broken = world.opened.nodes["node-b"]
    broken.cut = [len(BASE) + 5_000]
    ended = world.run(world.demand(node_a=FULL, node_b=FULL))
    assert settled(ended["node-a"]).sent == world.opened.nodes["node-a"].received
    assert world.opened.nodes["node-a"].deliveries == 1
    assert broken.deliveries == 2
    assert len(settled(ended["node-b"]).proofs) == 3
    assert broken.received < 2 * len(BASE)  # what had come whole did not travel again


def test_one_that_stays_away_fails_alone(world: World) -> None:
    world.opened.nodes["node-b"].cut = [10, 10]
    ended = world.run(world.demand(node_a=FULL, node_b=FULL))
    assert isinstance(ended["node-b"], TemporaryError)
    assert "does not travel again" in ended["node-b"].safe
    settled(ended["node-a"])


def test_the_source_is_read_once_for_however_many_nodes(world: World) -> None:
    """`parallel` is 2 here, and bounds only what is asked of the nodes themselves."""
    ended = world.run(world.demand(node_a=FULL, node_b=FULL, node_c=FULL))
    assert [len(settled(each).proofs) for each in ended.values()] == [3, 3, 3]
    assert reads(world) == 1


@pytest.mark.parametrize("staging", [False, True])
def test_after_a_break_of_the_source_it_is_read_again_once_for_all(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, staging: bool
) -> None:
    if staging:
        world.opened.settings = world.opened.settings.model_copy(update={"staging": str(tmp_path / "staging")})
    read, begun = world.opened.source().read, []

    def breaking(images: Sequence[Image], wanted: frozenset[str]) -> Iterator[Blob]:
        begun.append(len(images))
        for number, blob in enumerate(read(images, wanted)):
            if len(begun) == 1 and number == 4:
                raise TemporaryError("The source broke off.")
            yield blob

    monkeypatch.setattr(world.opened.source(), "read", breaking)
    ended = world.run(world.demand(node_a=FULL, node_b=FULL, node_c=FULL))
    assert [len(settled(each).proofs) for each in ended.values()] == [3, 3, 3]
    assert begun == [3, 3]
    assert [node.deliveries for node in world.opened.nodes.values()] == ([1, 1, 1] if staging else [2, 2, 2])


def test_several_that_break_off_are_sent_the_rest_in_common(world: World) -> None:
    for name in ("node-a", "node-b"):
        world.opened.nodes[name].cut = [len(BASE) + 5_000]
    ended = world.run(world.demand(node_a=FULL, node_b=FULL, node_c=FULL))
    assert [len(settled(each).proofs) for each in ended.values()] == [3, 3, 3]
    assert [node.deliveries for node in world.opened.nodes.values()] == [2, 2, 1]
    assert reads(world) == 1  # what had come whole stayed
    of_others = [len(world.registry.requests("GET", world.made[name].layers[1])) for name in NAMES]
    assert max(of_others) == 2
    # What was taken counts, whichever try it came with.
    a = settled(ended["node-a"])
    assert a.sent >= len(BASE) + sum(world.made[name].sizes[1] for name in NAMES)


def test_of_several_that_broke_off_one_that_is_gone_does_not_keep_the_others(world: World) -> None:
    a, b, c = world.opened.nodes.values()
    a.cut, b.cut, c.cut = [10], [10], [10]
    look = b.look

    def gone(images: Sequence[Image]) -> Holdings:
        if b.deliveries:
            raise ForbiddenError("node-b refuses.")
        return look(images)

    b.look = gone  # type: ignore[method-assign]
    ended = world.run(world.demand(node_a=FULL, node_b=FULL, node_c=FULL))
    assert isinstance(ended["node-b"], ForbiddenError)
    assert (a.deliveries, b.deliveries, c.deliveries) == (2, 1, 2)
    assert len(settled(ended["node-a"]).proofs) == len(settled(ended["node-c"]).proofs) == 3


def test_nobody_waits_for_another_try_who_was_told_to_stop(world: World) -> None:
    asked = threading.Event()
    for node in world.opened.nodes.values():
        node.cut = [10, 10]
    demand = world.demand(node_a=FULL, node_b=FULL)
    lacking = staging.weigh(world.opened, world.looks(demand, surveying.find(world.opened, demand)))
    world.opened.stop = asked.is_set
    threading.Timer(0.5, asked.set).start()
    outcomes = staging.bring(world.opened, lacking, quiet, pauses=(3600,))
    assert all(outcome.error for outcome in outcomes.values())
    assert world.opened.nodes["node-a"].deliveries == 1


def reads(world: World) -> int:
    """How often the layer that all images share was asked for."""
    return len(world.registry.requests("GET", world.made["cache"].layers[0]))


def test_a_node_without_room_stops_it_before_anything_is_sent(world: World) -> None:
    world.opened.nodes["node-b"].free = 1000
    with pytest.raises(BlockedError, match="node-b has too little room"):
        world.run(world.demand(node_a=FULL, node_b=FULL))
    assert [node.received for node in world.opened.nodes.values()] == [0, 0, 0]


def test_right_before_the_manager_what_went_or_joined_gets_what_it_lacks(world: World) -> None:
    demand = world.demand(node_a=FULL, node_b=FULL)
    world.run(demand)
    found = surveying.find(world.opened, demand)
    a, b, c = world.opened.nodes.values()
    before = a.received
    b.forget(FULL[2])
    of_cache, of_base = (len(world.registry.requests("GET", world.made["cache"].layers[i])) for i in (1, 0))
    proved = staging.prove_again(world.opened, world.demand(node_a=FULL, node_b=FULL, node_c=FULL), found, quiet)
    # Both lack it by now, and it was read for them together.
    assert len(world.registry.requests("GET", world.made["cache"].layers[1])) == of_cache + 1
    assert reads(world) == of_base + 1
    assert [(each.place, each.brought) for each in proved] == [
        ("node-a", ()),
        ("node-b", (FULL[2],)),
        ("node-c", FULL),
    ]
    assert a.received == before
    assert set(c.names) == set(FULL)


def test_right_before_the_manager_a_moved_tag_is_told(world: World) -> None:
    demand = world.demand(node_a=FULL)
    found = surveying.find(world.opened, demand)
    world.run(demand)
    moved = world.put("worker", "built again")
    with pytest.raises(DriftError, match="moved") as raised:
        staging.prove_again(world.opened, demand, found, quiet)
    assert moved.config in raised.value.observed
    assert world.made["worker"].config in raised.value.observed


def test_right_before_the_manager_another_name_at_the_source_is_told(world: World) -> None:
    """A name that was not there when it was planned goes before the one that was taken."""
    demand = world.demand(node_a=FULL)
    host = world.registry.host
    candidates = tuple(ImageReference.parse(f"{host}/apinizercloud/{name}:2") for name in ("portal", "worker"))
    wishes = tuple(replace(w, candidates=candidates) if w.name == FULL[1] else w for w in demand.wishes)
    demand = replace(demand, wishes=wishes)
    found = surveying.find(world.opened, demand)
    world.run(demand)
    assert staging.prove_again(world.opened, demand, found, quiet)
    came = world.put("portal")
    with pytest.raises(DriftError) as raised:
        staging.prove_again(world.opened, demand, found, quiet)
    assert f"{host}/apinizercloud/portal:2" in raised.value.observed
    assert came.config in raised.value.observed


def test_right_before_the_manager_a_node_that_does_not_answer_is_told(world: World) -> None:
    demand = world.demand(node_a=FULL, node_b=FULL)
    found = surveying.find(world.opened, demand)
    world.run(demand)
    world.opened.nodes["node-b"].refuse = ForbiddenError("node-b refuses.")
    with pytest.raises(ForbiddenError, match="node-b refuses"):
        staging.prove_again(world.opened, demand, found, quiet)


@pytest.mark.parametrize("trouble", ["", "another image", "it does not answer"])
def test_an_imported_form_of_the_registry_s_image_is_the_same_where_its_node_says_so(
    world: World, trouble: str
) -> None:
    name, made, node = (
        f"{world.registry.host}/apinizercloud/worker:2",
        world.made["worker"],
        world.opened.nodes["node-a"],
    )
    world.opened.settings = world.opened.settings.model_copy(
        update={"way": Way.REGISTRY_TO_REGISTRY, "prefix": f"{world.registry.host}/apinizercloud", "insecure": True}
    )
    reports = NodeFacts("node-a", platform="linux/amd64", images=(ReportedImage((name,), 1),))
    demand = Demand((Wish(name, (ImageReference.parse(name),)),), (Place(reports, (name,)),))
    holds = world.made["cache"].config if trouble == "another image" else made.config
    (node.folder / "names").write_text(json.dumps({name: {"config": holds, "blobs": []}}))
    node.refuse = TemporaryError("node-a does not answer.") if trouble == "it does not answer" else None
    found = surveying.find(world.opened, demand)
    if trouble:
        with pytest.raises(BlockedError, match="holds an image under the name"):
            staging.prove_again(world.opened, demand, found, quiet)
    else:
        (proved,) = staging.prove_again(world.opened, demand, found, quiet)
        assert [proof.config for proof in proved.proofs] == [made.config]


def test_of_several_names_at_the_source_the_first_that_is_there(world: World) -> None:
    host = world.registry.host
    world.registry.put_image("apinizercloud/gateway:2", [BASE])
    names = [ImageReference.parse(f"{host}/apinizercloud/{name}:2") for name in ("nothing", "gateway", "worker")]
    wish = Wish("docker.io/own/gateway:2", tuple(names))
    sure = Wish(FULL[0], (ImageReference.parse(f"{host}/apinizercloud/manager:2"),))
    images = surveying.find_at(world.opened.source(), [sure, wish], None)
    assert [(image.name, image.origin) for image in images] == [
        (FULL[0], f"{host}/apinizercloud/manager:2"),
        ("docker.io/own/gateway:2", f"{host}/apinizercloud/gateway:2"),
    ]
    with pytest.raises(NotFoundError, match="nothing"):
        surveying.find_at(world.opened.source(), [sure, replace(wish, candidates=tuple(names[:1]))], None)


def test_by_way_of_a_folder_here(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "staging"
    dead = folder / f"{PREFIX}left"
    dead.mkdir(parents=True)
    (dead / "lock").touch()
    (dead / "images.tar").write_bytes(BASE)
    world.opened.settings = world.opened.settings.model_copy(update={"staging": str(folder)})
    world.run(world.demand(node_a=FULL[:1], node_b=FULL[:1]))
    ended = world.run(world.demand(node_a=FULL, node_b=FULL))
    configs = {full: world.made[name].config for name, full in zip(NAMES, FULL, strict=True)}
    for node in ("node-a", "node-b"):
        assert {p.name: p.config for p in settled(ended[node]).proofs} == configs
        assert world.opened.nodes[node].received < len(BASE) + 200_000  # the shared layer came the first time only
    assert list(folder.iterdir()) == []
    world.opened.nodes["node-c"].cut = [10]
    ended = world.run(world.demand(node_c=FULL))
    assert len(settled(ended["node-c"]).proofs) == 3
    assert list(folder.iterdir()) == []


def test_a_staging_folder_that_cannot_be_written(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    world.opened.settings = world.opened.settings.model_copy(update={"staging": str(tmp_path / "file" / "x")})
    with pytest.raises(UsageError, match="staging folder"):
        world.run(world.demand(node_a=FULL))
    assert world.opened.nodes["node-a"].received == 0


class Begun:
    """A source that remembers what it was told to begin."""

    def __init__(self) -> None:
        self.begun: list[str] | None = None

    def begin(self, images: Sequence[Image]) -> None:
        self.begun = [image.name for image in images]

    def leave(self) -> None:
        self.begun = None


def test_a_source_begins_only_what_kubelets_do_not_report_and_leaves_it_where_nothing_lacks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    demand = world.demand(node_a=FULL)
    found = surveying.find(world.opened, demand)
    node = replace(demand.places[0].node, images=(ReportedImage((FULL[0],), 1),))
    source = Begun()
    monkeypatch.setattr(world.opened, "source", lambda: source)
    surveying.foresee(world.opened, Demand(demand.wishes, (Place(node, FULL),)), found)
    assert source.begun == list(FULL[1:])
    staging.weigh(world.opened, [])
    assert source.begun is None
    everything = replace(node, images=(ReportedImage(FULL, 1),))
    surveying.foresee(world.opened, Demand(demand.wishes, (Place(everything, FULL),)), found)
    assert source.begun is None
