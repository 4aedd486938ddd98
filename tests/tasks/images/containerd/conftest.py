"""A stand-in containerd for each test, reached on this machine."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.images.containerd import ContainerdSource
from tests.tasks.images.containerd.bringing import BASE, CACHE, HERE, OTHER, OWN, WORKER
from tests.tasks.images.containerd.standin import Store, wrapper


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The one that `ctr` on PATH speaks to."""
    return _made(tmp_path / "one", monkeypatch)


@pytest.fixture
def another(tmp_path: Path) -> Callable[[], tuple[Store, str]]:
    """Makes another one; returns it with the words of its ctr."""

    def make() -> tuple[Store, str]:
        folder = tmp_path / "two"
        folder.mkdir()
        return Store(folder), str(wrapper(folder) / "ctr")

    return make


def _made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{wrapper(folder)}:{os.environ['PATH']}")
    return Store(folder)


@pytest.fixture
def source(store: Store) -> ContainerdSource:
    store.add(WORKER, [BASE, OWN])
    store.add(CACHE, [BASE, OTHER])
    return ContainerdSource(HERE)
