"""Reading images from a registry: over real HTTP(S), with and without logins, over lines that break."""

import socket
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from tasks.domain.errors import (
    BlockedError,
    ForbiddenError,
    NotFoundError,
    StoppedError,
    TemporaryError,
    UnauthorizedError,
    UnprovenError,
    UpgradeError,
    UsageError,
)
from tasks.domain.reference import ImageReference
from tasks.images.model import Image, Platform
from tasks.images.registry import client
from tasks.images.registry.access import Access
from tasks.images.registry.source import RegistrySource
from tests.tasks.images.registry.served import (
    DOCKER,
    DOCKER_LIST,
    OCI,
    OCI_INDEX,
    PASSWORD,
    USER,
    Faults,
    Made,
    Ordered,
    Served,
    certificate,
    served,
    sha256,
)

WORKER = "apinizercloud/worker:2025.07.0"
LAYERS = [b"the base " * 50_000, b"the release " * 3000, b"worker"]
LOGIN = Access(USER, SecretStr(PASSWORD), insecure=True)
OPEN = Access(insecure=True)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAUSES", (0.01, 0.02))


def reference(registry: Served, name: str = WORKER) -> ImageReference:
    return ImageReference.parse(registry.name(name))


def find(registry: Served, access: Access = OPEN, name: str = WORKER, platform: str = "") -> Image:
    wanted = Platform.parse(platform) if platform else None
    return RegistrySource(access).find([reference(registry, name)], wanted)[0]


def read(
    registry: Served, image: Image, access: Access = OPEN, wanted: frozenset[str] | None = None
) -> dict[str, bytes]:
    blobs = RegistrySource(access).read([image], frozenset(image.diff_ids) if wanted is None else wanted)
    came = {}
    for blob in blobs:
        came[blob.digest] = b"".join(blob.chunks)
        assert len(came[blob.digest]) == blob.size
    return came


def is_whole(came: dict[str, bytes], made: Made) -> bool:
    return set(came) == {made.config, *made.layers} and all(sha256(body) == digest for digest, body in came.items())


@pytest.mark.parametrize("auth", [None, "basic", "token"])
@pytest.mark.parametrize("media_type", [DOCKER, OCI])
def test_an_image_is_found_and_read(auth: str | None, media_type: str) -> None:
    with served(auth=auth) as registry:
        made = registry.put_image(WORKER, LAYERS, media_type=media_type)
        image = find(registry, LOGIN)
        assert (image.name, image.origin) == (registry.name(WORKER), registry.name(WORKER))
        assert (image.config, image.manifest_digest, image.diff_ids) == (made.config, made.manifest, made.diff_ids)
        assert [layer.blob.digest for layer in image.layers if layer.blob] == list(made.layers)
        assert is_whole(read(registry, image, LOGIN), made)


def test_only_what_is_wanted_is_fetched_and_once() -> None:
    with served() as registry:
        registry.put_image(WORKER, LAYERS)
        made = registry.put_image("apinizercloud/cache:2025.07.0", [LAYERS[0], LAYERS[1], b"cache"])
        source = RegistrySource(OPEN)
        images = source.find([reference(registry), reference(registry, "apinizercloud/cache:2025.07.0")], None)
        before = len(registry.requests("GET", "/blobs/"))
        wanted = frozenset([made.diff_ids[1], made.diff_ids[2]])
        came = {blob.diff_id: b"".join(blob.chunks) for blob in source.read(images, wanted) if blob.kind == "layer"}
        assert set(came) == wanted
        assert len(registry.requests("GET", "/blobs/")) - before == 2


@pytest.mark.parametrize("media_type", [DOCKER_LIST, OCI_INDEX])
def test_the_platform_is_chosen(media_type: str) -> None:
    with served() as registry:
        one = registry.put_image("apinizercloud/worker", [b"intel"], platform="linux/amd64")
        other = registry.put_image("apinizercloud/worker", [b"arm"], platform="linux/arm64/v8")
        index = registry.put_index(WORKER, {"linux/arm64/v8": other, "linux/amd64": one}, media_type=media_type)
        assert find(registry).config == one.config
        assert find(registry, platform="linux/arm64").config == other.config
        assert find(registry).manifest_digest == index
        with pytest.raises(BlockedError) as raised:
            find(registry, platform="linux/s390x")
        assert "linux/arm64/v8" in raised.value.observed
        assert "linux/amd64" in raised.value.observed


