"""Little that unpacks to much: memory is bounded by what is handed on at once, not by what somebody sent."""

import hashlib
import resource
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from tasks.domain.errors import BlockedError, DamagedArchiveError, UpgradeError
from tasks.images.bundle import verify_bundle
from tasks.images.bundle.form import zstd_tail
from tasks.images.media import OCI_LAYER_ZSTD
from tasks.images.model import Blob, digest_of
from tasks.images.saved.plain import plain
from tasks.images.saved.unzstd import Unzstd

MEGABYTE = 1024 * 1024
LITTLE = 100 * MEGABYTE


def bomb(megabytes: int, promised: int | None = None) -> bytes:
    """A frame of zeros, four bytes for 128 KiB; `promised` is what its header says that it unpacks to, and a checksum.

    RFC 8878, 3.1.1: magic, descriptor, window (2 MiB), content size; then blocks of one repeated byte.
    """
    head = b"\x04\x58" if promised is None else b"\x44\x58" + (promised - 256).to_bytes(2, "little")
    block = (131_072 << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd" + head + block * (megabytes * 8 - 1) + bytes([block[0] | 1]) + block[1:] + bytes(4)


def peak(work: Callable[[], object]) -> int:
    """The most bytes that `work` had at once."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_frame_is_unpacked_a_little_at_a_time() -> None:
    def unpack() -> None:
        with pytest.raises(zstandard.ZstdError, match="checksum"):
            assert sum(len(piece) for piece in Unzstd().feed(bomb(600))) == 0

    assert peak(unpack) < LITTLE


def test_a_stream_that_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(bomb(600))

    def verify() -> None:
        with pytest.raises(UpgradeError):
            verify_bundle(tmp_path / "b")

    assert peak(verify) < LITTLE


def test_a_bundle_whose_frame_holds_more_than_it_promises(tmp_path: Path) -> None:
    frame = bomb(600, promised=1000)
    assert zstandard.get_frame_parameters(frame).content_size == 1000
    (tmp_path / "b").write_bytes(frame + zstd_tail([(len(frame), 1000)], hashlib.sha256(frame)))

    def verify() -> None:
        with pytest.raises(DamagedArchiveError):
            verify_bundle(tmp_path / "b")

    assert peak(verify) < LITTLE


def test_a_layer_for_an_old_engine(tmp_path: Path) -> None:
    content = bytes(300 * MEGABYTE)
    packed = zstandard.compress(content)
    del content
    layer = Blob("layer", "sha256:" + "0" * 64, digest_of(packed), len(packed), OCI_LAYER_ZSTD, iter([packed]))

    def unpack() -> None:
        with plain(layer, str(tmp_path)) as unpacked:
            assert unpacked.size == 300 * MEGABYTE

    assert peak(unpack) < LITTLE


def test_a_layer_that_does_not_fit_on_the_disk(tmp_path: Path) -> None:
    packed = zstandard.compress(bytes(50 * MEGABYTE))
    layer = Blob("layer", "sha256:" + "0" * 64, digest_of(packed), len(packed), OCI_LAYER_ZSTD, iter([packed]))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10 * MEGABYTE, before[1]))
    try:
        with pytest.raises(BlockedError, match="cannot be unpacked in"), plain(layer, str(tmp_path)):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_frames_in_pieces_of_any_size() -> None:
    whole = b"".join(zstandard.compress(bytes([n]) * (n * 1000)) for n in range(1, 40))
    expected = b"".join(bytes([n]) * (n * 1000) for n in range(1, 40))
    for size in (1, 7, 1023, 1024, 1025, len(whole)):
        unpacking = Unzstd()
        pieces = [piece for at in range(0, len(whole), size) for piece in unpacking.feed(whole[at : at + size])]
        assert b"".join(pieces) == expected
        assert unpacking.between_frames
    unpacking = Unzstd()
    assert list(unpacking.feed(whole[:-1]))
    assert not unpacking.between_frames
