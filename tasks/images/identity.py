"""Whether the machine that a host leads to is the node that its cluster tells of."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.domain.errors import BlockedError
from tasks.domain.placement import NodeFacts
from tasks.images.model import Holdings, Image, Inlet, Need, Proof, Target
from tasks.images.remote import Remote

_SECONDS = 30.0

# Three marks, one a line, empty where the machine does not tell one.
_MARKS = (
    "for each in /etc/machine-id /proc/sys/kernel/random/boot_id /proc/sys/kernel/hostname; do "
    'line=; [ ! -r "$each" ] || read -r line <"$each"; echo "$line"; done; exit 0'
)


@dataclass(frozen=True, slots=True)
class Marks:
    """What a machine can be told by; "" where it is not known.

    `machine` is the same on clones of one disk, `boot` on containers of one kernel, `host` where nobody set it: one that
    is the same makes a machine credible, and only where all that are known differ it is another.
    """

    machine: str = ""
    boot: str = ""
    host: str = ""

    @classmethod
    def read(cls, answer: str) -> "Marks":
        """From the output of the command."""
        lines = [line.strip() for line in answer.splitlines()][:3]
        return cls(*lines)

    def other_than(self, node: NodeFacts) -> bool:
        """Whether this is surely not the node: nothing that both tell is the same, and a mark of the machine is known."""
        pairs = [(self.machine, node.machine), (self.boot, node.boot)]
        known = [(mine, told) for mine, told in pairs if mine and told]
        names = {name.lower() for name in (node.name, node.address("Hostname")) if name}
        mine = self.host.lower()
        same_name = bool(mine) and any(name == mine or name.split(".")[0] == mine.split(".")[0] for name in names)
        return bool(known) and not same_name and all(mine != told for mine, told in known)

    def __str__(self) -> str:
        return f"machine id {self.machine or 'unknown'}, boot id {self.boot or 'unknown'}"


def require_node(remote: Remote, node: NodeFacts) -> None:
    """Ask the machine who it is; raise `BlockedError` where it is surely another than the node."""
    if not (node.machine or node.boot):
        return
    ran = remote.run(["sh", "-c", _MARKS, "sh"], timeout=_SECONDS, sudo=False)
    marks = Marks.read(ran.stdout.decode("utf-8", "replace")) if ran.code == 0 else Marks()
    if marks.other_than(node):
        host = remote.host
        raise BlockedError(
            f"{host.destination or 'this machine'} is not the node {node.name}.",
            observed=f"The machine there ({marks.host or 'no host name'}) has {marks}.\n"
            f"The node's kubelet tells {Marks(node.machine, node.boot)}.",
            safe="No component was changed, and nothing was sent there.",
            next="Mend the node's host in the configuration (images.nodes.named) or the alias in ssh's own.",
        )


class NodeTarget:
    """A node's runtime, asked only once it is clear that the machine is the node."""

    def __init__(self, remote: Remote, node: NodeFacts, runtime: Target) -> None:
        self._remote, self._node, self._runtime = remote, node, runtime
        self._known = False

    @property
    def where(self) -> str:
        return self._runtime.where

    def look(self, images: Sequence[Image]) -> Holdings:
        """See `Target.look`."""
        self._require()
        return self._runtime.look(images)

    def inlet(self, images: Sequence[Image], need: Need, holdings: Holdings) -> Inlet:
        """See `Target.inlet`."""
        self._require()
        return self._runtime.inlet(images, need, holdings)

    def keep(self, images: Sequence[Image]) -> None:
        """See `Target.keep`."""
        self._require()
        self._runtime.keep(images)

    def prove(self, images: Sequence[Image]) -> tuple[Proof, ...]:
        """See `Target.prove`."""
        self._require()
        return self._runtime.prove(images)

    def _require(self) -> None:
        if not self._known:
            require_node(self._remote, self._node)
            self._known = True
