"""How much room a machine says that it has (pure)."""


def parse_free(text: str) -> int | None:
    """The fourth column of what `df -Pk` prints (POSIX: one line a file system, in units of 1024 bytes)."""
    for line in text.splitlines()[1:]:
        # From the right: a file system's name may hold blanks, as may the folder, but never before the percentage.
        before, percent, _ = line.partition("% ")
        columns = before.split()
        if percent and len(columns) >= 5 and columns[-2].lstrip("-").isdigit():
            return max(0, int(columns[-2])) * 1024
    return None
