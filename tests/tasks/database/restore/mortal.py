"""A process that restores when told to, each time in a child of its own that may be killed; a program of its own.

Each line of its input is `URI<tab>ARCHIVE<tab>DATABASE`; it answers with the child's process id and, when that
has ended, with its status.  With the argument `once` it does the first line by itself.
"""

import os
import sys
from pathlib import Path

from tasks.database.connection import open_database
from tasks.database.restore.plan import RestoreRequest
from tasks.database.restore.run import restore


def main() -> None:
    if sys.argv[1:] == ["once"]:
        put_back(sys.stdin.readline())
        return
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            put_back(line)
            os._exit(0)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


def put_back(line: str) -> None:
    uri, archive, database = line.rstrip("\n").split("\t")
    with open_database(uri) as client:
        restore(client, Path(archive), RestoreRequest(database=database))


if __name__ == "__main__":
    main()