def test_an_image_of_one_platform_only() -> None:
    with served() as registry:
        registry.put_image(WORKER, LAYERS, platform="linux/arm64")
        assert str(find(registry).platform) == "linux/arm64"
        with pytest.raises(BlockedError, match="linux/amd64"):
            find(registry, platform="linux/amd64")


def test_a_digest_in_the_reference_counts() -> None:
    with served() as registry:
        old = registry.put_image(WORKER, [b"old"])
        registry.put_image(WORKER, [b"new"])
        assert find(registry, name=f"apinizercloud/worker@{old.manifest}").config == old.config
        assert find(registry, name=f"{WORKER}@{old.manifest}").config == old.config
        with pytest.raises(NotFoundError, match="has no manifest sha256:0000"):
            find(registry, name="apinizercloud/worker@sha256:" + "0" * 64)


@pytest.mark.parametrize("auth", [None, "token"])
def test_an_unknown_tag_and_repository(auth: str | None) -> None:
    with served(auth=auth) as registry:
        for tag in ("2025.04.3", "2025.07.0", "2025.11.1"):
            registry.put_image(f"apinizercloud/worker:{tag}", LAYERS)
        with pytest.raises(NotFoundError, match=r"worker has no tag 2025\.07\.9") as raised:
            find(registry, LOGIN, name="apinizercloud/worker:2025.07.9")
        assert "2025.11.1, 2025.07.0, 2025.04.3" in raised.value.observed
        with pytest.raises(NotFoundError, match=r"no repository .*/wrker"):
            find(registry, LOGIN, name="apinizercloud/wrker:2025.07.0")


# ---------------------------------------------------------------- digests
def test_wrong_bytes_are_refused() -> None:
    with served() as registry:
        made = registry.put_image(WORKER, LAYERS)
        manifest = registry.repositories["apinizercloud/worker"].manifests[made.manifest][1]
        registry.faults.wrong = {made.manifest: manifest + b" "}
        with pytest.raises(UnprovenError, match="is not the one that its digest names") as raised:
            find(registry)
        assert made.manifest in raised.value.observed
        registry.faults.headless = True
        with pytest.raises(UnprovenError):
            find(registry, name=f"apinizercloud/worker@{made.manifest}")
        registry.faults.wrong = {made.config: registry.blobs[made.config].replace(b"amd64", b"arm64")}
        with pytest.raises(UnprovenError, match="The config of"):
            find(registry)


@pytest.mark.parametrize("change", [lambda body: body[:-1], lambda body: body + b"x"])
def test_a_blob_of_another_length_is_refused(change: Callable[[bytes], bytes]) -> None:
    with served() as registry:
        made = registry.put_image(WORKER, LAYERS)
        image = find(registry)
        registry.faults.wrong = {made.layers[0]: change(registry.blobs[made.layers[0]])}
        with pytest.raises(UnprovenError, match="not as long as its manifest says"):
            read(registry, image)


# ---------------------------------------------------------------- logins
@pytest.mark.parametrize("auth", ["basic", "token"])
def test_a_wrong_password_and_none(auth: str) -> None:
    with served(auth=auth) as registry:
        registry.put_image(WORKER, LAYERS)
        wrong = Access(USER, SecretStr("wrong-secret"), insecure=True)
        with pytest.raises(UnauthorizedError, match=f"does not accept the user '{USER}'") as raised:
            find(registry, wrong)
        assert "wrong-secret" not in str(raised.value)
        if auth == "token":  # As at Docker Hub everybody may pull.
            assert find(registry)
        else:
            with pytest.raises(UnauthorizedError, match="asks for a login"):
                find(registry)


