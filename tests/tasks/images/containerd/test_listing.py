"""What the real ctr printed (containerd 1.6.20; 1.7 and 2.1 as their sources print), read."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tasks.domain.placement import NodeFacts, ReportedImage
from tasks.images.containerd.kubelets import as_reported, foreign
from tasks.images.containerd.listing import (
    PINNED,
    UNCOMPRESSED,
    Looked,
    Named,
    parse_content,
    parse_images,
    parse_look,
    parse_machine,
    parse_server,
)
from tasks.images.model import Platform, digest_of

RECORDED = Path(__file__).with_name("recorded")


def recorded(name: str) -> str:
    return (RECORDED / name).read_text()


def test_content() -> None:
    content = parse_content(recorded("content-1.6.txt"))
    lines = recorded("content-1.6.txt").splitlines()[1:]
    assert list(content) == [line[:71] for line in lines]
    layers = [digest for digest, labels in content.items() if labels.get(UNCOMPRESSED)]
    assert len(layers) == sum("io/uncompressed=" in line for line in lines)
    assert all(content[digest][UNCOMPRESSED] == digest for digest in layers)


def test_images() -> None:
    images = parse_images(recorded("images-1.6.txt"))
    assert len(images) == 10
    worker = images["docker.io/apinizercloud/worker:2025.04.3"]
    assert worker.digest == "sha256:85d70e447ab8a6ec51490d75161b25c874c936d6885d8aa3e0da8175523bddf2"
    assert (worker.media_type, worker.labels) == ("application/vnd.docker.distribution.manifest.v2+json", {})


def test_images_that_cri_manages_and_what_cannot_be_sized() -> None:
    digest = "sha256:" + "ab" * 32
    text = (
        "REF TYPE DIGEST SIZE PLATFORMS LABELS \n"
        f"docker.io/a/b:1 application/vnd.oci.image.index.v1+json {digest} 2.0 MiB linux/386,linux/amd64 "
        "io.cri-containerd.image=managed,io.cri-containerd.pinned=pinned \n"
        f"{digest} application/vnd.oci.image.index.v1+json {digest} 0.0 B - - \n"
        "garbage\n"
    )
    images = parse_images(text)
    assert list(images) == ["docker.io/a/b:1", digest]
    assert images["docker.io/a/b:1"].labels[PINNED] == "pinned"
    assert (images["docker.io/a/b:1"].size, images[digest].size) == (2 * 1024 * 1024, 0)


@pytest.mark.parametrize(
    ("text", "server", "version"),
    [
        (recorded("version-1.6.txt"), "1.6.20~ds1", (1, 6)),
        ("Client:\n  Version:  v2.1.4\n\nServer:\n  Version:  v1.7.27-k3s1\n  Revision: \n", "v1.7.27-k3s1", (1, 7)),
        ("Client:\n  Version:  1.7.24\n\nServer:\n  Version:  v2.0.0-rc.3\n", "v2.0.0-rc.3", (2, 0)),
        ("Client:\n  Version:  1.7.24\n", "", (0, 0)),
        ("Server:\n  Version:  \n  Revision: 1.7\n", "", (0, 0)),
        ("Server:\n  Version:  unknown\n", "unknown", (0, 0)),
    ],
)
def test_version(text: str, server: str, version: tuple[int, int]) -> None:
    assert parse_server(text) == server
    assert looked(server).version == version


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Linux x86_64", Platform("linux", "amd64")),
        ("Linux aarch64\n", Platform("linux", "arm64")),
        ("Linux armv7l", Platform("linux", "arm", "v7")),
        ("Linux vax", None),
        ("", None),
    ],
)
def test_machine(text: str, expected: Platform | None) -> None:
    assert parse_machine(text) == expected


DOCUMENT = b'{"schemaVersion":2}\n'
DIGEST = digest_of(DOCUMENT)


def answer(documents: bytes = DOCUMENT, plugins: str = "") -> bytes:
    head = (
        "@@ machine\nLinux x86_64\n@@ version\n" + recorded("version-1.6.txt") + "@@ plugins\n"
        + (plugins or recorded("plugins-1.6.txt")) + "@@ room\nFilesystem 1024-blocks Used Available Capacity Mounted on\n"
        f"/dev/sda 9 2 7 30% /\n@@ images\n@@ content\nDIGEST\tSIZE\tAGE\tLABELS\n{DIGEST}\t20B\t2 days\t-\n"
        f"@@ sizes\n20 /var/blobs/sha256/{DIGEST[7:]}\n5 /var/blobs/sha256/{'0' * 64}\n@@ documents\n{DIGEST[7:]}\n@@\n"
    )  # fmt: skip
    return head.encode() + documents


def looked(server: str = "", names: Mapping[str, Named] | None = None) -> Looked:
    return Looked(server, None, None, True, names or {}, {}, {}, {})


def test_a_whole_answer() -> None:
    found = parse_look(answer())
    assert found.documents == {DIGEST: DOCUMENT}
    assert found.sizes == {DIGEST: 20}  # another namespace's blob is none of this one's
    assert (found.version, found.pins, found.free, found.unpacks) == ((1, 6), False, 7 * 1024, True)


def test_a_snapshotter_that_does_not_work() -> None:
    broken = recorded("plugins-1.6.txt").replace(
        "ID:            overlayfs", "ID:            overlayfs\nError:        \n  Message: no kernel module"
    )
    assert parse_look(answer(plugins=broken)).unpacks is False


@pytest.mark.parametrize("cut", [b'{"schemaVersion":1}\n', b"", DOCUMENT[:-1]])
def test_a_document_that_is_not_what_its_digest_says(cut: bytes) -> None:
    with pytest.raises(ValueError, match="changed while it was read"):
        parse_look(answer(cut))


def test_an_answer_that_ends_early() -> None:
    whole = answer(b"")
    for size in range(0, len(whole) - 1, 37):
        with pytest.raises(ValueError, match=r"ends before|not whole"):
            parse_look(whole[:size])


@pytest.mark.parametrize(
    ("server", "reported"),
    [
        ("1.6.20~ds1", "1.6.20"),
        ("v1.7.11-k3s2", "1.7.11-k3s2"),
        ("v2.0.0-rc.3+unknown", "2.0.0-rc.3+unknown"),
        ("1.7.24", "1.7.24"),
        ("v1.4.13.m", "1.4.13"),
        ("unknown", ""),
        ("", ""),
    ],
)
def test_a_version_in_the_kubelets_words(server: str, reported: str) -> None:
    assert as_reported(server) == reported


PAUSE = "docker.io/rancher/mirrored-pause:3.6"


@pytest.mark.parametrize(
    ("runtime", "reports", "server", "holds", "namespace", "why"),
    [
        ("containerd://1.7.11-k3s2", [PAUSE], "v1.7.11-k3s2", [PAUSE, "x"], "k8s.io", ""),
        ("containerd://1.7.11-k3s2", [PAUSE], "1.7.11", [PAUSE], "k8s.io", "its version is 1.7.11"),
        ("containerd://1.6.20", [PAUSE], "1.6.20~ds1", [PAUSE], "k8s.io", ""),
        # Both of one version: the images tell them apart.
        ("containerd://1.7.24", [PAUSE, "x"], "v1.7.24", ["y"], "k8s.io", "none of the images"),
        ("containerd://1.7.24", [PAUSE, "x"], "v1.7.24", [], "k8s.io", "none of the images"),
        ("containerd://1.7.24", [PAUSE, "x"], "v1.7.24", ["x"], "k8s.io", ""),
        # What nobody says speaks against nothing.
        ("containerd://1.7.24", [], "v1.7.24", [], "k8s.io", ""),
        ("containerd://1.7.24", ["<none>@<none>"], "v1.7.24", ["x"], "k8s.io", ""),
        ("containerd://1.7.24", [PAUSE], "v1.7.24", [], "of-its-own", ""),
        ("containerd://1.7.24", [PAUSE], "", [PAUSE], "k8s.io", ""),
        ("containerd://", [], "1.7.24", [], "k8s.io", ""),
        ("docker://24.0.7", [], "1.7.24", [], "k8s.io", ""),
        ("", [], "1.7.24", [], "k8s.io", ""),
    ],
)
def test_whose_containerd_it_is(
    runtime: str, reports: list[str], server: str, holds: list[str], namespace: str, why: str
) -> None:
    node = NodeFacts("n", runtime=runtime, images=tuple(ReportedImage((name,), 1) for name in reports))
    found = foreign(looked(server, {name: Named(DIGEST) for name in holds}), node, namespace)
    assert why in found
    assert bool(why) is bool(found)
