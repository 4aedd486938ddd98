"""A node that runs Docker as a target: one `docker load` of one archive for all images, each layer at most once.

A layer that the engine has under the same ones is left out of the archive (see saved/writer); where the engine keeps
its images in containerd's store, an OCI layout with all layers of the images that it lacks is loaded.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

from tasks.domain.errors import UnprovenError
from tasks.images.engine.answers import EngineFacts, Known, by_name, usable_layers
from tasks.images.engine.command import CommandEngine
from tasks.images.engine.failures import LayerGoneError
from tasks.images.layout import INDEX_NAME, LAYOUT_NAME, OCI_LAYOUT, assemble, blob_path, index_of, tar_file, tar_member
from tasks.images.model import Blob, Descriptor, HeldBlob, Holdings, Image, Need, Proof
from tasks.images.proof import Found, judge
from tasks.images.remote import Remote, Sending
from tasks.images.saved.plain import needs_plain, plain
from tasks.images.saved.writer import TAR_END, config_file, layer_head, manifest_file, padding


class DockerNodeTarget:
    """The Docker engine of a node, through the command `docker` there."""

    def __init__(self, remote: Remote, name: str, *, tool: str = "docker", address: str = "") -> None:
        self._engine = CommandEngine(remote, tool=tool, address=address)
        self._name = name
        self._facts: EngineFacts | None = None
        self._whole = False
        self._ids: dict[str, str] = {}
        self._configs: dict[tuple[str, tuple[str, ...]], str] = {}

    @property
    def where(self) -> str:
        """For people: `node-d (Docker)`."""
        return f"{self._name} (Docker)"

    def look(self, images: Sequence[Image]) -> Holdings:
        """See `Target.look`.  `blobs` are the layers, by diffID and without size, that need not be sent for `images`."""
        self._facts, free, known = self._engine.look()
        names = {name: image.id for image in known for name in image.names}
        if self._facts.keeps_blobs:
            names |= {name: found.config for name, found in self._by_config(images, known).items()}
        lacking = [image for image in images if names.get(image.name) != image.config]
        whole = self._whole or self._facts.keeps_blobs
        usable = frozenset[str]() if whole else usable_layers(lacking, known)
        return Holdings(
            blobs={diff_id: HeldBlob(diff_id, 0, diff_id=diff_id) for diff_id in usable},
            names=names,
            free=free,
            platform=self._facts.platform,
            whole_layers=whole,
        )

    def inlet(self, images: Sequence[Image], need: Need, holdings: Holdings) -> "LoadInlet":
        """See `Target.inlet`."""
        del holdings
        facts = self._facts or self._engine.facts()
        lacking = [image for image in images if image.name not in need.complete]
        return LoadInlet(self, self._engine, lacking, facts)

    def keep(self, images: Sequence[Image]) -> None:
        """Docker knows no pinning: what the kubelet may remove, it may remove."""

    def prove(self, images: Sequence[Image]) -> tuple[Proof, ...]:
        """See `Target.prove`: the engine's own inspection of each name, asked now."""
        facts = self._facts or self._engine.facts()
        known = self._engine.known([image.name for image in images])
        if facts.keeps_blobs:
            return judge(self.where, images, self._by_config(images, known))
        found = by_name([image.name for image in images], known)
        return judge(self.where, images, {name: Found(image.id) for name, image in found.items()})

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Once the engine has refused an archive for want of a layer, count on none that it seems to have."""
        try:
            yield
        except LayerGoneError:
            self._whole = True
            raise

    def id_of(self, config: str) -> str:
        """The Id under which the engine knows the image of a config."""
        return self._ids.get(config, config)

    def _by_config(self, images: Sequence[Image], known: Sequence[Known]) -> Mapping[str, Found]:
        """What stands behind the names where an image's Id is no config's digest; other layers are another image."""
        there = by_name([image.name for image in images], known)
        found: dict[str, Found] = {}
        for image in images:
            if (one := there.get(image.name)) is not None:
                same = one.diff_ids == image.diff_ids
                found[image.name] = Found(self._config(image.name, one) if same else one.id, one.id)
                self._ids[found[image.name].config] = one.id
        return found

    def _config(self, name: str, known: Known) -> str:
        """Its config, which costs the node a `docker save`: an Id with its layers means the same config for good."""
        key = (known.id, known.diff_ids)
        if key not in self._configs:
            self._configs[key] = self._engine.config(name)
        return self._configs[key]


class LoadInlet:
    """One `docker load`: everything is written as it comes, what names it last, so that a cut loads nothing."""

    def __init__(
        self, target: DockerNodeTarget, engine: CommandEngine, images: Sequence[Image], facts: EngineFacts
    ) -> None:
        self._target = target
        self._engine = engine
        self._images = images
        self._layout = facts.keeps_blobs
        self._version = facts.version
        self._stack = ExitStack()
        self._loading: Sending | None = None
        self._configs: dict[str, bytes] = {}
        self._layers: dict[str, Descriptor] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def take(self, blob: Blob) -> None:
        """See `Inlet.take`."""
        if blob.kind == "config":
            content = b"".join(blob.chunks)
            self._configs[blob.digest] = content
            self._write(
                tar_file(blob_path(blob.digest), content) if self._layout else config_file(blob.digest, content)
            )
            return
        if not self._layout and needs_plain(blob, self._version):
            with plain(blob) as unpacked:
                self._layer(unpacked)
        else:
            self._layer(blob)

    def _layer(self, blob: Blob) -> None:
        head = tar_member(blob_path(blob.digest), blob.size) if self._layout else layer_head(blob.diff_id, blob.size)
        self._write(head)
        written = 0
        for chunk in blob.chunks:
            written += len(chunk)
            self._write(chunk)
        if written != blob.size:
            raise UnprovenError(
                f"The layer {blob.diff_id} has another size than the source said.",
                observed=f"expected {blob.size} bytes, found {written}",
                next="Start again; if it stays so, the source is damaged.",
            )
        self._write(padding(blob.size))
        self._layers[blob.diff_id] = blob.descriptor

    def finish(self) -> None:
        """See `Inlet.finish`; an image whose config the engine has under another name gets its name."""
        came = [image for image in self._images if image.config in self._configs]
        if came:
            self._write(self._layout_end(came) if self._layout else manifest_file(came))
            self._write(TAR_END)
        if self._loading is not None:
            with self._target.refusals():
                self._loading.finish()
            self._stack.close()
        for image in self._images:
            if image.config not in self._configs:
                self._engine.tag(self._target.id_of(image.config), image.name)

    def _layout_end(self, images: Sequence[Image]) -> bytes:
        assembled = [(image, assemble(image, self._layers, {}, self._configs[image.config])) for image in images]
        manifests = {one.descriptor.digest: one.manifest for _, one in assembled}
        files = [tar_file(blob_path(digest), content) for digest, content in manifests.items()]
        files += [tar_file(INDEX_NAME, index_of(assembled)), tar_file(LAYOUT_NAME, OCI_LAYOUT)]
        return b"".join(files)

    def _write(self, content: bytes) -> None:
        if self._loading is None:
            self._loading = self._stack.enter_context(self._engine.load())
        with self._target.refusals():
            self._loading.write(content)
