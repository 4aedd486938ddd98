"""A containerd as a source: images are found in its image store and read blob by blob from its content store."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tasks.domain.errors import BlockedError, NotFoundError, UnprovenError, UpgradeError
from tasks.domain.reference import ImageReference
from tasks.images.containerd.holding import Lacking, Whole, image_at, platforms_at
from tasks.images.containerd.listing import Looked
from tasks.images.containerd.looking import look_at
from tasks.images.containerd.reading import blobs_of
from tasks.images.containerd.script import Ctr
from tasks.images.manifest import image_of, platform_lacking
from tasks.images.model import DEFAULT_PLATFORM, Blob, Image, Platform
from tasks.images.remote import Remote

_MOST_NAMED = 12


class ContainerdSource:
    """The containerd of a machine, here or over SSH; `namespace` is where the images were pulled to."""

    def __init__(
        self, remote: Remote, *, address: str = "", namespace: str = "k8s.io", tool: str = "ctr"
    ) -> None:  # fmt: skip
        self._ctr = Ctr(remote, address, namespace, tool)

    @property
    def where(self) -> str:
        return f"containerd of {self._ctr.remote.host.name} (namespace {self._ctr.namespace})"

    def find(self, references: Sequence[ImageReference], platform: Platform | None) -> tuple[Image, ...]:
        """The images; without a platform the one that is whole there, linux/amd64 before others."""
        looked = look_at(self._ctr, self._ctr.remote.host.name)
        return tuple(self._found(looked, reference, platform) for reference in references)

    def read(self, images: Sequence[Image], wanted: frozenset[str]) -> Iterator[Blob]:
        """Configs, then layers, each checked by nobody here; all of them in one command."""
        return blobs_of(self._ctr, images, wanted)

    def _found(self, looked: Looked, reference: ImageReference, platform: Platform | None) -> Image:
        name = next((each for each in _names_of(reference) if each in looked.names), "")
        if not name:
            raise self._no_such(looked, reference, _names_of(reference)[0])
        for wanted in (platform,) if platform else (DEFAULT_PLATFORM, None):
            found = image_at(looked, name, wanted)
            if isinstance(found, Whole):
                return self._image(looked, reference, name, found)
        raise self._lacks(looked, reference, name, platform)

    def _image(self, looked: Looked, reference: ImageReference, name: str, found: Whole) -> Image:
        target = looked.names[name].digest
        if reference.digest and reference.digest not in (target, found.manifest_digest):
            raise UnprovenError(
                f"{reference} is another image in {self.where}.",
                observed=f"expected {reference.digest}, found {target}",
                next="Pull it there anew, or name the digest that is meant.",
            )
        return image_of(
            reference.normal,
            str(reference),
            looked.documents[found.manifest_digest],
            looked.documents[found.manifest.config.digest],
            manifest_digest=target,
        )

    def _lacks(self, looked: Looked, reference: ImageReference, name: str, platform: Platform | None) -> UpgradeError:
        why = image_at(looked, name, platform)
        there = [str(each) for each in platforms_at(looked, looked.names[name].digest)]
        if platform and there and not any(platform.matches(each) for each in platforms_at(looked, looked.names[name].digest)):  # fmt: skip
            return platform_lacking(str(reference), platform, sorted(there))
        if isinstance(why, Lacking) and why.why.startswith("it is for ") and platform:
            return platform_lacking(str(reference), platform, [why.why.removeprefix("it is for ")])
        wanted = platform or DEFAULT_PLATFORM
        space = f" -n {self._ctr.namespace}" if self._ctr.namespace else ""
        return BlockedError(
            f"{reference} is not whole in {self.where}.",
            observed=why.why if isinstance(why, Lacking) else "",
            next=f"Pull it there with: ctr{space} images pull --platform {wanted} {name}\nThe kubelet's own pulls "
            "drop layers once they are unpacked where discard_unpacked_layers is set in containerd's configuration.",
        )

    def _no_such(self, looked: Looked, reference: ImageReference, name: str) -> NotFoundError:
        repository = name.rpartition(":")[0] if reference.digest is None else reference.name
        same = sorted(each for each in looked.names if each.startswith(f"{repository}:"))
        if same:
            observed = f"It has {', '.join(same[:_MOST_NAMED])}."
        elif looked.names:
            observed = f"It has no image of {repository}, of {len(looked.names)} images there."
        else:
            observed = "It has no image at all in this namespace."
        return NotFoundError(
            f"{reference} is not in {self.where}.",
            observed=observed,
            next=f"Pull it there with: ctr -n {self._ctr.namespace} images pull {name}",
        )


def _names_of(reference: ImageReference) -> list[str]:
    """Under which names containerd may keep it, the likeliest first.

    The kubelet's pulls keep a tag and a digest as two names; an import may have kept a short name as it was written.
    """
    if reference.digest is None:
        tagged = reference if reference.tag else replace(reference, tag="latest")
        return [tagged.normal, str(tagged)]
    apart = [replace(reference, tag=None).normal, *([replace(reference, digest=None).normal] if reference.tag else [])]
    return [reference.normal, *apart]
