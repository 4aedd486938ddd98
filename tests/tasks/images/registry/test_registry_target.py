"""Pushing images to a registry: only what is missing, compressed on the way, over lines that break."""

import gzip
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import SecretStr

from tasks.domain.errors import (
    BlockedError,
    ForbiddenError,
    StoppedError,
    TemporaryError,
    UnauthorizedError,
    UnprovenError,
    UpgradeError,
)
from tasks.domain.reference import ImageReference
from tasks.images.delivery import Outcome, Receiver, deliver
from tasks.images.missing import need_of
from tasks.images.model import Image, Source
from tasks.images.registry import client, upload
from tasks.images.registry.access import Access
from tasks.images.registry.source import RegistrySource
from tasks.images.registry.target import RegistryTarget
from tests.tasks.images.registry.plain import PlainSource
from tests.tasks.images.registry.served import (
    DOCKER,
    OCI,
    PASSWORD,
    USER,
    Faults,
    Ordered,
    Served,
    certificate,
    served,
    sha256,
)

OPEN = Access(insecure=True)
LOGIN = Access(USER, SecretStr(PASSWORD), insecure=True)
PART = 256 * 1024


def noise(seed: int, size: int) -> bytes:
    """Bytes that do not compress, always the same."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - no secret


BASE, RELEASE = noise(1, 700_000), noise(2, 90_000)
WORKER, CACHE = "apinizercloud/worker:2025.07.0", "apinizercloud/cache:2025.07.0"
IMAGES = {WORKER: [BASE, RELEASE, b"worker"], CACHE: [BASE, RELEASE, b"cache"]}


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses, small parts."""
    monkeypatch.setattr(client, "PAUSES", (0.01, 0.02))
    monkeypatch.setattr(upload, "PART", PART)


def at(registry: Served, images: Sequence[Image]) -> list[Image]:
    """The same images under their names at a registry."""
    return [image.named(registry.name(image.name.partition("/")[2])) for image in images]


def plain(images: dict[str, list[bytes]] = IMAGES) -> tuple[PlainSource, tuple[Image, ...]]:
    source = PlainSource(images)
    return source, source.find([ImageReference.parse(name) for name in images])


def bring(source: Source, images: Sequence[Image], target: RegistryTarget) -> Outcome:
    holdings = target.look(images)
    receiver = Receiver("registry", target, images, holdings, need_of(images, holdings))
    return deliver(source, images, [receiver])["registry"]


def content(registry: Served, name: str) -> list[bytes]:
    """The image's layers as somebody who pulls it unpacks them."""
    manifest = registry.manifest(name)
    path = name.partition(":")[0]
    assert {layer["digest"] for layer in manifest["layers"]} <= registry.repositories[path].blobs
    bodies = [registry.blobs[layer["digest"]] for layer in manifest["layers"]]
    return [gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body for body in bodies]


@pytest.mark.parametrize("auth", [None, "basic", "token"])
def test_from_an_engine_to_a_registry(auth: str | None) -> None:
    source, found = plain()
    with served(auth=auth) as registry:
        images, target = at(registry, found), RegistryTarget(LOGIN)
        assert bring(source, images, target).error is None
        for image, (name, layers) in zip(images, IMAGES.items(), strict=True):
            assert content(registry, name) == layers
            assert registry.manifest(name)["config"]["digest"] == image.config
        proofs = target.prove(images)
        assert [(proof.name, proof.config) for proof in proofs] == [(image.name, image.config) for image in images]
        sizes = sum(len(gzip.compress(layer, 9)) for layer in (BASE, RELEASE))
        assert sizes * 0.98 < registry.received < sizes * 1.02 + 10_000, "what both share is sent once"
        again = registry.received
        outcome = bring(source, images, RegistryTarget(LOGIN))
        assert (outcome.error, outcome.sent, registry.received) == (None, 0, again)


def test_the_same_layer_makes_the_same_bytes() -> None:
    digests = set()
    for _ in range(2):
        source, found = plain()
        with served() as registry:
            assert bring(source, at(registry, found), RegistryTarget(OPEN)).error is None
            digests.add(registry.repositories["apinizercloud/worker"].tags["2025.07.0"])
    assert len(digests) == 1


@pytest.mark.parametrize("media_type", [DOCKER, OCI])
def test_from_registry_to_registry_nothing_is_changed(media_type: str) -> None:
    with served(auth="token") as origin, served(auth="basic") as registry:
        made = {name: origin.put_image(name, layers, media_type=media_type) for name, layers in IMAGES.items()}
        source = RegistrySource(LOGIN)
        found = source.find([ImageReference.parse(origin.name(name)) for name in IMAGES], None)
        target = RegistryTarget(LOGIN)
        assert bring(source, at(registry, found), target).error is None
        for name, image in made.items():
            path, _, tag = name.partition(":")
            assert registry.repositories[path].tags[tag] == image.manifest