def test_a_repository_that_the_user_may_not_read() -> None:
    with served(auth="basic", faults=Faults(denied={"apinizercloud/worker"})) as registry:
        registry.put_image(WORKER, LAYERS)
        with pytest.raises(ForbiddenError, match=f"'{USER}' may not read the manifest"):
            find(registry, LOGIN)


def test_a_token_that_does_not_reach_so_far() -> None:
    with served(auth="token") as registry:
        registry.put_image(WORKER, LAYERS)
        insufficient = 'Bearer realm="REALM",service="registry.test",error="insufficient_scope"'
        challenge = {"WWW-Authenticate": insufficient.replace("REALM", f"http://{registry.host}/token")}
        registry.faults.answers = [Ordered("GET", "/manifests/", 401, "UNAUTHORIZED", challenge, times=2)]
        with pytest.raises(ForbiddenError, match="may not read"):
            find(registry, LOGIN)


def test_tokens_are_kept_and_renewed() -> None:
    with served(auth="token") as registry:
        made = registry.put_image(WORKER, LAYERS)
        find(registry, LOGIN)
        assert len(registry.requests(part="/token")) == 1
    with served(auth="token", faults=Faults(token_uses=1)) as registry:
        made = registry.put_image(WORKER, LAYERS)
        image = find(registry, LOGIN)
        assert is_whole(read(registry, image, LOGIN), made), "each request needs a new token here"
    with served(auth="token", faults=Faults(expires_in=1)) as registry:
        registry.put_image(WORKER, LAYERS)
        source = RegistrySource(LOGIN)
        source.find([reference(registry)], None)
        time.sleep(0.6)
        refused = len([seen for seen in registry.requests() if seen.status == 401])
        source.find([reference(registry)], None)
        assert len(registry.requests(part="/token")) == 2
        assert len([seen for seen in registry.requests() if seen.status == 401]) == refused, "renewed before it ended"


def test_no_password_to_a_realm_without_tls(tmp_path: Path) -> None:
    with served(auth="token", tls=certificate(tmp_path)) as registry, served() as other:
        registry.put_image(WORKER, LAYERS)
        challenge = {"WWW-Authenticate": f'Bearer realm="http://{other.host}/token",service="registry.test"'}
        registry.faults.answers = [Ordered("", "/v2/", 401, "UNAUTHORIZED", challenge)]
        with pytest.raises(UnauthorizedError, match="without TLS"):
            find(registry, Access(USER, SecretStr(PASSWORD), ca_file=registry.ca_file))
        assert other.seen == []


# ---------------------------------------------------------------- TLS and plain HTTP
def test_tls_with_the_right_and_the_wrong_ca(tmp_path: Path) -> None:
    for name in ("right", "wrong"):
        (tmp_path / name).mkdir()
    with served(auth="basic", tls=certificate(tmp_path / "right")) as registry:
        made = registry.put_image(WORKER, LAYERS)
        trusting = Access(USER, SecretStr(PASSWORD), ca_file=registry.ca_file)
        assert is_whole(read(registry, find(registry, trusting), trusting), made)
        for access in (Access(), Access(ca_file=str(certificate(tmp_path / "wrong")))):
            with pytest.raises(BlockedError, match=r"certificate of the registry .* is not trusted") as raised:
                find(registry, access)
            assert "CA file" in raised.value.next
            assert f"openssl s_client -showcerts -connect {registry.host}" in raised.value.next
        with pytest.raises(UpgradeError):  # insecure is plain HTTP and nothing else
            find(registry, Access(insecure=True))
    with pytest.raises(UsageError, match="cannot be used"):
        RegistrySource(Access(ca_file=str(tmp_path / "nowhere.pem")))


def test_a_certificate_for_another_name(tmp_path: Path) -> None:
    with served(tls=certificate(tmp_path, host="127.0.0.9")) as registry:
        with pytest.raises(BlockedError, match="is not trusted") as raised:
            find(registry, Access(ca_file=registry.ca_file))
        assert "Use the name that the certificate is for" in raised.value.next


