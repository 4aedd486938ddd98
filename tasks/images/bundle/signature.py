"""Detached signatures by OpenSSH's `ssh-keygen -Y` (ssh-keygen(1)): no other software, keys that people have already.

What is signed is the file itself, so that it can be signed and checked by hand just as well:

    ssh-keygen -Y sign -n apinizer-bundle -f KEY FILE
    ssh-keygen -Y verify -n apinizer-bundle -f ALLOWED_SIGNERS -I IDENTITY -s FILE.sig < FILE
"""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tasks.domain.errors import NOTHING_CHANGED, NotFoundError, UnprovenError, UpgradeError, UsageError

NAMESPACE: Final = "apinizer-bundle"


def signature_path(path: Path) -> Path:
    """`FILE.sig`."""
    return path.with_name(path.name + ".sig")


def sign_bundle(path: Path, key: Path, *, replace: bool = False) -> Path:
    """Sign the file with a private key, or with a public one whose private key the agent has; the signature's path.

    Nothing is asked for: a key with a passphrase must be in the agent.  Raise `UsageError` (key, existing signature).
    """
    target = signature_path(path)
    if target.exists() and not replace:
        raise UsageError(
            f"{target} exists already.",
            observed="A signature never takes the place of a file unasked.",
            safe="The bundle itself is complete.",
            next="Remove it, name another file, or let it be replaced (--replace).",
        )
    with _opened(path) as file:
        signature = _signed(file, key, "The bundle itself is complete.")
    partial = target.with_name(f".{target.name}.partial")
    try:
        with partial.open("wb") as out:
            out.write(signature)
            out.flush()
            os.fsync(out.fileno())
        partial.chmod(0o644)
        partial.rename(target)
    except OSError as problem:
        partial.unlink(missing_ok=True)
        raise UpgradeError(
            f"The signature could not be written to {target}.",
            observed=problem.strerror or type(problem).__name__,
            safe="The bundle itself is complete.",
            next="Make room or mend the folder's rights, then make the bundle again with --replace.",
        ) from None
    return target


def require_key(key: Path) -> None:
    """Raise `UsageError` where nothing can be signed with a key: better before a bundle is written than after."""
    if not key.is_file():
        raise UsageError(
            f"There is no key at {key}.",
            observed="The bundle is to be signed with it.",
            next="Name a private key of ssh-keygen, or the public file of one that the agent has.",
        )
    _signed(subprocess.DEVNULL, key, NOTHING_CHANGED)


def _signed(file: int, key: Path, safe: str) -> bytes:
    done = _run(["-Y", "sign", "-n", NAMESPACE, "-f", str(key)], file)
    if done.returncode or not done.stdout.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        raise UsageError(
            f"The bundle could not be signed with {key}.",
            observed=_last(done.stderr),
            safe=safe,
            next="A key with a passphrase must be in the agent (ssh-add), and is then named by its public file (KEY.pub).",
        )
    return done.stdout


@contextlib.contextmanager
def check_signature(
    path: Path, file: int, signature: Path | None, allowed_signers: Path | None
) -> Iterator[Callable[[], str]]:
    """Check the signature of the open `file` while the context lasts; then what is yielded tells who signed, "" where nobody was asked for.

    It runs beside the reading of the file.  Raise `UsageError` (signers missing) or `UnprovenError` (no signature, a key
    that is not among the signers, a file that was changed).
    """
    if allowed_signers is None:
        if signature is not None:
            raise UsageError(
                "A signature is named, but nobody whose signature counts.",
                observed=f"The signature is {signature}.",
                next="Name the file of the allowed signers too (ssh-keygen(1), ALLOWED SIGNERS).",
            )
        yield lambda: ""
        return
    given = signature or signature_path(path)
    identity = _identity(given, allowed_signers)
    arguments = ["-Y", "verify", "-n", NAMESPACE, "-f", str(allowed_signers), "-I", identity, "-s", str(given)]
    # The open file and not the path, which may mean another file by now; opened anew for a position of its own.
    with _opened(Path(f"/proc/self/fd/{file}")) as again, _started(arguments, again) as process:
        yield lambda: _verdict(process, identity, path)


def _verdict(process: "subprocess.Popen[bytes]", identity: str, path: Path) -> str:
    output, errors = process.communicate()
    if process.returncode:
        raise UnprovenError(
            f"The signature of {path} is not right.",
            observed=f"The key is that of {identity}. {_last(errors or output)}",
            safe="Nothing of it was imported.",
            next="The bundle or its signature was changed, or it was signed for something else: get both anew.",
        )
    return identity


def _identity(signature: Path, signers: Path) -> str:
    """Who signed, by the key in the signature alone; whether it is right is asked afterwards."""
    if not signature.exists():
        raise UnprovenError(
            "The bundle is not signed.",
            observed=f"There is no {signature}.",
            safe="Nothing of it was imported.",
            next="Bring the signature along with the bundle, or load without allowed signers if that is meant.",
        )
    if not signers.exists():
        raise UsageError(
            f"There is no file of allowed signers at {signers}.",
            observed="Without it nobody's signature counts.",
            safe="Nothing of it was imported.",
            next="Name the file that lists who may sign (ssh-keygen(1), ALLOWED SIGNERS).",
        )
    done = _run(["-Y", "find-principals", "-s", str(signature), "-f", str(signers)], subprocess.DEVNULL)
    names = done.stdout.decode(errors="replace").split()
    if done.returncode or not names:
        raise UnprovenError(
            "The bundle's signature is by nobody among the allowed signers.",
            observed=_last(done.stderr) or "ssh-keygen names nobody.",
            safe="Nothing of it was imported.",
            next=f"Let the one who made the bundle sign it, or have their key added to {signers}.",
        )
    return names[0].split(",")[0]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as problem:
        raise UsageError(
            f"{path} cannot be read.",
            observed=problem.strerror or type(problem).__name__,
            next="Name a file that this user may read.",
        ) from None
    try:
        yield file
    finally:
        os.close(file)


@contextlib.contextmanager
def _started(arguments: list[str], file: int) -> "Iterator[subprocess.Popen[bytes]]":
    try:
        process = subprocess.Popen(
            ["ssh-keygen", *arguments],
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError:
        raise _no_tool() from None
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def _run(arguments: list[str], file: int) -> "subprocess.CompletedProcess[bytes]":
    try:
        # Its own session: without a terminal it cannot ask for a passphrase, and fails instead of waiting.
        return subprocess.run(
            ["ssh-keygen", *arguments], stdin=file, capture_output=True, check=False, start_new_session=True
        )  # fmt: skip
    except FileNotFoundError:
        raise _no_tool() from None


def _no_tool() -> NotFoundError:
    return NotFoundError(
        "ssh-keygen is not installed, so signatures can neither be made nor checked.",
        observed="It is in no folder of PATH.",
        next="Install OpenSSH's client (8.2 or later).",
    )


def _last(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