def test_one_platform_of_a_list() -> None:
    with served() as origin, served() as registry:
        one = origin.put_image("apinizercloud/worker", [b"intel"])
        other = origin.put_image("apinizercloud/worker", [b"arm"], platform="linux/arm64")
        origin.put_index(WORKER, {"linux/amd64": one, "linux/arm64": other})
        source = RegistrySource(OPEN)
        found = source.find([ImageReference.parse(origin.name(WORKER))], None)
        assert bring(source, at(registry, found), RegistryTarget(OPEN)).error is None
        assert registry.repositories["apinizercloud/worker"].tags["2025.07.0"] == one.manifest


# ---------------------------------------------------------------- only what is missing
def test_layers_of_what_runs_now_are_mounted() -> None:
    source, found = plain()
    with served(auth="token") as registry:
        old = registry.put_image("apinizercloud/portal:2025.04.3", [BASE, b"old"], level=9)
        known = [ImageReference.parse(registry.name("apinizercloud/portal:2025.04.3"))]
        images, target = at(registry, found), RegistryTarget(LOGIN, known=known)
        holdings = target.look(images)
        need = need_of(images, holdings)
        assert need.reuse[sha256(BASE)].digest == old.layers[0], "known by what it unpacks to"
        assert sha256(BASE) not in need.layers
        assert bring(source, images, target).error is None
        assert [content(registry, name) for name in IMAGES] == list(IMAGES.values())
        assert registry.received < len(RELEASE) * 1.2
        mounts = [seen for seen in registry.requests("POST") if seen.query.get("mount") == old.layers[0]]
        assert {(seen.query["from"], seen.status) for seen in mounts} == {("apinizercloud/portal", 201)}


def test_a_registry_that_does_not_mount() -> None:
    source, found = plain()
    with served(auth="token", faults=Faults(mounts=False)) as registry:
        assert bring(source, at(registry, found), RegistryTarget(LOGIN)).error is None
        assert [content(registry, name) for name in IMAGES] == list(IMAGES.values())
        assert registry.uploads == {}, "what was begun instead of a mount is given up"


def test_what_is_there_under_another_tag_only_gets_a_name() -> None:
    with served() as origin, served() as registry:
        made = origin.put_image(WORKER, IMAGES[WORKER])
        registry.put_image("apinizercloud/worker:latest", IMAGES[WORKER])
        source = RegistrySource(OPEN)
        found = source.find([ImageReference.parse(origin.name(WORKER))], None)
        outcome = bring(source, at(registry, found), RegistryTarget(OPEN))
        assert outcome.error is None
        assert registry.repositories["apinizercloud/worker"].tags["2025.07.0"] == made.manifest
        assert registry.received < 3000


def test_an_image_whose_layer_is_gone_is_not_complete() -> None:
    source, found = plain()
    with served() as registry:
        images, target = at(registry, found), RegistryTarget(OPEN)
        assert bring(source, images, target).error is None
        lost = registry.manifest(WORKER)["layers"][1]["digest"]
        registry.repositories["apinizercloud/worker"].blobs.discard(lost)
        with pytest.raises(UnprovenError, match="does not hold") as raised:
            target.prove(images)
        assert lost in raised.value.observed
        assert set(target.look(images).names) == {registry.name(CACHE)}
        assert bring(source, images, RegistryTarget(OPEN)).error is None
        assert [content(registry, name) for name in IMAGES] == list(IMAGES.values())


# ---------------------------------------------------------------- tags
def test_a_tag_that_names_another_image() -> None:
    source, found = plain()
    with served() as registry:
        other = registry.put_image(WORKER, [b"another"])
        images = at(registry, found)
        error = bring(source, images, RegistryTarget(OPEN)).error
        assert isinstance(error, BlockedError)
        assert "is another image at registry already" in error.happened
        assert other.config in error.observed
        assert registry.received == 0
        with pytest.raises(UnprovenError) as raised:
            RegistryTarget(OPEN).prove(images)
        assert images[0].config in raised.value.observed
        assert other.config in raised.value.observed
        assert bring(source, images, RegistryTarget(OPEN, overwrite=True)).error is None
        assert content(registry, WORKER) == IMAGES[WORKER]


def test_tags_come_last_and_all_or_none() -> None:
    source, found = plain()
    with served() as registry:
        registry.faults.answers = [Ordered("PATCH", "/cache/", 403, "DENIED", times=99), Ordered("PUT", "/cache/blobs/", 403, "DENIED", times=99)]  # fmt: skip
        error = bring(source, at(registry, found), RegistryTarget(LOGIN)).error
        assert isinstance(error, ForbiddenError)
        assert all(not repository.tags for repository in registry.repositories.values())