def test_plain_http_where_tls_is_expected() -> None:
    with served(auth="basic") as registry:
        with pytest.raises(BlockedError, match="does not speak TLS") as raised:
            find(registry, Access(USER, SecretStr(PASSWORD)))
        assert "--plain-http" in raised.value.next
        assert registry.seen == []


# ---------------------------------------------------------------- lines that break
def test_a_cut_line_is_taken_up_where_it_was() -> None:
    with served() as registry:
        made = registry.put_image(WORKER, [bytes(range(256)) * 12_000, b"x"], compressed=False)
        image = find(registry)
        registry.faults.cut_get = [2_000_000, 500_000]
        assert is_whole(read(registry, image), made)
        ranges = [seen.range for seen in registry.requests("GET", made.layers[0])]
        assert len(ranges) == 3
        assert ranges[0] == ""
        starts = [int(asked.removeprefix("bytes=").removesuffix("-")) for asked in ranges[1:]]
        assert 0 < starts[0] < starts[1]


def test_a_server_without_ranges() -> None:
    with served(faults=Faults(ranges=False)) as registry:
        made = registry.put_image(WORKER, [bytes(range(256)) * 12_000], compressed=False)
        image = find(registry)
        registry.faults.cut_get = [2_000_000]
        assert is_whole(read(registry, image), made)


def test_a_line_that_breaks_again_and_again() -> None:
    with served() as registry:
        made = registry.put_image(WORKER, LAYERS)
        image = find(registry)
        registry.faults.cut_get = [0] * 50
        with pytest.raises(TemporaryError, match="The line to the registry"):
            read(registry, image)
        assert len(registry.requests("GET", made.layers[0])) < 10


def test_an_object_store_gets_no_login() -> None:
    with served() as store, served(auth="token", faults=Faults(storage=f"http://{store.host}")) as registry:
        made = registry.put_image(WORKER, [bytes(range(256)) * 12_000], compressed=False)
        store.blobs = registry.blobs
        image = find(registry, LOGIN)
        store.faults.cut_get = [2_000_000]
        assert is_whole(read(registry, image, LOGIN), made)
        assert store.requests("GET", "/storage/")
        assert {seen.authorization for seen in store.requests()} == {""}
        assert any(seen.range for seen in store.requests())


def test_no_redirect_from_tls_to_plain(tmp_path: Path) -> None:
    with served() as store, served(tls=certificate(tmp_path)) as registry:
        registry.put_image(WORKER, LAYERS)
        registry.faults.storage = f"http://{store.host}".replace("127.0.0.1", "localhost")
        with pytest.raises(UpgradeError, match="without TLS"):
            find(registry, Access(ca_file=registry.ca_file))
        assert store.seen == []


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_busy_registry_is_asked_again(status: int) -> None:
    with served() as registry:
        made = registry.put_image(WORKER, LAYERS)
        busy = {"Retry-After": "0"} if status == 429 else {}
        registry.faults.answers = [
            Ordered("GET", "/manifests/", status, headers=busy), Ordered("GET", "/blobs/", status, headers=busy),
        ]  # fmt: skip
        assert is_whole(read(registry, find(registry)), made)


@pytest.mark.parametrize(("status", "code"), [(429, "TOOMANYREQUESTS"), (503, "")])
def test_a_registry_that_stays_busy(status: int, code: str) -> None:
    with served() as registry:
        registry.put_image(WORKER, LAYERS)
        registry.faults.answers = [Ordered("", "/v2/", status, code, {"Retry-After": "0"}, times=99)]
        with pytest.raises(TemporaryError) as raised:
            find(registry)
        assert str(status) in raised.value.observed


def test_nobody_listens_and_nobody_knows_the_name() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(TemporaryError, match="cannot be reached"):
            RegistrySource(OPEN).find([ImageReference.parse(f"127.0.0.1:{closed.getsockname()[1]}/a/b:1")], None)
    with pytest.raises(TemporaryError, match="cannot be resolved"):
        RegistrySource(OPEN).find([ImageReference.parse("registry.invalid:5000/a/b:1")], None)


