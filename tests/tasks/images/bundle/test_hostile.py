"""Archives that were made to break their reader: each is refused in words that can be printed."""

import io
import tarfile
from pathlib import Path

import pytest

from tasks.domain.errors import DamagedArchiveError, UpgradeError
from tasks.images.bundle import verify_bundle


@pytest.mark.parametrize(
    "record",
    [
        b"size=" + b"9" * 5000, b"size=-1", b"size=", "size=\N{ARABIC-INDIC DIGIT ONE}".encode(), b"GNU.sparse.size=1",
        b"path=../../etc/passwd", b"path=", b"path=a\0b",
    ],
)  # fmt: skip
def test_pax_headers_that_say_what_cannot_be(tmp_path: Path, record: bytes) -> None:
    body = b" " + record + b"\n"
    length = next(n for n in range(len(body), len(body) + 9) if len(str(n)) + len(body) == n)
    (tmp_path / "b").write_bytes(pax_header(str(length).encode() + body))
    with pytest.raises(DamagedArchiveError):
        verify_bundle(tmp_path / "b")


@pytest.mark.parametrize("content", [b"9" * 5000 + b" path=a\n", b"7 path=a\n", b"path=a\n", b"0 ", b" ", b"9 path=a"])
def test_broken_pax_headers(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b").write_bytes(pax_header(content))
    with pytest.raises(DamagedArchiveError, match="damaged"):
        verify_bundle(tmp_path / "b")


def pax_header(content: bytes) -> bytes:
    """A header with this content, and a file behind it."""
    head, file = tarfile.TarInfo("PaxHeader"), tarfile.TarInfo("a")
    head.type, head.size, file.size = tarfile.XHDTYPE, len(content), 1
    padded = content + bytes(-len(content) % 512)
    return head.tobuf(tarfile.USTAR_FORMAT) + padded + file.tobuf() + b"x" + bytes(511 + 10_240)


def test_names_that_are_no_text_are_told_so_that_they_can_be_printed(tmp_path: Path) -> None:
    files = {"\udcff.json": b"{}", "manifest.json": b'[{"Config": "\\udcff.json", "RepoTags": ["a:1"], "Layers": []}]'}
    with tarfile.open(tmp_path / "b", "w", format=tarfile.USTAR_FORMAT, errors="surrogateescape") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with pytest.raises(UpgradeError) as caught:
        verify_bundle(tmp_path / "b")
    assert "udcff.json" in str(caught.value)
    assert str(caught.value).encode()