# ---------------------------------------------------------------- lines that break
@pytest.mark.parametrize("cut", [[1000], [0], [PART - 1], [PART + 1, 5, 100_000, 70_000], [200_000, 20_000, 20_000]])
def test_a_cut_upload_goes_on_where_it_was(cut: list[int]) -> None:
    source, found = plain()
    with served(auth="token", faults=Faults(cut_patch=list(cut))) as registry:
        assert bring(source, at(registry, found), RegistryTarget(LOGIN)).error is None
        assert [content(registry, name) for name in IMAGES] == list(IMAGES.values())
        assert registry.faults.cut_patch == []
        # What the registry said to have is not sent again; a piece of 64 KiB was on its way to it at each cut.
        assert registry.received < (len(BASE) + len(RELEASE)) * 1.01 + 65_536 * len(cut)


@pytest.mark.parametrize("cut", [[0], [1000], [10**9, 3, 3, 3]])
@pytest.mark.parametrize("code", ["", "BLOB_UPLOAD_UNKNOWN"])
def test_a_cut_upload_of_one_request_begins_anew(cut: list[int], code: str) -> None:
    source, found = plain()
    with served(faults=Faults(cut_put=list(cut), lose_uploads=code)) as registry:
        assert bring(source, at(registry, found), RegistryTarget(OPEN)).error is None
        assert [content(registry, name) for name in IMAGES] == list(IMAGES.values())
        assert registry.faults.cut_put == []


