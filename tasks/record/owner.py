"""Who this process is, as journals and the lease name it."""

import getpass
import os
import socket
from importlib.metadata import PackageNotFoundError, version

from tasks.domain.journal import Owner

NAME = "apinizer-upgrade"


def present_owner(run: str = "") -> Owner:
    """This process; `run` is Prefect's id of the flow run that it works on."""
    return Owner(user=_user(), host=socket.gethostname(), pid=os.getpid(), tool=f"{NAME} {tool_version()}", run=run)


def tool_version() -> str:
    """The version of this program, "unknown" where it was not installed."""
    try:
        return version(NAME)
    except PackageNotFoundError:
        return "unknown"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return f"uid {os.getuid()}"
