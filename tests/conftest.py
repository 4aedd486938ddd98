"""What holds for all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tasks.record import stopping

# How long an example takes says how busy the machine is, and nothing about the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Files that take minutes; begun last, one of them would be waited for alone.  Each is run by one process from its
# beginning to its end, in the order of the collection (--dist loadfile --no-loadscope-reorder).
LONG = ("flows/test_rollback.py", "flows/test_failures.py", "cli/test_upgrade.py", "deployments/test_registration.py")
SHORT = ("domain", "blocks")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    path = item.path.relative_to(Path(__file__).parent).as_posix()
    if path in LONG:
        return LONG.index(path) - len(LONG)
    folder = path.partition("/")[0]
    return 0 if folder in ("flows", "cli", "faults", "deployments") else 1 + (folder in SHORT)


@pytest.fixture(autouse=True)
def nobody_asked_to_stop() -> Iterator[None]:
    """A command is a process of its own; here the runs of all tests share one, and a failed one asks all to stop."""
    stopping.clear()
    yield
    stopping.clear()