@pytest.mark.parametrize("code", ["BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID"])
@pytest.mark.parametrize("cut", [[PART // 2], [PART + 1, PART + 1, PART // 2], [1, PART + 1, 1]])
def test_an_upload_that_the_registry_forgot_begins_anew(cut: list[int], code: str) -> None:
    source, found = plain()
    with served(faults=Faults(cut_patch=list(cut), lose_uploads=code)) as registry:
        assert bring(source, at(registry, found), RegistryTarget(OPEN)).error is None
        assert [content(registry, name) for name in IMAGES] == list(IMAGES.values())


def test_a_forgotten_upload_whose_beginning_is_gone() -> None:
    """Then the next try sends what the registry lacks, and no more."""
    layers = [noise(seed, 6 * PART) for seed in (3, 4)]
    source, found = plain({WORKER: layers})
    with served() as registry:
        images, target = at(registry, found), RegistryTarget(OPEN)
        # The first layer comes through, of the second one the sixth part does not.
        registry.faults.cut_patch = [PART + 1] * 12 + [1000]
        registry.faults.lose_uploads = "BLOB_UPLOAD_INVALID"
        error = bring(source, images, target).error
        assert isinstance(error, TemporaryError)
        assert "no longer in memory" in error.observed
        assert not any(repository.tags for repository in registry.repositories.values())
        before = registry.received
        registry.faults.cut_patch = []
        assert bring(source, images, target).error is None
        assert content(registry, WORKER) == layers
        assert registry.received - before < 6 * PART * 1.01 + 2000, "one layer was there"


def test_one_patch_only() -> None:
    source, found = plain()
    with served(faults=Faults(patches=1)) as registry:
        assert bring(source, at(registry, found), RegistryTarget(OPEN)).error is None
        assert [content(registry, name) for name in IMAGES] == list(IMAGES.values())


def test_one_patch_only_and_digests_known() -> None:
    with served() as origin, served(faults=Faults(patches=1)) as registry:
        made = origin.put_image(WORKER, IMAGES[WORKER])
        source = RegistrySource(OPEN)
        found = source.find([ImageReference.parse(origin.name(WORKER))], None)
        assert bring(source, at(registry, found), RegistryTarget(OPEN)).error is None
        assert registry.repositories["apinizercloud/worker"].tags["2025.07.0"] == made.manifest


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "HEAD"])
def test_a_busy_registry_is_asked_again(method: str, status: int) -> None:
    source, found = plain()
    with served() as registry:
        registry.faults.answers = [Ordered(method, "/v2/", status, "UNKNOWN", {"Retry-After": "0"})]
        assert bring(source, at(registry, found), RegistryTarget(OPEN)).error is None
        assert [content(registry, name) for name in IMAGES] == list(IMAGES.values())


def test_tokens_that_end_in_the_middle() -> None:
    source, found = plain()
    with served(auth="token", faults=Faults(token_uses=2)) as registry:
        assert bring(source, at(registry, found), RegistryTarget(LOGIN)).error is None
        assert [content(registry, name) for name in IMAGES] == list(IMAGES.values())


# ---------------------------------------------------------------- refusals
@pytest.mark.parametrize("auth", ["basic", "token"])
def test_logins_that_do_not_suffice(auth: str) -> None:
    source, found = plain()
    with served(auth=auth) as registry:
        images = at(registry, found)
        with pytest.raises(UnauthorizedError, match="does not accept the user"):
            bring(source, images, RegistryTarget(Access(USER, SecretStr("wrong"), insecure=True)))
        if auth == "basic":
            with pytest.raises(UnauthorizedError, match="asks for a login"):
                bring(source, images, RegistryTarget(OPEN))
        else:  # everybody may pull, nobody push
            assert isinstance(bring(source, images, RegistryTarget(OPEN)).error, UnauthorizedError)
        assert registry.received == 0


def test_a_wrong_ca_is_not_an_image_that_is_not_there(tmp_path: Path) -> None:
    source, found = plain()
    with served(tls=certificate(tmp_path)) as registry:
        images = at(registry, found)
        with pytest.raises(BlockedError, match="is not trusted"):
            RegistryTarget(Access()).look(images)
        with pytest.raises(BlockedError, match="is not trusted"):
            RegistryTarget(Access()).refuse_other(images)
        assert bring(source, images, RegistryTarget(Access(ca_file=registry.ca_file))).error is None


@pytest.mark.parametrize("redirected", [False, True])
@pytest.mark.parametrize(
    ("kind", "body"), [("text/html", b"<html>log in</html>"), ("application/json", b'{"login": true}'), ("", b"")]
)
def test_a_page_of_something_on_the_way_is_not_an_image_that_is_not_there(
    kind: str, body: bytes, *, redirected: bool
) -> None:
    _, found = plain()
    with served() as registry:
        page = Ordered(
            "GET", "/portal" if redirected else "/manifests/", 200, headers={"Content-Type": kind}, body=body
        )
        away = Ordered("GET", "/manifests/", 302, headers={"Location": f"http://{registry.host}/portal"}, times=9)
        page.times = 9
        registry.faults.answers += [page, away] if redirected else [page]
        target = RegistryTarget(OPEN)
        for ask in (target.look, target.refuse_other, target.prove):
            with pytest.raises(BlockedError, match="is no registry") as raised:
                ask(at(registry, found))
            assert all(raised.value.as_json().values())


def test_a_user_who_may_only_pull() -> None:
    source, found = plain()
    with served(auth="token", faults=Faults(pull_only=True)) as registry:
        error = bring(source, at(registry, found), RegistryTarget(LOGIN)).error
        assert isinstance(error, ForbiddenError)
        assert f"'{USER}' may not begin an upload" in error.happened
        assert "sends only what is then missing" in error.safe


def test_a_stop_ends_an_upload_that_stands_still() -> None:
    source, found = plain()
    with served(faults=Faults(stall_patch=True)) as registry:
        stop = threading.Event()
        images, target = at(registry, found), RegistryTarget(OPEN, stop=stop.is_set)
        holdings = target.look(images)
        receiver = Receiver("registry", target, images, holdings, need_of(images, holdings))
        threading.Timer(0.3, stop.set).start()
        begin = time.monotonic()
        error = deliver(source, images, [receiver], stop=stop.is_set)["registry"].error
        assert isinstance(error, StoppedError)
        assert time.monotonic() - begin < 9, "the server stands still for 20 s, a thread is given 10"


def test_a_layer_that_is_not_what_it_says_gets_no_tag() -> None:
    with served() as origin, served() as registry:
        made = origin.put_image(WORKER, IMAGES[WORKER], compressed=False)
        source = RegistrySource(OPEN)
        found = source.find([ImageReference.parse(origin.name(WORKER))], None)
        origin.faults.wrong = {made.layers[0]: BASE[:-1] + b"?"}
        error = bring(source, at(registry, found), RegistryTarget(OPEN)).error
        assert isinstance(error, UnprovenError)
        assert made.layers[0] in error.observed
        assert not any(repository.tags for repository in registry.repositories.values())


def test_a_refusal_that_no_try_mends_is_told() -> None:
    source, found = plain()
    with served() as registry:
        registry.faults.answers = [Ordered("PUT", "/manifests/", 413, body=b"request entity too large", times=9)]
        error = bring(source, at(registry, found), RegistryTarget(OPEN)).error
        assert isinstance(error, UpgradeError)
        assert not isinstance(error, TemporaryError)
        assert "413 request entity too large" in error.observed


def test_locations_behind_a_proxy_that_ends_tls(tmp_path: Path) -> None:
    source, found = plain()
    with served(auth="basic", tls=certificate(tmp_path), faults=Faults(plain_location=True)) as registry:
        access = Access(USER, SecretStr(PASSWORD), ca_file=registry.ca_file)
        assert bring(source, at(registry, found), RegistryTarget(access)).error is None
        assert [content(registry, name) for name in IMAGES] == list(IMAGES.values())
