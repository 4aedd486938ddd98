"""How much room a machine has."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.images.remote.ssh import Remote


def free_bytes(remote: "Remote", path: str) -> int | None:
    """Bytes that may still be written below `path` on the machine, None where it does not tell (no such folder)."""
    ran = remote.run(["df", "-Pk", "--", path], timeout=30)
    return parse_free(ran.stdout.decode(errors="replace")) if ran.code == 0 else None


def parse_free(text: str) -> int | None:
    """The fourth column of what `df -Pk` prints (POSIX: one line a file system, in units of 1024 bytes)."""
    for line in text.splitlines()[1:]:
        # From the right: a file system's name may hold blanks, as may the folder, but never before the percentage.
        before, percent, _ = line.partition("% ")
        columns = before.split()
        if percent and len(columns) >= 5 and columns[-2].lstrip("-").isdigit():
            return max(0, int(columns[-2])) * 1024
    return None
