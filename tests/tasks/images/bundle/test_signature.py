"""Detached signatures by ssh-keygen: who signed, that it was this file, and every way in which that is not so."""

import shutil
import subprocess
from pathlib import Path

import pytest

from blocks.image_settings import ImageSourceSettings
from tasks.domain.errors import NotFoundError, UnprovenError, UsageError
from tasks.domain.version import Version
from tasks.images.bundle import BundleSource, require_key, sign_bundle, verify_bundle
from tasks.images.bundling.release import BundleOrder, make_bundle
from tasks.images.opening import Opened
from tests.tasks.images.bundle.shelf import AT, Shelf, bundle, release

pytestmark = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="no ssh-keygen here")


def key(path: Path, passphrase: str = "") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path)], check=True)
    return path


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    """A bundle, a key, and the file `signers` that names it as vendor@example.com."""
    bundle(tmp_path / "b", compress="zstd")
    public = key(tmp_path / "key").with_suffix(".pub").read_text()
    (tmp_path / "signers").write_text(f'vendor@example.com namespaces="apinizer-bundle" {public}')
    return tmp_path / "b"


def test_a_signed_bundle(signed: Path) -> None:
    folder = signed.parent
    assert sign_bundle(signed, folder / "key") == folder / "b.sig"
    facts = verify_bundle(signed, allowed_signers=folder / "signers")
    assert facts.signed_by == "vendor@example.com"
    assert verify_bundle(signed).signed_by == ""
    with BundleSource(signed, allowed_signers=folder / "signers") as source:
        assert len(source.images) == 5
    (folder / "b.sig").rename(folder / "elsewhere")
    facts = verify_bundle(signed, signature=folder / "elsewhere", allowed_signers=folder / "signers")
    assert facts.signed_by == "vendor@example.com"


def test_by_hand_and_checked_here_and_the_other_way_round(signed: Path) -> None:
    folder = signed.parent
    subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-n", "apinizer-bundle", "-f", str(folder / "key"), str(signed)], check=True
    )
    assert verify_bundle(signed, allowed_signers=folder / "signers").signed_by == "vendor@example.com"
    sign_bundle(signed, folder / "key", replace=True)
    with signed.open("rb") as file:
        subprocess.run(
            ["ssh-keygen", "-Y", "verify", "-n", "apinizer-bundle", "-f", str(folder / "signers"),
             "-I", "vendor@example.com", "-s", str(folder / "b.sig")],
            stdin=file, check=True, capture_output=True,
        )  # fmt: skip


def test_no_signature_though_signers_are_given(signed: Path) -> None:
    with pytest.raises(UnprovenError, match="not signed"):
        verify_bundle(signed, allowed_signers=signed.parent / "signers")
    with BundleSource(signed, allowed_signers=signed.parent / "signers") as source, pytest.raises(UnprovenError):
        source.find([], None)


def test_a_key_that_nobody_knows(signed: Path) -> None:
    sign_bundle(signed, key(signed.parent / "other"))
    with pytest.raises(UnprovenError, match="by nobody among the allowed signers"):
        verify_bundle(signed, allowed_signers=signed.parent / "signers")


def test_another_file_than_the_one_that_was_signed(signed: Path) -> None:
    folder = signed.parent
    sign_bundle(signed, folder / "key")
    signed.unlink()
    bundle(signed, compress="none")  # A whole bundle, but not that one.
    verify_bundle(signed)
    with pytest.raises(UnprovenError, match="is not right"):
        verify_bundle(signed, allowed_signers=folder / "signers")


def test_a_signature_for_something_else(signed: Path) -> None:
    folder = signed.parent
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", str(folder / "key"), str(signed)], check=True)
    with pytest.raises(UnprovenError):
        verify_bundle(signed, allowed_signers=folder / "signers")


def test_signatures_that_are_none(signed: Path) -> None:
    folder = signed.parent
    sign_bundle(signed, folder / "key")
    whole = (folder / "b.sig").read_bytes()
    for broken in (b"", b"rubbish", whole[:100], whole.replace(b"A", b"B")):
        (folder / "b.sig").write_bytes(broken)
        with pytest.raises(UnprovenError):
            verify_bundle(signed, allowed_signers=folder / "signers")


def test_wrong_calls(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = signed.parent
    sign_bundle(signed, folder / "key")
    with pytest.raises(UsageError, match="exists already"):
        sign_bundle(signed, folder / "key")
    with pytest.raises(UsageError, match="nobody whose signature counts"):
        verify_bundle(signed, signature=folder / "b.sig")
    with pytest.raises(UsageError, match="no file of allowed signers"):
        verify_bundle(signed, allowed_signers=folder / "none")
    with pytest.raises(UsageError, match="could not be signed"):
        sign_bundle(signed, folder / "nokey", replace=True)
    with pytest.raises(UsageError, match="could not be signed") as caught:
        sign_bundle(signed, key(folder / "locked", "secret words"), replace=True)
    assert "ssh-add" in caught.value.next
    monkeypatch.setenv("PATH", str(folder))
    for call in (
        lambda: sign_bundle(signed, folder / "key", replace=True),
        lambda: verify_bundle(signed, allowed_signers=folder / "signers"),
    ):
        with pytest.raises(NotFoundError, match="ssh-keygen is not installed"):
            call()


def test_a_damaged_bundle_is_refused_whatever_its_signature(signed: Path) -> None:
    sign_bundle(signed, signed.parent / "key")
    raw = bytearray(signed.read_bytes())
    raw[len(raw) // 2] ^= 1
    signed.write_bytes(raw)
    with pytest.raises(UnprovenError, match="damaged"):
        verify_bundle(signed, allowed_signers=signed.parent / "signers")


@pytest.mark.parametrize("name", ["none", "text", "locked"])
def test_a_key_that_cannot_sign_is_told_before_anything_is_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "text").write_text("no key")
    key(tmp_path / "locked", "a passphrase")
    opened = Opened(ImageSourceSettings())
    order = BundleOrder(to=Version("2025.07.0"), out=str(tmp_path / "b"), sign=str(tmp_path / name))
    with pytest.raises(UsageError):
        make_bundle(opened, order, (), None, AT, lambda _done, _all: None)
    assert not (tmp_path / "b").exists()
    require_key(key(tmp_path / "good"))


def test_a_bundle_that_is_replaced_loses_its_signature(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sign_bundle(signed, signed.parent / "key")
    shelf, opened = Shelf(), Opened(ImageSourceSettings())
    monkeypatch.setattr(opened, "source", lambda: shelf)
    order = BundleOrder(to=Version("2025.07.0"), out=str(signed), replace=True)
    make_bundle(opened, order, release(shelf), None, AT, lambda _done, _all: None)
    assert not signed.with_name("b.sig").exists()
    assert verify_bundle(signed).signed_by == ""
