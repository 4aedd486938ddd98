"""What the tests between two stand-in containerds share: images, and how they are brought."""

import random
import time
from collections.abc import Callable, Sequence

from tasks.domain.reference import ImageReference
from tasks.images.containerd import ContainerdSource, ContainerdTarget
from tasks.images.delivery import Outcome, Receiver, deliver
from tasks.images.layout import blob_path, tar_file, tar_member
from tasks.images.missing import need_of
from tasks.images.model import Image, Platform, digest_of
from tasks.images.remote import Host, Remote
from tests.tasks.images.containerd.standin import Store

Make = Callable[[], tuple[Store, str]]
HERE = Remote(Host("here"))
WORKER, CACHE = "docker.io/apinizercloud/worker:2", "docker.io/apinizercloud/cache:2"
AMD, ARM = Platform("linux", "amd64"), Platform("linux", "arm64")


def data(seed: int, size: int = 300_000) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 -- content, no secret.


BASE, OWN, OTHER = data(1, 2_000_000), data(2, 1_000_000), data(3)
PART = tar_file(blob_path(digest_of(BASE)), BASE) + tar_member(blob_path(digest_of(OWN)), len(OWN)) + OWN[:500_000]


def parsed(*names: str) -> list[ImageReference]:
    return [ImageReference.parse(name) for name in names]


def bring(images: Sequence[Image], source: ContainerdSource, target: ContainerdTarget) -> Outcome:
    held = target.look(images)
    return deliver(source, images, [Receiver("node", target, images, held, need_of(images, held))])["node"]


def until(true: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


DIAL = 'ctr: failed to dial "/run/c.sock": connection error: desc = "transport: error while dialing: dial unix /run/c.sock: '