def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with served() as registry:
        registry.put_image(WORKER, LAYERS)
        for name in ("http_proxy", "no_proxy"):  # these win, and an embedded server of another test may have set them
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", "")
        with pytest.raises(TemporaryError):
            find(registry)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert find(registry)


def test_a_stop_ends_a_transfer_that_stands_still() -> None:
    with served() as registry:
        registry.put_image(WORKER, [bytes(range(256)) * 12_000], compressed=False)
        stop = threading.Event()
        source = RegistrySource(OPEN, stop=stop.is_set)
        (image,) = source.find([reference(registry)], None)
        registry.faults.stall_get = [1_000_000]
        timer = threading.Timer(0.3, stop.set)
        timer.start()
        begin = time.monotonic()
        with pytest.raises(StoppedError):
            sum(len(chunk) for blob in source.read([image], frozenset(image.diff_ids)) for chunk in blob.chunks)
        assert time.monotonic() - begin < 15, "the server stands still for 20 s"


def test_closing_the_reader_ends_the_transfer() -> None:
    with served() as registry:
        registry.put_image(WORKER, [bytes(range(256)) * 12_000], compressed=False)
        image = find(registry)
        blobs = RegistrySource(OPEN).read([image], frozenset(image.diff_ids))
        next(blobs)
        layer = next(blobs)
        next(layer.chunks)
        layer.chunks.close()  # type: ignore[attr-defined]
        blobs.close()  # type: ignore[attr-defined]
        assert find(registry).config == image.config, "the registry is free for the next question"


@pytest.mark.parametrize(
    ("part", "status", "headers"),
    [
        ("/manifests/", 401, {"WWW-Authenticate": 'Basic realm="x"'}),
        ("/manifests/", 401, {"WWW-Authenticate": "Strange"}),
        ("/token", 200, {}),
        ("/token", 401, {}),
        ("/blobs/", 403, {}),
        ("/blobs/", 400, {}),
    ],
)
def test_a_refusal_or_token_without_end_is_cut_off(part: str, status: int, headers: dict[str, str]) -> None:
    with served(auth="token" if part == "/token" else None) as registry:
        registry.put_image(WORKER, LAYERS)
        registry.faults.answers = [Ordered("GET", part, status, headers=headers, body=bytes(150_000_000), times=9)]
        tracemalloc.start()
        try:
            with pytest.raises(UpgradeError):
                find(registry, LOGIN if part == "/token" else OPEN)
            assert tracemalloc.get_traced_memory()[1] < 50_000_000
        finally:
            tracemalloc.stop()


def test_a_registry_that_stands_still_is_given_up_after_two_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads is told, and tries again: to be silent for minutes before helps nobody."""
    monkeypatch.setattr(client, "SECONDS_READING", 0.4)
    with served() as registry:
        registry.put_image(WORKER, [bytes(range(256)) * 12_000], compressed=False)
        image = find(registry)
        before = len(registry.requests("GET", "/blobs/"))
        registry.faults.stall_get = [1_000_000, 0, 0, 0, 0]
        with pytest.raises(TemporaryError, match="says nothing more"):
            read(registry, image)
        assert len(registry.requests("GET", "/blobs/")) - before == 2


def test_a_registry_that_stands_still_once_is_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SECONDS_READING", 0.4)
    with served() as registry:
        made = registry.put_image(WORKER, [bytes(range(256)) * 12_000], compressed=False)
        image = find(registry)
        registry.faults.stall_get = [1_000_000]
        assert is_whole(read(registry, image), made)


def test_questions_that_nobody_answers_are_put_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SECONDS_READING", 0.4)
    with served() as registry:
        registry.put_image(WORKER, [b"layer"])
        source = RegistrySource(OPEN)
        source.find([reference(registry)], None)
        short = {"Content-Length": "10"}
        registry.faults.answers = [Ordered("GET", "/manifests/", 200, headers=short, body=b"x", times=9)]
        before = len(registry.requests("GET", "/manifests/"))
        with pytest.raises(TemporaryError, match="says nothing more"):
            source.find([reference(registry)], None)
        assert len(registry.requests("GET", "/manifests/")) - before == 2
