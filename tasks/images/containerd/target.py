"""A node with containerd as a target: asked in one command, given only what it lacks, and asked again."""

from collections.abc import Sequence

from tasks.domain.errors import TemporaryError, UnprovenError, UpgradeError
from tasks.domain.placement import NodeFacts
from tasks.images.containerd.holding import Lacking, Whole, holdings_of, image_at
from tasks.images.containerd.inlet import LayoutInlet
from tasks.images.containerd.listing import PINNED, Looked
from tasks.images.containerd.looking import look_at_kubelets
from tasks.images.containerd.refusals import UNCOUNTED, of_ctr
from tasks.images.containerd.script import IMPORT, LABEL, Ctr
from tasks.images.model import DEFAULT_PLATFORM, Holdings, Image, Need, Proof
from tasks.images.remote import Ran, Remote, Sending

_SECONDS_TO_LABEL = 60.0


class ContainerdTarget:
    """The containerd of a node; `name` is the node's, `address` its socket, `tool` the words of ctr there.

    With `node` it must be the one of that node's kubelet, and is looked for where no socket is given.
    """

    def __init__(
        self,
        remote: Remote,
        name: str,
        *,
        address: str = "",
        namespace: str = "k8s.io",
        tool: str = "ctr",
        node: NodeFacts | None = None,
    ) -> None:
        self._ctr = Ctr(remote, address, namespace, tool)
        self._name, self._node = name, node
        self._looked: Looked | None = None

    @property
    def where(self) -> str:
        return f"{self._name} (containerd)"

    def look(self, images: Sequence[Image]) -> Holdings:
        """Everything that the namespace holds, whether it matters for `images` or not."""
        del images
        return holdings_of(self._look())

    def inlet(self, images: Sequence[Image], need: Need, holdings: Holdings) -> LayoutInlet:
        """An archive of what is missing, streamed into the import; nothing is started before the first blob."""
        del holdings
        return LayoutInlet(images, need, self._importing)

    def keep(self, images: Sequence[Image]) -> None:
        """Pin the images where containerd's CRI plugin knows that (1.7 and later)."""
        looked = self._looked or self._look()
        if not looked.pins or not images:
            return
        command = self._ctr.command(LABEL, f"{PINNED}=pinned", *(image.name for image in images))
        ran = self._ctr.remote.run(command, timeout=_SECONDS_TO_LABEL, sudo=False)
        if error := self._judge(ran):
            raise error

    def prove(self, images: Sequence[Image]) -> tuple[Proof, ...]:
        """What the runtime now says of each image, all of it read anew."""
        looked = self._look()
        return tuple(self._proof(looked, image) for image in images)

    def _proof(self, looked: Looked, image: Image) -> Proof:
        found = image_at(looked, image.name, looked.platform or DEFAULT_PLATFORM)
        if isinstance(found, Whole) and found.manifest.config.digest == image.config:
            return Proof(self.where, image.name, image.config, found.manifest_digest, found.pinned)
        if isinstance(found, Lacking):
            raise self._lacks(image, found)
        raise UnprovenError(
            f"{self.where} holds another image under the name {image.name}.",
            observed=f"expected the config {image.config}, found {found.manifest.config.digest}",
            next="Stage the images again; if it stays so, somebody else imports images there.",
        )

    def _lacks(self, image: Image, found: Lacking) -> UpgradeError:
        happened = f"{self.where} does not hold {image.name} complete."
        observed = f"expected the config {image.config}; {found.why}"
        if found.layers:
            # Garbage collection came between the look and the import: what it took is sent by the next try.
            return TemporaryError(happened, observed=observed, safe=UNCOUNTED, next="Stage the images again.")
        return UnprovenError(happened, observed=observed, safe=UNCOUNTED, next="Stage the images again.")

    def _look(self) -> Looked:
        self._ctr, self._looked = look_at_kubelets(self._ctr, self._name, self._node)
        return self._looked

    def _importing(self) -> Sending:
        looked = self._looked or self._look()
        # Where ctr's own snapshotter does not work, the kubelet's unpacks when it makes the first container.
        flags = "" if looked.unpacks else "--no-unpack"
        return self._ctr.remote.sending(self._ctr.command(IMPORT, flags), judge=self._judge, sudo=False)

    def _judge(self, ran: Ran) -> UpgradeError | None:
        return of_ctr(self._name, self._ctr.address, ran)
