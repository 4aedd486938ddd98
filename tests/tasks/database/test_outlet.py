"""What goes to the disk is one gzip member that any gzip reads, however it was cut and by how many threads."""

import contextlib
import gzip
import hashlib
import io
import zlib
from pathlib import Path
from random import Random

import pytest

from tasks.database.archive import outlet as outlet_module
from tasks.database.archive.inlet import Inlet
from tasks.database.archive.outlet import Outlet

RANDOM = Random(7)  # noqa: S311 - what is compressed
MAGIC = bytes.fromhex("6de29981")


def pieces(sizes: list[int]) -> list[bytes]:
    """Half text, half noise: some of it is stored, some compressed."""
    return [(RANDOM.randbytes(size // 2) + b"text " * (size // 10))[:size] for size in sizes]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(
    "sizes", [[], [1], [0, 3, 0], [100] * 500, [3000, 70_000, 10, 250_000, 9], [2_000_000, 1, 1]], ids=str
)
def test_comes_back(tmp_path: Path, sizes: list[int], threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet_module, "_BLOCK", 64 * 1024)  # Several blocks without megabytes.
    monkeypatch.setattr(outlet_module, "_WRITE_BACK", 128 * 1024)
    parts = [MAGIC, *pieces(sizes)]
    path = tmp_path / "file"
    with path.open("wb", buffering=0) as file, Outlet(file, threads=threads) as outlet:
        for part in parts:
            outlet.write(part)
        sha256 = outlet.finish()
    written = path.read_bytes()
    assert sha256 == hashlib.sha256(written).hexdigest()
    assert outlet.size == len(written)
    whole = b"".join(parts)
    assert gzip.decompress(written) == whole
    member = zlib.decompressobj(31)
    assert member.decompress(written) == whole
    assert member.eof  # One member, nothing after it.
    assert member.unused_data == b""
    assert b"".join(Inlet(io.BytesIO(written)).pieces()) == whole


def test_blocks_come_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that compresses fast does not overtake one that is slow."""
    monkeypatch.setattr(outlet_module, "_BLOCK", 1)
    parts = [bytes([n]) * (1_000_000 if n % 2 else 10) for n in range(30)]
    with (tmp_path / "file").open("wb") as file, Outlet(file, threads=4) as outlet:
        for part in parts:
            outlet.write(part)
        outlet.finish()
    assert gzip.decompress((tmp_path / "file").read_bytes()) == b"".join(parts)


def test_what_the_watch_raises_stops_the_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet_module, "_BLOCK", 1000)

    def full(written: int) -> None:
        if written > 20_000:
            raise OSError(28, "No space left on device")

    with (tmp_path / "file").open("wb", buffering=0) as file, Outlet(file, watch=full) as outlet:
        for part in pieces([2000] * 40):
            with contextlib.suppress(OSError):  # Whether a write or the end tells it is the threads' race.
                outlet.write(part)
        with pytest.raises(OSError, match="No space left"):
            outlet.finish()
        assert outlet.size < 100_000
