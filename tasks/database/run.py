"""What every run of this engine shares: its name and its version."""

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "apinizer-upgrade"


def tool_version() -> str:
    """The version of this software."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"
