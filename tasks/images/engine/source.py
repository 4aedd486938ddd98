"""A Docker engine as a source: `docker inspect` says what an image is, one `docker save` brings what is wanted of it.

The engine has no other way to give out a config's bytes than `docker save` of the whole image, even where no layer is
wanted; reading ends with the last wanted piece, which spares the rest of the stream, not the engine's own copy.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace

from tasks.domain.errors import NotFoundError, UpgradeError
from tasks.domain.reference import ImageReference
from tasks.images.engine.address import find_address, split_ssh
from tasks.images.engine.answers import Known, asked_name, by_name, sizes
from tasks.images.engine.api import ApiEngine
from tasks.images.engine.command import CommandEngine
from tasks.images.engine.protocol import Engine
from tasks.images.manifest import platform_lacking
from tasks.images.model import Blob, Image, Layer, Platform
from tasks.images.remote import Host, Remote
from tasks.images.saved.catalogue import Catalogue, read_catalogue
from tasks.images.saved.reader import read_saved


class DockerSource:
    """The Docker engine at `base_url`: unix://, tcp://, ssh://; "" is DOCKER_HOST, the chosen context, the usual socket.

    Raise `UsageError` where that is no address.  With `pull` the engine pulls what it is first asked for.  `ssh` holds
    how ssh gets to the machine of an ssh:// address (key, known hosts, jump host).  `spool` is the folder for layers
    that have to be written down to be recognised.
    """

    def __init__(
        self,
        base_url: str = "",
        *,
        pull: bool = False,
        ssh: Host | None = None,
        spool: str | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._engine = engine_at(base_url, ssh or Host(""), stop)
        self._pull = pull
        self._pulled: set[str] = set()
        self._spool = spool
        self._stock: dict[str, tuple[str, Catalogue]] = {}
        self._begun: tuple[frozenset[str], Iterator[bytes], ExitStack] | None = None

    @property
    def where(self) -> str:
        """For people: `Docker engine at unix:///run/docker.sock`."""
        return self._engine.where

    def find(self, references: Sequence[ImageReference], platform: Platform | None) -> tuple[Image, ...]:
        """The images in the order asked; see `Source.find`.

        An engine has one platform of an image.  `blob` of the layers is None, unless the engine keeps its images in
        containerd's store; then their archive is read to know them, once for each Id, which means the same for good.
        """
        names = {reference: asked_name(reference) for reference in references}
        if self._pull:
            self.pull([each for each in references if names[each] not in self._pulled], platform)
        facts = self._engine.facts()
        found = by_name(names.values(), self._engine.known(list(names.values())))
        for name in names.values():
            if name not in found:
                raise self._absent(name)
        if facts.keeps_blobs:
            return self._catalogued(names, {name: found[name].id for name in names.values()}, platform)
        return tuple(self._image(each, names[each], found[names[each]], platform) for each in references)

    def pull(self, references: Sequence[ImageReference], platform: Platform | None = None) -> None:
        """`docker pull` of each, as the published procedure begins; `find` pulls a name once and not again."""
        for name in dict.fromkeys(asked_name(reference) for reference in references):
            self._engine.pull(name, platform)
            self._pulled.add(name)

    def read(self, images: Sequence[Image], wanted: frozenset[str]) -> Iterator[Blob]:
        """See `Source.read`: one `docker save` of all `images`, ended after the last wanted piece."""
        if not images:
            return
        with (
            self._saving(_names(images)) as chunks,
            closing(read_saved(chunks, images, wanted, self.where, self._spool)) as blobs,
        ):
            yield from blobs

    def begin(self, images: Sequence[Image]) -> None:
        """Ask for the archive that `read` of these images will want: the engine needs its time before the first byte.

        A failure is left to `read`.
        """
        self.leave()
        with suppress(UpgradeError), ExitStack() as opened:
            chunks = opened.enter_context(self._engine.save(_names(images)))
            self._begun = frozenset(_names(images)), chunks, opened.pop_all()

    def leave(self) -> None:
        """End what was begun and not read."""
        if self._begun:
            self._begun[2].close()
            self._begun = None

    close = leave

    @contextmanager
    def _saving(self, names: Sequence[str]) -> Iterator[Iterator[bytes]]:
        """What was begun where it is the same, else an archive of its own."""
        begun, self._begun = self._begun, None
        if begun and begun[0] == frozenset(names):
            with begun[2]:
                yield begun[1]
            return
        if begun:
            begun[2].close()
        with self._engine.save(names) as chunks:
            yield chunks

    def _catalogued(
        self, names: Mapping[ImageReference, str], ids: Mapping[str, str], platform: Platform | None
    ) -> tuple[Image, ...]:
        unread = [name for name, id in ids.items() if name not in self._stock or self._stock[name][0] != id]  # noqa: A001 -- it is called so.
        self._take_stock(unread, ids)
        try:
            return tuple(self._stock[name][1].image(name, each, platform) for each, name in names.items())
        except UpgradeError:
            if len(unread) == len(ids):
                raise
        # An index keeps its Id when one more of its platforms is pulled.
        self._take_stock(list(ids), ids)
        return tuple(self._stock[name][1].image(name, each, platform) for each, name in names.items())

    def _take_stock(self, names: Sequence[str], ids: Mapping[str, str]) -> None:
        if names:
            with self._engine.save(names) as chunks:
                catalogue = read_catalogue(chunks)
            self._stock.update({name: (ids[name], catalogue) for name in names})

    def _image(self, reference: ImageReference, name: str, known: Known, platform: Platform | None) -> Image:
        if platform is not None and not platform.matches(known.platform):
            raise platform_lacking(f"{reference} in {self.where}", platform, [str(known.platform)])
        about = sizes(self._engine.history(name), len(known.diff_ids), known.size)
        layers = tuple(Layer(diff_id, None, size) for diff_id, size in zip(known.diff_ids, about, strict=True))
        return Image(reference.normal, str(reference), known.platform, known.id, layers)

    def _absent(self, name: str) -> NotFoundError:
        repository = ImageReference.parse(name).name
        tags = self._engine.tags(repository)
        return NotFoundError(
            f"{self.where} does not have {name}.",
            observed=f"Of {repository} it has {', '.join(tags)}." if tags else f"It has nothing of {repository}.",
            next=f"Pull it there (docker pull {name}), or load it (docker load), then start again.",
        )


def _names(images: Sequence[Image]) -> list[str]:
    return list(dict.fromkeys(asked_name(ImageReference.parse(image.origin)) for image in images))


def engine_at(base_url: str, ssh: Host, stop: Callable[[], bool]) -> Engine:
    """The engine at an address; over SSH the command `docker` is used there, which needs no SDK of its own."""
    address = find_address(base_url)
    if not address.over_ssh:
        return ApiEngine(address, stop=stop)
    parts = split_ssh(address.url)
    host = replace(
        ssh, name=parts.host, destination=parts.host, user=parts.user or ssh.user, port=parts.port or ssh.port
    )
    return CommandEngine(Remote(host, stop=stop), address=f"unix://{parts.socket}" if parts.socket else "")
