"""The template: an empty Prefect database, migrated once for each Prefect version and loaded for each run.

It lies in the person's cache folder as `prefect-VERSION-SHA256.db`. The name holds the checksum of the
content, so a file that was cut short or altered is seen before it is used, and one rename publishes both.
"""

import fcntl
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from deployments.embedded.process import command, environment, tail
from tasks.domain.errors import UpgradeError

MIGRATION_TIMEOUT = 300.0
"""Seconds; it takes 10 on a quiet machine."""


def prepare() -> Path:
    """The template's path; makes it (some 10 s) where it is missing or damaged.

    Safe to call from several processes at once: one makes it, the others wait and use it.
    Raises `UpgradeError` where the database cannot be made, `OSError` where the cache cannot be written.
    """
    directory = _directory()
    found = _sound(directory)
    if found is not None:
        return found
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(directory / "lock"):
        return _sound(directory) or _make(directory)


def _directory() -> Path:
    # The XDG base directory specification: a path that is not absolute is to be ignored.
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    cache = configured if configured.is_absolute() else Path.home() / ".cache"
    return cache / "apinizer-upgrade" / "embedded-server"


def _sound(directory: Path) -> Path | None:
    for path in directory.glob(f"prefect-{version('prefect')}-*.db"):
        try:
            if path.name == _name(path):
                return path
        except OSError:
            continue
    return None


def _name(content: Path) -> str:
    digest = hashlib.sha256(content.read_bytes()).hexdigest()
    return f"prefect-{version('prefect')}-{digest}.db"


def _make(directory: Path) -> Path:
    for stale in (*directory.glob(f"prefect-{version('prefect')}-*.db"), *directory.glob("*.partial")):
        # Under the lock, and none was sound: they are damaged, or left by a process that was killed.
        stale.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(suffix=".partial", dir=directory)
    os.close(handle)
    partial = Path(name)
    try:
        build(partial)
        final = directory / _name(partial)
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)
    return final


def build(database: Path) -> None:
    """Fill `database` (an empty file) with Prefect's schema and its block types, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="apinizer-upgrade-template-") as home:
        log = Path(home) / "log"
        with log.open("wb") as output:
            ended = subprocess.run(
                command("migrate", str(database)),
                env=environment(str(database), Path(home)),
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=MIGRATION_TIMEOUT,
                check=False,
            )
        if ended.returncode != 0:
            raise UpgradeError(
                "The database of the embedded Prefect server could not be made.",
                observed=tail(log) or f"The process ended with code {ended.returncode}.",
                next="Mend the cause above, or set PREFECT_API_URL to a Prefect server that runs.",
            )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("wb") as handle:
        # The kernel drops this lock with its holder, however that ends.
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
