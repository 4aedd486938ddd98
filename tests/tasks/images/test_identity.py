"""Whether the machine behind a host is the node, by marks, and asked of this very machine."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.domain.errors import BlockedError, ForbiddenError
from tasks.domain.placement import NodeFacts
from tasks.images.identity import Marks, NodeTarget, require_node
from tasks.images.missing import need_of
from tasks.images.model import Holdings, Image, Platform
from tasks.images.remote import Host, Remote
from tests.tasks.images.folder_node import FolderNode

NODE = NodeFacts("n1", addresses=(("Hostname", "N1.example.org"),), machine="m1", boot="b1")


@pytest.mark.parametrize(
    ("marks", "other"),
    [
        pytest.param(Marks("m1", "b1", "n1"), False, id="the node"),
        pytest.param(Marks("m1", "b2", "n1"), False, id="restarted since"),
        pytest.param(Marks("m2", "b1", "else"), False, id="a container of its own with the same kernel"),
        pytest.param(Marks("m2", "b2", "n1.local"), False, id="a kubelet in a container, after a restart"),
        pytest.param(Marks("m2", "b2", "n2"), True, id="another machine"),
        pytest.param(Marks("m2", "b2", ""), True, id="another machine without a name"),
        pytest.param(Marks("m2", "", "n2"), True, id="another machine that tells little"),
        pytest.param(Marks("", "", "n2"), False, id="a machine that tells nothing"),
    ],
)
def test_marks(marks: Marks, other: bool) -> None:  # noqa: FBT001
    assert marks.other_than(NODE) is other
    assert not marks.other_than(replace(NODE, machine="", boot=""))


def test_this_machine_is_asked() -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    remote = Remote(Host("n1"))
    require_node(remote, replace(NODE, boot=boot))
    with pytest.raises(BlockedError, match="is not the node n1") as raised:
        require_node(remote, NODE)
    assert boot in raised.value.observed
    assert "b1" in raised.value.observed


def test_nothing_is_asked_of_or_sent_to_another_machine(tmp_path: Path) -> None:
    folder = FolderNode("n1", tmp_path / "n1", refuse=ForbiddenError("It was asked."))
    image = Image("docker.io/a/x:1", "a/x:1", Platform("linux", "amd64"), "sha256:0", ())
    need, nothing = need_of([image], Holdings()), Holdings()
    target = NodeTarget(Remote(Host("n1")), NODE, folder)
    acts: list[Callable[[], object]] = [
        lambda: target.look([image]),
        lambda: target.prove([image]),
        lambda: target.keep([image]),
        lambda: target.inlet([image], need, nothing),
    ]
    for act in acts:
        with pytest.raises(BlockedError, match="is not the node"):
            act()
    assert (folder.deliveries, folder.pinned) == (0, set())
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    right = NodeTarget(Remote(Host("n1")), replace(NODE, boot=boot), folder)
    with pytest.raises(ForbiddenError):
        right.look([image])
    right.keep([image])
    assert folder.pinned == {image.name}
    assert right.where == "n1"
