"""Image references: what is read, what is refused, and that nothing is made up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.errors import UsageError
from tasks.domain.reference import ImageReference

SHA = "sha256:" + "0123456789abcdef" * 4

READ = [
    ("worker", "", "worker", None, None),
    ("worker:2025.07.0", "", "worker", "2025.07.0", None),
    ("apinizercloud/worker:2025.07.0", "", "apinizercloud/worker", "2025.07.0", None),
    ("docker.io/apinizercloud/worker:2025.07.0", "docker.io", "apinizercloud/worker", "2025.07.0", None),
    ("nexus.local:5000/apinizercloud/worker:1", "nexus.local:5000", "apinizercloud/worker", "1", None),
    ("nexus:5000/worker:1", "nexus:5000", "worker", "1", None),
    ("nexus:5000", "", "nexus", "5000", None),
    ("localhost/worker", "localhost", "worker", None, None),
    ("NEXUS/apinizercloud/worker:1", "NEXUS", "apinizercloud/worker", "1", None),
    ("10.0.0.7:80/a/b/c/worker:1", "10.0.0.7:80", "a/b/c/worker", "1", None),
    ("[fd00::7]:5000/apinizercloud/worker:1", "[fd00::7]:5000", "apinizercloud/worker", "1", None),
    (f"apinizercloud/worker@{SHA}", "", "apinizercloud/worker", None, SHA),
    (f"h.io:1/apinizercloud/worker:2025.07.0@{SHA}", "h.io:1", "apinizercloud/worker", "2025.07.0", SHA),
    ("harbor.bank.local/proxy-hub/apinizercloud/api__x-y.z:T_1", "harbor.bank.local", "proxy-hub/apinizercloud/api__x-y.z", "T_1", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "registry", "path", "tag", "digest"), READ)
def test_reading(text: str, registry: str, path: str, tag: str | None, digest: str | None) -> None:
    found = ImageReference.parse(text)
    assert (found.registry, found.path, found.tag, found.digest) == (registry, path, tag, digest)
    assert str(found) == text


@pytest.mark.parametrize(
    "text",
    ["", ":", "@", "worker:", f"worker@{SHA[:20]}", "worker@", "apinizercloud/Worker:1", "https://nexus.local/worker:1",
     "a//b", "/worker", "worker/", "nexus.local:5000/worker:1:2", "nexus.local:port/worker", "worker:a b", " worker",
     "worker:1\n", "worker:" + "x" * 129, "a/" * 130 + "b", "worker_:1", "-a.b/worker", "nexus.local:5000/apinizer cloud/worker"],
)  # fmt: skip
def test_what_is_none_is_refused_and_shown(text: str) -> None:
    assert ImageReference.find(text) is None
    with pytest.raises(UsageError) as caught:
        ImageReference.parse(text)
    assert repr(text) in caught.value.happened
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "prefix", "repository", "name"),
    [
        ("worker:1", "", "worker", "worker"),
        ("apinizercloud/worker:1", "apinizercloud", "worker", "apinizercloud/worker"),
        ("h:5000/worker:1", "h:5000", "worker", "h:5000/worker"),
        ("h:5000/a/b/worker:1@" + SHA, "h:5000/a/b", "worker", "h:5000/a/b/worker"),
    ],
)
def test_its_parts(text: str, prefix: str, repository: str, name: str) -> None:
    found = ImageReference.parse(text)
    assert (found.prefix, found.repository, found.name) == (prefix, repository, name)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("cache:1", "docker.io/library/cache:1"),
        ("apinizercloud/cache:1", "docker.io/apinizercloud/cache:1"),
        ("index.docker.io/apinizercloud/cache:1", "docker.io/apinizercloud/cache:1"),
        ("docker.io/cache", "docker.io/library/cache"),
        ("h:5000/cache:1", "h:5000/cache:1"),
        (f"cache@{SHA}", f"docker.io/library/cache@{SHA}"),
    ],
)
def test_the_full_name(text: str, normal: str) -> None:
    assert ImageReference.parse(text).normal == normal


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("portal:2025.04.3", "apiportal:2025.07.0"),
        ("apinizercloud/portal", "apinizercloud/apiportal:2025.07.0"),
        ("h:5000/a/apinizercloud/portal:2025.04.3", "h:5000/a/apinizercloud/apiportal:2025.07.0"),
        (f"h:5000/portal:2025.04.3@{SHA}", "h:5000/apiportal:2025.07.0"),
    ],
)
def test_another_repository_and_tag_behind_the_same_prefix(text: str, wanted: str) -> None:
    assert str(ImageReference.parse(text).with_tag("apiportal", "2025.07.0")) == wanted


PART = st.from_regex(r"[a-z0-9]{1,5}((\.|_|__|-{1,2})[a-z0-9]{1,4}){0,2}", fullmatch=True)
HOST = st.one_of(
    st.just(""),
    st.builds("{}.{}".format, st.from_regex(r"[a-z0-9]{1,5}", fullmatch=True), st.sampled_from(["local", "io"])),
    st.builds("{}:{}".format, st.from_regex(r"[a-z0-9]{1,5}", fullmatch=True), st.integers(1, 65535)),
)
TAG = st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
DIGEST = st.none() | st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)


@given(HOST, st.lists(PART, min_size=1, max_size=4), TAG, DIGEST)
def test_what_is_written_is_read_back(registry: str, parts: list[str], tag: str | None, digest: str | None) -> None:
    # The grammar itself takes a first part with a dot for a registry where none is in front of it.
    if not registry and len(parts) > 1:
        parts = [parts[0].replace(".", "-"), *parts[1:]]
        parts = ["other" if parts[0] == "localhost" else parts[0], *parts[1:]]
    made = ImageReference(registry, "/".join(parts), tag, digest)
    assert ImageReference.parse(str(made)) == made
    assert ImageReference.parse(made.normal).normal == made.normal


@given(st.text(max_size=40))
def test_any_text_is_read_back_as_it_was_or_refused(text: str) -> None:
    found = ImageReference.find(text)
    assert found is None or str(found) == text
