"""What holds for all tests."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tasks.record import stopping

# How long an example takes says how busy the machine is, and nothing about the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def nobody_asked_to_stop() -> Iterator[None]:
    """A command is a process of its own; here the runs of all tests share one, and a failed one asks all to stop."""
    stopping.clear()
    yield
    stopping.clear()
