"""What every run of this engine shares: its name, its version, and being stopped."""

from importlib.metadata import PackageNotFoundError, version

from tasks.domain.errors import UpgradeError

DISTRIBUTION = "apinizer-upgrade"


class StoppedError(UpgradeError):
    """The run was told to stop; what it had written is removed."""


def tool_version() -> str:
    """The version of this software."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"
