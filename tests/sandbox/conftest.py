from collections.abc import Iterator

import pytest

from deployments.sandbox.launch import Sandbox

from .client import Client


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """One installation for a module, its time ten times faster."""
    with Sandbox(speed=10) as started:
        yield started


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[Client]:
    with Client(sandbox) as opened:
        yield opened
