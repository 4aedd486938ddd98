"""A process that restores when told to, each time in a child of its own that may be killed; a program of its own.

Each line of its input is `URI<tab>ARCHIVE<tab>DATABASE`; it answers with the child's process id and, when that
has ended, with its status.
"""

import os
import sys
from pathlib import Path

from tasks.database.connection import open_database
from tasks.database.restore.plan import RestoreRequest
from tasks.database.restore.run import restore


def main() -> None:
    for line in sys.stdin:
        uri, archive, database = line.rstrip("\n").split("\t")
        child = os.fork()
        if child == 0:
            with open_database(uri) as client:
                restore(client, Path(archive), RestoreRequest(database=database))
            os._exit(0)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main()
