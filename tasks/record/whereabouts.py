"""Where a process runs, so that another one there can see whether it still does.  Linux's `/proc`; elsewhere nothing is known.

A process id means something only in one boot of a machine and one namespace of process ids, and only together with
when the process started (proc(5)): a later process of the same id has another start.
"""

import os
from collections.abc import Mapping
from pathlib import Path

_GONE = {"Z", "X"}
_SPACES = ("pid", "time")  # the times of starts are told in a time namespace's own clock


def here() -> dict[str, str]:
    """This process: `place` (boot and namespaces, "" where it cannot be told), `pid` and `started` (ticks since the boot)."""
    pid = os.getpid()
    started = _stat(pid)
    return {"place": _place(), "pid": str(pid), "started": started[19] if started else ""}


def is_gone(process: Mapping[str, str]) -> bool:
    """Whether a process, as its `here()` told it, ran where this one runs and surely does not any more."""
    place, started, pid = process.get("place"), process.get("started"), process.get("pid", "")
    if not place or not started or not pid.isdecimal() or place != _place():
        return False
    try:
        os.kill(int(pid), 0)  # /proc may hide the processes of other users; this tells that they exist
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    now = _stat(int(pid))
    return bool(now) and (now[19] != started or _only_remains(now))


def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        spaces = [str((Path("/proc/self/ns") / one).readlink()) for one in _SPACES if _has(one)]
    except OSError:
        return ""
    return " ".join([boot, *spaces])


def _has(space: str) -> bool:
    return space == "pid" or (Path("/proc/self/ns") / space).is_symlink()  # kernels before 5.6 have one time


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name: state is 0, threads 17, start 19; empty where it cannot be read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _only_remains(stat: list[str]) -> bool:
    """Ended, all its threads too: one that hangs in a write outlives the first for a while."""
    return stat[0] in _GONE and int(stat[17]) <= 1
