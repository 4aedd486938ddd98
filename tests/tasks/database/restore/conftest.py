"""Fixtures of the restore's tests."""

from collections.abc import Iterator

import pytest

from tests.tasks.database.restore.world import Wire


@pytest.fixture
def wire(uri: str) -> Iterator[Wire]:
    """A wire to the server."""
    host, port = uri.removeprefix("mongodb://").split("/")[0].split(":")
    made = Wire(host, int(port))
    yield made
    made.close()
